"""How a worker ends: within its time, and leaving other processes alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from worker_rig import worker

CODE = """
import atexit, multiprocessing, signal, threading, time
import slipway
from slipway.executor.worker import ending

app = slipway.App("example")

@app.cls()
class Slow:
    @slipway.enter()
    def enter(self):
        ending.GRACE = 0.2

    @slipway.method()
    def work(self):
        print("working", flush=True)
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass

    @slipway.method()
    def nothing(self): ...

    @slipway.exit()
    def exit(self):
        print("tidying up", flush=True)
        time.sleep(60)

def leaves_a_thread():
    ending.GRACE = 0.2
    threading.Thread(target=time.sleep, args=(60,)).start()

def leaves_work():
    def later():
        time.sleep(0.05)
        print("the thread is done")
    threading.Thread(target=later).start()
    atexit.register(print, "at exit")

def _sleeps(pipe):
    pipe.send("begun")
    time.sleep(60)

def ends_a_child():
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_sleeps, args=(theirs,))
    child.start()
    ours.recv()
    child.terminate()
    child.join()
    return child.exitcode

def own_handler():
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not heard:
        time.sleep(0.001)
    signal.signal(signal.SIGALRM, before)
    return heard
"""
SLOW = (("nothing", False, False), ("work", False, False))


def test_a_hook_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "Slow", methods=SLOW) as rig:
        assert rig.hang_up() == -signal.SIGKILL
        assert rig.lines[0].text == "tidying up" and "did not end within" in rig.lines[1].text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_code_that_takes_no_notice_is_not_waited_for(tmp_path: Path, number: signal.Signals) -> None:
    with worker(tmp_path, CODE, "Slow", methods=SLOW) as rig:
        rig.send((), method=1)
        rig.said("working")
        rig.process.send_signal(number)
        assert rig.ended() == -signal.SIGKILL


def test_threads_and_atexit_functions_have_their_time(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "leaves_work") as rig:
        rig.call()
        rig.process.send_signal(signal.SIGTERM)
        assert rig.ended() == -signal.SIGTERM
        assert [line.text for line in rig.lines] == ["the thread is done", "at exit"]


def test_a_thread_that_stays_is_not_waited_for(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "leaves_a_thread") as rig:
        rig.call()
        assert rig.hang_up() == -signal.SIGKILL


def test_processes_that_the_users_code_forks_die_as_they_do_anywhere(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "ends_a_child") as rig:
        assert rig.call() == -signal.SIGTERM
        assert rig.call() == -signal.SIGTERM
        assert rig.hang_up() == 0 and rig.lines == []


def test_other_signals_are_the_users(tmp_path: Path) -> None:
    with worker(tmp_path, CODE, "own_handler") as rig:
        assert rig.call() == ["alarm"]
