"""The shell programs of the docker runtime, run by every shell that this machine has."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.executor.runtime.docker_process import Frames
from slipway.executor.runtime.docker_shell import Ended, Marked, ended, reader, runner, script

MARK = "f00d"
SHELLS = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
if path := shutil.which("busybox"):
    SHELLS.append([path, "sh"])


def run(argv: list[str], shell: list[str], text: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [*shell, *argv[1:]]
    return subprocess.run(command, input=f"{text}\n{MARK}\n".encode() + stdin, capture_output=True, timeout=30)


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    assert isinstance(request.param, list)
    return request.param


def test_the_reader_becomes_what_it_reads_and_leaves_the_rest_as_stdin(shell: list[str]) -> None:
    text = script(("sh", "-c", 'printf %s "$A|$1|"; pwd; cat; exit 3', "x", "it's"), env=(("A", "1\n'2"),), cwd="/usr")
    done = run(reader(MARK), shell, text, b"rest\nof it")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"1\n'2|it's|/usr\nrest\nof it", b"")


def test_names_that_no_shell_exports_are_set(shell: list[str]) -> None:
    text = script(("env",), env=(("A.B", "x y"), ("C-D", "'")), cwd="/", stdin=False)
    said = run(reader(MARK), shell, text).stdout.splitlines()
    assert b"A.B=x y" in said
    assert b"C-D='" in said


def test_a_closed_folder_is_said_or_replaced(shell: list[str]) -> None:
    done = run(reader(MARK), shell, script(("pwd",), cwd="/no/such"))
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"/no/such" in done.stderr
    done = run(reader(MARK), shell, script(("pwd",), cwd="/no/such", instead="/usr"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/usr\n", b"")


def test_a_script_that_was_cut_off_runs_nothing(shell: list[str]) -> None:
    text = script(("sh", "-c", "echo\nran"), cwd="/")
    for size in range(len(text)):
        done = subprocess.run([*shell, *reader(MARK)[1:]], input=text[:size].encode(), capture_output=True, timeout=30)
        assert done.stdout == b""


@pytest.mark.parametrize(
    ("argv", "how"),
    [
        (("sh", "-c", "echo out; echo err >&2; exit 3"), Ended(code=3)),
        (("sh", "-c", "echo out; echo err >&2; kill -9 $$"), Ended(code=137)),
        (("sh", "-c", "echo out; echo err >&2; kill -INT $$"), Ended(code=130)),
    ],
)
def test_the_runner_says_who_it_is_and_how_it_ended(shell: list[str], argv: tuple[str, ...], how: Ended) -> None:
    done = run([word.replace("/bin/sh", shell[0]) for word in runner(MARK)], shell[:1], script(argv, cwd="/"))
    out, err = Marked(MARK), Marked(MARK)
    assert (out.feed(done.stdout), err.feed(done.stderr)) == (b"out\n", b"err\n")
    assert int(out.notes[0]) > 0
    assert ended(out.notes[1]) == ended(err.notes[0]) == how


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=40)), max_size=8),
    st.lists(st.integers(min_value=1, max_value=20), min_size=1),
)
def test_frames_come_out_as_they_went_in(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(bytes([stream, 0, 0, 0]) + len(part).to_bytes(4, "big") + part for stream, part in sent)
    frames = Frames()
    got = {1: b"", 2: b""}
    while data:
        size = cuts.pop() if cuts else len(data)
        for stream, part in frames.feed(data[:size]):
            got[stream] += part
        data = data[size:]
    assert got == {one: b"".join(part for stream, part in sent if stream == one) for one in (1, 2)}


@given(st.lists(st.sampled_from([b"a", b"M", b"MA", b"MARK", b"K;"])), st.lists(st.integers(1, 5), min_size=1))
def test_marks_are_found_wherever_the_stream_is_cut(parts: list[bytes], cuts: list[int]) -> None:
    own = b"".join(parts).replace(b"MARK", b"")
    data = b"MARK12;" + own + b"MARK0;"
    marked = Marked("MARK")
    got = b""
    while data:
        size = cuts.pop() if cuts else len(data)
        got += marked.feed(data[:size])
        data = data[size:]
    if b"MARK" not in own:
        assert (got, marked.notes) == (own, ["12", "0"])
