"""A raised exception as bytes, and back: its type, message, arguments, notes and causes, and where it was raised.

The payload is the lengths of a one-line summary and of the traceback, the two as UTF-8 (all that the engine looks at),
and a pickle for the caller: the exceptions of the chain, each pickled by itself. The traceback goes as text, source
lines and all, so that it can be shown where the files are not, and by whatever prints exceptions.
"""

from __future__ import annotations

import pickle
import struct
import sys
from typing import TYPE_CHECKING, Any

from slipway.dsl.errors import Error, ExecutionError, InputCancellation, SerializationError

from . import payload

if TYPE_CHECKING:
    from traceback import TracebackException
    from types import FrameType

_LENGTHS = struct.Struct("<II")
MAX_TEXT = 2 * 1024 * 1024
MAX_CHAIN = 20
REMADE = "slipway:remade"  # marks (type, args, state) of an exception that is made without calling its __init__
GROUP = "slipway:group"  # marks (type, message, members as chains, state) of an exception group


class RemoteTraceback(Exception):
    """Stands at the root of a remote exception's causes, so that its traceback shows above the caller's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text.rstrip()}\n"""'


# --- in the worker ------------------------------------------------------------------------------------


class _Here:
    """This process, as tracebacks name it to others; "" where it needs no name."""

    worker = ""


def say_where(worker: str) -> None:
    """From now on the files of tracebacks are said to be this worker's."""
    _Here.worker = worker


def describe(error: BaseException) -> str:
    """`ValueError: bad input`, whatever the exception's own `__str__` does."""
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 - the user's __str__ may raise anything
        text = f"<its __str__ raised {type(broken).__name__}>"
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    return f"{name}: {text}" if text else name


def is_cancellation(error: BaseException) -> bool:
    """Whether this is how code ends that was told to."""
    asyncio = sys.modules.get("asyncio")  # not imported: nothing asynchronous runs
    return isinstance(error, InputCancellation) or (asyncio is not None and isinstance(error, asyncio.CancelledError))


def show(error: BaseException) -> None:
    """Print an exception where the user's code prints, so that it is in the log."""
    _print(_texts_of(error)[0])


def pack(error: BaseException, *, printed: bool = False) -> bytes:
    """What a worker sends of an exception, and with `printed` its traceback in the log. Never raises an `Exception`."""
    here, text = _texts_of(error)
    if printed:
        _print(here)
    pickled, links, problem = _pack_chain(error)
    summary = describe(error).partition("\n")[0][:1000].encode(errors="replace")
    body = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "summary": describe(error)[:MAX_TEXT],
        "chain": pickled,
        "links": links,
        "problem": problem,
    }
    trace_text = text[-MAX_TEXT:].encode(errors="replace")
    return _LENGTHS.pack(len(summary), len(trace_text)) + summary + trace_text + pickle.dumps(body, 5)


def _print(text: str) -> None:
    try:
        sys.stderr.write(text)
    except (OSError, ValueError, AttributeError):
        pass  # the user's code closed it


# --- its traceback ------------------------------------------------------------------------------------


def _texts_of(error: BaseException) -> tuple[str, str]:
    """The traceback of an exception as one reads it here, and elsewhere. Without our own frames."""
    import traceback  # takes a millisecond that a worker whose calls succeed need not spend

    try:
        told = traceback.TracebackException(type(error), error, error.__traceback__)
        _each(told, error, _leave_ours_out)
        here = _format(told, error)
        if not _Here.worker:
            return here, here
        _each(told, error, _name_worker)
        return here, _format(told, error)
    except Exception as broken:  # noqa: BLE001 - formatting runs the user's own __str__, __repr__ and __notes__
        text = f"{describe(error)}\n(its traceback can't be shown: {type(broken).__name__})\n"
        return text, text


def _format(told: TracebackException, error: BaseException) -> str:
    text = "".join(told.format())
    remote = _chain(error)[0][-1].__cause__
    if isinstance(remote, RemoteTraceback):  # raised in another worker: as it was told there
        text = text.replace(f"{describe(remote)}\n", f"{remote.text.rstrip()}\n", 1)
    return text


def _each(told: TracebackException, error: BaseException, act: Any) -> None:
    """Do something to the traceback of an exception, of what led to it, and of the members of a group."""
    seen: set[int] = set()
    left: list[tuple[TracebackException | None, BaseException | None]] = [(told, error)]
    while left:
        one, of = left.pop()
        if one is None or of is None or id(one) in seen:
            continue
        seen.add(id(one))
        act(one, of)
        left += [(one.__cause__, of.__cause__), (one.__context__, of.__context__)]
        left += zip(getattr(one, "exceptions", None) or (), getattr(of, "exceptions", None) or (), strict=False)


def _leave_ours_out(told: TracebackException, error: BaseException) -> None:
    frames: list[FrameType] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    if len(frames) != len(told.stack):
        return
    first = next((number for number, frame in enumerate(frames) if not _is_machinery(frame)), len(frames))
    kept = list(zip(frames, told.stack, strict=True))[first:]
    if not kept and not _is_on_purpose(error):
        return  # it went wrong in our own code: a bug, and to be found
    if kept and (not _is_ours(kept[-1][0]) or _is_on_purpose(error)):
        kept = [pair for pair in kept if not _is_ours(pair[0])]
    told.stack[:] = [said for _, said in kept]


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_machinery(frame: FrameType) -> bool:
    """Whether a frame is of what leads to the user's code."""
    return _is_ours(frame) or _module(frame).startswith(("importlib", "asyncio."))


def _is_ours(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] == "slipway"


def _is_on_purpose(error: BaseException) -> bool:
    """Whether code of ours raises this to say something to the user, or passes on what was raised elsewhere."""
    if isinstance(error, Error | TypeError | ImportError | InputCancellation):
        return True
    return isinstance(_chain(error)[0][-1].__cause__, RemoteTraceback)


def _name_worker(told: TracebackException, _: BaseException) -> None:
    for frame in told.stack:
        frame.line  # noqa: B018 - read now, under the file's own name
        frame.filename = f"<{_Here.worker}>:{frame.filename}"


# --- as a pickle --------------------------------------------------------------------------------------


def _pack_chain(error: BaseException) -> tuple[list[bytes], list[str], str]:
    """An exception and what led to it, each pickled, with how they hang together, and why not even it can be."""
    chain, links = _chain(error)
    pickled: list[bytes] = []
    problem = ""
    try:
        for link in chain:
            pickled.append(_pickle(link))  # noqa: PERF401 - what came before one that fails is kept
    except Exception as unpicklable:  # noqa: BLE001 - pickling runs the user's own code
        if not pickled:  # a cause that can't be pickled only ends the chain; it still shows in the text
            problem = f"{type(unpicklable).__name__}: {unpicklable}"
    return pickled, links[: max(len(pickled) - 1, 0)], problem


def _chain(error: BaseException) -> tuple[list[BaseException], list[str]]:
    """The exception and what led to it, nearest first, with how each hangs on the one before."""
    chain, links = [error], []
    while len(chain) < MAX_CHAIN:
        last = chain[-1]
        following, link = (last.__cause__, "cause") if last.__cause__ is not None else (last.__context__, "context")
        hidden = link == "context" and last.__suppress_context__
        if following is None or hidden or any(following is seen for seen in chain):
            break
        if isinstance(following, RemoteTraceback):
            break  # of another worker: its text is within ours
        chain.append(following)
        links.append(link)
    return chain, links


def _pickle(error: BaseException) -> bytes:
    """Pickle one exception so that it can be made again: in its own way, or without calling its `__init__`."""
    members = getattr(error, "exceptions", None)
    if isinstance(members, tuple) and hasattr(error, "derive"):  # an exception group, also the one for Python 3.10
        packed = [_pack_chain(member) for member in members]
        if any(problem for _, _, problem in packed):
            raise SerializationError(next(problem for _, _, problem in packed if problem))
        parts = [(pickled, links) for pickled, links, _ in packed]
        return payload.dump((GROUP, (type(error), error.args[0], parts, error.__dict__))).bytes()
    try:
        data = payload.dump(error).bytes()
        again = payload.load(data)
        if type(again) is type(error) and again.args == error.args:
            return data
    except Exception:  # noqa: BLE001, S110 - its own way of pickling, or its __init__, does not work: the other way may
        pass
    return payload.dump((REMADE, (type(error), error.args, error.__dict__))).bytes()


def _remake(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    try:
        error = kind.__new__(kind, *args)
    except TypeError:
        error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def _regroup(kind: Any, message: str, parts: list[Any], state: dict[str, Any]) -> BaseException:
    members = [_hang_together([_unpickle(item) for item in pickled], links) for pickled, links in parts]
    error: BaseException = kind.__new__(kind, message, members)
    error.args = (message, members)
    error.__dict__.update(state)
    return error


def _hang_together(chain: list[BaseException], links: list[str]) -> BaseException:
    for before, after, link in zip(chain, chain[1:], links, strict=False):  # links end where the chain does
        if link == "cause":
            before.__cause__ = after
        else:
            before.__context__ = after
    return chain[0]


# --- in the engine ------------------------------------------------------------------------------------


def summary(data: bytes) -> str:
    """The one line that says what was raised, read without unpickling anything."""
    return _texts(data)[0]


def trace(data: bytes) -> str:
    """The traceback, read without unpickling anything."""
    return _texts(data)[1]


def _texts(data: bytes | memoryview) -> tuple[str, str, int]:
    """The two texts, and where the pickle begins; "" where a worker's code has sent something else."""
    if len(data) < _LENGTHS.size:
        return "", "", 0
    first, second = _LENGTHS.unpack_from(data)
    middle = _LENGTHS.size + first
    end = middle + second
    return str(data[_LENGTHS.size : middle], "utf-8", "replace"), str(data[middle:end], "utf-8", "replace"), end


# --- in the caller's program --------------------------------------------------------------------------


def unpack(data: bytes | memoryview) -> BaseException:
    """The exception to raise: the user's own where it can be made here, with the remote traceback at its root."""
    view = memoryview(data)
    _, trace_text, start = _texts(view)
    body = pickle.loads(view[start:])  # noqa: S301 - from a worker that runs the user's own code
    remote = RemoteTraceback(trace_text)
    if body["problem"]:
        error: BaseException = SerializationError(
            f"the function raised an exception that can't be pickled: {body['summary']} ({body['problem']})",
            hint="The exception holds something that can't leave the worker; raise one that holds plain data.",
        )
        error.__cause__ = remote
        return error
    chain: list[BaseException] = []
    try:
        for item in body["chain"]:
            chain.append(_unpickle(item))  # noqa: PERF401 - what came before one that fails is kept
    except Exception as unknown:  # noqa: BLE001 - unpickling imports and runs the user's own code
        if not chain:
            error = ExecutionError(
                f"the function raised {body['type']}, which can't be made here: {unknown}\n\n{remote.text.rstrip()}",
                hint="The class exists only in the container: install or import its module here, or raise another.",
            )
            error.__cause__ = remote
            return error
    chain[-1].__cause__ = remote
    return _hang_together(chain, body["links"])


def _unpickle(data: bytes) -> BaseException:
    value = payload.load(data)
    if isinstance(value, tuple):
        value = (_remake if value[0] == REMADE else _regroup)(*value[1])
    if not isinstance(value, BaseException):
        raise TypeError(f"it came as {type(value).__name__}")
    return value
