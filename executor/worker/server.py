"""What every way of serving inputs shares: taking them in, answering them, orders about them. Runs in the container."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import threading
import time
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from slipway.dsl import context
from slipway.dsl.errors import DeserializationError, InvalidError

from . import failure, output, payload
from .frames import Flag, Frame, FrameError, Kind, Outcome, pack
from .stream import NO_FD, Stream, StreamClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .credit import Credit
    from .plain import MainCarrier
    from .served import Served, Target

_CALL = int(Kind.CALL)
_OUTPUT = int(Flag.OUTPUT)
_MORE = int(Flag.MORE)
NO_RESULTS = (CoroutineType, GeneratorType, AsyncGeneratorType)
ENDS = (KeyboardInterrupt, GeneratorExit)  # raised by the user's code they end the worker, too
CUT_OFF = b"cancelled while it ran"
ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
NAG = 20  # milliseconds after which the main thread is told again what it has not heard


class Ended(Exception):
    """The worker comes to its end: by this signal (0: the engine has hung up)."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self.number = number


Piece = tuple[Frame, int]  # an input as it came, with its descriptor


class Job:
    """An input under way, or the inputs of a batch: what becomes of one call of the user's function."""

    cancelled = False  # nobody waits for it any more (of a batch: for any of its inputs)
    credit: Credit | None = None  # of a generator
    interrupt: Callable[[], object] | None = None  # where it runs: have it look whether it is given up

    def __init__(self, pieces: list[Piece], target: Target) -> None:
        self.pieces = pieces
        self.ident = pieces[0][0].id  # what it prints is said to be the first one's
        self.target = target

    def enter(self) -> None:
        """Say whose code runs from here on, in this thread or task."""
        frame = self.pieces[0][0]
        context.input_id.set(f"in-{frame.id:x}")
        context.function_call_id.set(f"fc-{frame.call or frame.id:x}")
        output.running.set(frame.id)


def move_up(fd: int) -> int:
    """The descriptor under a number that is out of the way of the user's code."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    least = 900 if limit == resource.RLIM_INFINITY else max(3, min(limit - 16, 900))
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    os.close(fd)
    return moved


class Server:
    """Reads inputs, has them carried out, answers them. `serve` returns by raising `Ended`, or `StreamClosed`."""

    main: MainCarrier

    def __init__(self, link: Stream, control: Stream, served: Served, printed: output.Output) -> None:
        self.link = link
        self.control = control
        self.served = served
        self.printed = printed
        self.targets = served.targets
        self.batched = served.batched
        self.concurrency = served.concurrency
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.last_started = 0  # sequence number, which inputs carry in `channel`
        self.given_back: set[int] = set()
        self.early: set[int] = set()  # cancelled before they were read
        self.jobs: dict[int, Job] = {}  # under way, by input
        self.gathered: list[Piece] = []  # a batch that has not come whole

    def serve(self) -> None:
        raise NotImplementedError

    # --- taking inputs in

    def gather(self, piece: Piece) -> list[Piece] | None:
        """The inputs to carry out together, once they are whole."""
        frame = piece[0]
        if frame.kind != _CALL:
            payload.discard(piece[1])
            return None
        if not (frame.flags & _MORE or self.gathered):
            return [piece]
        self.gathered.append(piece)
        if frame.flags & _MORE:
            return None
        pieces, self.gathered = self.gathered, []
        return pieces

    def claim(self, pieces: list[Piece]) -> Job | None:
        """Start inputs, but for those that have been given back meanwhile; None where none is left."""
        with self.lock:
            self.last_started = pieces[-1][0].channel
            if self.given_back or self.early:
                pieces = [piece for piece in pieces if not self._is_gone(piece)]
                if not pieces:
                    return None
            job = Job(pieces, self.targets[pieces[0][0].outcome])
            for frame, _ in pieces:
                self.jobs[frame.id] = job
        return job

    def _is_gone(self, piece: Piece) -> bool:
        frame, fd = piece
        sequence = frame.channel
        back, early = sequence in self.given_back, sequence in self.early
        self.given_back.discard(sequence)
        self.early.discard(sequence)
        if back or early:
            payload.discard(fd)
        if early:
            self.link.send(pack(Frame(Kind.RESULT, frame.id, CUT_OFF, 0, 0, Outcome.CANCELLED)))
        return back or early

    def done(self, job: Job) -> None:
        """It has been answered."""
        for frame, _ in job.pieces:
            self.jobs.pop(frame.id, None)

    def arguments(self, job: Job) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with. Inputs of a batch that can't be read are answered and left out."""
        if not self.batched:
            return self._read(job, job.pieces[0])
        from .batch import together

        inputs, readable, wrong = [], [], []
        for piece in job.pieces:
            try:
                inputs.append(self._read(job, piece))
                readable.append(piece)
            except DeserializationError as unreadable:  # noqa: PERF203 - the others of the batch go on
                wrong.append((piece, unreadable))
        if wrong and not readable:
            raise wrong[0][1]
        for (frame, _), error in wrong:
            self.jobs.pop(frame.id, None)
            self.answer(frame.id, Outcome.RAISED, failure.pack(error, printed=True))
        job.pieces = readable
        return together(job.target.function, inputs, job.target.name)

    def _read(self, job: Job, piece: Piece) -> tuple[tuple[Any, ...], dict[str, Any]]:
        frame, fd = piece
        try:
            args, kwargs = payload.load(frame.payload) if fd == NO_FD else payload.load_fd(fd, frame.fd_length)
            return args, kwargs
        except Exception as error:
            raise DeserializationError(
                f"the arguments for {job.target.name} can't be read in the container: {type(error).__name__}: {error}",
                hint="A module that they need may be missing in the image.",
            ) from error

    def refuse(self, target: Target, result: Any) -> None:
        """Refuse what can't be a result, of one of the types in `NO_RESULTS`."""
        if isinstance(result, CoroutineType):
            result.close()
            raise InvalidError(
                f"{target.name} is {'an async' if target.is_async else 'a plain'} function that returned a coroutine",
                hint="Await it inside."
                if target.is_async
                else "Declare it with `async def`, or run the coroutine inside.",
            )
        raise InvalidError(
            f"{target.name} returned a generator, which can't leave the worker",
            hint="Return a list, or say is_generator=True and call it with .remote_gen.",
        )

    # --- answering

    def answer(self, call: int, outcome: Outcome, data: payload.Packed | bytes) -> None:
        flags = _OUTPUT if self.printed.end_call() else 0
        if isinstance(data, bytes):
            self.link.send(pack(Frame(Kind.RESULT, call, data, 0, flags, outcome)))
        else:
            self.link.send_payload(Frame(Kind.RESULT, call, b"", 0, flags, outcome), data)

    def finish(self, job: Job, value: Any, error: BaseException | None) -> None:
        """Answer every input of a job with what became of the call."""
        if error is None:
            try:
                if self.batched:
                    self._finish_batch(job, value)
                else:
                    what = f"the result of {job.target.name}"
                    self.answer(job.ident, Outcome.RETURNED, payload.dump_or_refuse(value, what))
                return
            except StreamClosed:
                raise
            except Exception as unpicklable:  # noqa: BLE001 - pickling a result runs its own code
                error = unpicklable
        if not job.cancelled:
            outcome, packed = Outcome.RAISED, failure.pack(error, printed=True)
        else:
            outcome, packed = Outcome.CANCELLED, CUT_OFF
            if not failure.is_cancellation(error):
                failure.show(error)  # of the clean-up, which nobody hears of otherwise
        for frame, _ in job.pieces:
            self.answer(frame.id, outcome, packed)

    def _finish_batch(self, job: Job, value: Any) -> None:
        from .batch import apart

        for (frame, _), result in zip(job.pieces, apart(value, len(job.pieces), job.target.name), strict=True):
            self._finish_one(frame.id, result, job.target)

    def _finish_one(self, call: int, result: Any, target: Target) -> None:
        try:
            packed = payload.dump_or_refuse(result, f"the result of {target.name}")
            self.answer(call, Outcome.RETURNED, packed)
        except StreamClosed:
            raise
        except Exception as unpicklable:  # noqa: BLE001 - pickling a result runs its own code
            self.answer(call, Outcome.RAISED, failure.pack(unpicklable, printed=True))

    def send_item(self, job: Job, index: int, packed: payload.Packed) -> None:
        """Send one item of a generator."""
        flags = _MORE | (_OUTPUT if self.printed.end_call() else 0)
        self.link.send_payload(Frame(Kind.RESULT, job.ident, b"", index, flags), packed)

    def leave_fork(self, error: BaseException | None) -> None:
        """End a process that the user's code forked and that came back out of the function: the answer is not its."""
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        self.printed.end_call()
        os._exit(code)

    # --- orders

    def prepare(self) -> None:
        """Take signals, and orders in a thread of its own: so they are heard whatever the user's code does."""
        ours, other = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.signalled, theirs = move_up(ours), move_up(other)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        self.main.watch()
        threading.Thread(target=self._obey, name="slipway-control", daemon=True).start()

    def _obey(self) -> None:
        poller = select.poll()
        poller.register(self.control.sock, select.POLLIN)
        poller.register(self.signalled, select.POLLIN)
        until = 0.0
        try:
            while True:
                is_due = self.main.is_due or (self.main.ending is None and time.monotonic() < until)
                for descriptor, _ in poller.poll(NAG if is_due else None):
                    if descriptor == self.signalled:
                        if not ENDING.isdisjoint(os.read(descriptor, 512)):
                            until = time.monotonic() + 1
                    else:
                        for frame, fd in self.control.receive():
                            payload.discard(fd)
                            self._order(frame)
                if is_due:
                    self.main.poke()  # what it was told may have come just before it began to wait for something
        except (StreamClosed, FrameError, OSError) as error:
            if self.jobs and not is_own_doing(error):  # else the main thread hears of it itself
                self.cut_off()
            while self.main.is_due:
                time.sleep(NAG / 1000)
                self.main.poke()
        except RuntimeError:
            if self.main.ending is None:  # else it is an order for a loop that has ended
                raise

    def _order(self, frame: Frame) -> None:
        if frame.kind == Kind.RECALL:
            self._give_back(frame)
        elif frame.kind == Kind.CANCEL:
            self._cancel(frame.id, frame.channel)
        elif frame.kind == Kind.TAKEN:
            job = self.jobs.get(frame.id)
            if job is not None and job.credit is not None:
                job.credit.took(frame.channel)

    def _give_back(self, frame: Frame) -> None:
        with self.lock:
            free = frame.channel > self.last_started
            if free:
                self.given_back.add(frame.channel)
        self.control.send(pack(Frame(Kind.RECALL, frame.id, b"", frame.channel, 0, int(free))))

    def _cancel(self, ident: int, sequence: int) -> None:
        with self.lock:
            if sequence > self.last_started:  # this order has overtaken the input
                self.early.add(sequence)
                return
            job = self.jobs.get(ident)
            if job is None:
                return
            job.cancelled = True
        if job.interrupt is not None:
            job.interrupt()

    def cut_off(self) -> None:
        """The engine has gone: what runs has nobody to answer to. Called in the thread that takes orders."""
        raise NotImplementedError


def is_own_doing(error: Exception) -> bool:
    """Whether the user's code has closed what leads to the engine."""
    return errno.EBADF in (getattr(error, "errno", 0), getattr(error.__cause__, "errno", 0))
