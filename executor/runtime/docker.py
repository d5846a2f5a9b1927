"""The connection to Docker Engine. Only this file knows docker-py, and loads it when an engine is needed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import platform
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from attrs import frozen

from slipway.dsl.errors import Error, InvalidError, NotFoundError, RuntimeUnavailable
from slipway.executor.config import DockerSettings

from . import docker_host, docker_relay
from .docker_host import Address
from .docker_process import Frames

T = TypeVar("T")

OURS = "slipway."  # all labels of ours
LABEL_HOME = "slipway.home"
LABEL_LAYER = "slipway.layer"
LABEL_TREES = "slipway.trees"
LABEL_NAME = "slipway.name"

AT_ONCE = 16  # short requests under way
PATIENCE = 60  # seconds that an engine may take for a short request
CHUNK = 1 << 16
PING = 2.0  # seconds in which one that is well says so
ASKED = 10.0  # seconds in which it says what it is
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}

_answer = threading.local()  # .last: what this thread was answered, of which docker-py shows only the content


class Unreachable(RuntimeUnavailable):
    """Nobody answers."""


class Refused(RuntimeUnavailable):
    """The engine says no; the message is its explanation."""


class Absent(NotFoundError):
    """The engine has no such container or image."""


class Conflict(InvalidError):
    """The engine says no because of what else there is: a name that is taken, an image in use."""


@frozen(kw_only=True)
class Facts:
    """What an engine is. `here` where it runs on this machine and so sees this machine's files."""

    address: str
    name: str  # "Docker Engine" or "Podman"
    version: str
    system: str  # "linux/amd64"
    networks: tuple[str, ...]
    oci_runtimes: tuple[str, ...]
    storage: str  # its storage driver
    storage_below: str  # the file system that this stands on
    cpus: int
    memory_mib: int
    memory_limits: bool
    cpu_limits: bool
    podman: bool
    here: bool


def home_id(home: Path) -> str:
    """What marks everything that belongs to a home."""
    return hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:12]


class Connection:
    """The only way to the engine. Connects when it is first used, and again after the engine was gone."""

    def __init__(
        self,
        settings: Callable[[], DockerSettings],
        home: Path | None = None,
        *,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`home` is where the folders lie that an engine must see; without it that is not tried. While `busy`, settings
        that name another engine have to wait."""
        self._settings = settings
        self._home = home
        self._busy = busy
        self._settled: DockerSettings | None = None  # what counts
        self._guard = threading.Lock()
        self._clients: dict[float | None, Any] = {}  # by how long they wait for an answer
        self._address: Address | None = None
        self._facts: Facts | None = None
        self._places = asyncio.Semaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"<Connection {self._address or 'not made'}>"

    @property
    def address(self) -> str:
        """Where the engine is, and who said so; "" before it was first asked."""
        return str(self._address or "")

    async def run(self, work: Callable[[Any], T], *, long: bool = False) -> T:
        """What `work` makes of a `docker.APIClient`, in a thread; `long`: it may take longer than a minute."""
        if long:
            return await _in_thread(lambda: self._do(work, None))
        async with self._places:
            # The client's own patience is for each piece of an answer: one that comes in drops has no end.
            return await self._within(PATIENCE, lambda: self._do(work, PATIENCE))

    async def _within(self, seconds: float, work: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
        try:
            async with asyncio.timeout(seconds):  # `wait_for` of Python 3.11 can miss that it is cancelled
                return await _in_thread(work, discard)
        except TimeoutError:
            raise _unreachable(self.address, f"no answer within {seconds:g} s") from None

    async def stream(self, work: Callable[[Any], Iterator[T]], on_item: Callable[[T], None]) -> None:
        """Hand over what `work` yields, in order, on the loop. Cancelled, it hangs up: an engine stops a build then."""
        loop = asyncio.get_running_loop()
        stopped = threading.Event()
        answers: list[Any] = []

        def hand(item: T) -> None:
            if not stopped.is_set():
                on_item(item)

        def follow(client: Any) -> None:
            items = work(client)
            answers.append(_answer.last)
            try:
                while not stopped.is_set():
                    item = next(items, None)
                    if item is None:
                        return
                    loop.call_soon_threadsafe(hand, item)
            except Exception:
                if not stopped.is_set():  # else it is what hanging up does
                    raise
            finally:
                answers.pop().close()

        try:
            await _in_thread(lambda: self._do(follow, None))
        finally:
            stopped.set()
            for answer in tuple(answers):  # the thread may wait for the next item for a long time
                with contextlib.suppress(OSError, AttributeError):  # it has just ended
                    answer.raw._fp.fp.raw._sock.shutdown(socket.SHUT_RDWR)

    async def hijack(self, request: Callable[[Any], Any]) -> tuple[socket.socket, bytes]:
        """The connection of a request that turns it into a stream: a socket that doesn't block, and what came already.

        `request` returns the response of docker-py's `_post` or `_post_json`, made with the headers of `UPGRADE`.
        """

        def take(client: Any) -> tuple[socket.socket, bytes]:
            response = request(client)
            client._raise_for_status(response)
            return _stream_of(response)

        return await self._within(PATIENCE, lambda: self._do(take, PATIENCE), lambda taken: taken[0].close())

    async def facts(self, *, fresh: bool = False) -> Facts:
        """What was learned when it was first asked, unless `fresh`. Raises `Unreachable`, or `Refused`."""
        self._settle()
        if self._facts is None or fresh:
            ask: Callable[[Any], Facts] = lambda client: _ask(client, self.address, self._home)  # noqa: E731
            self._facts = await self._within(ASKED, lambda: self._do(ask, ASKED))
        return self._facts

    async def ping(self) -> None:
        """Raises `Unreachable` where no answer comes at once."""
        await self._within(PING, lambda: self._do(lambda client: client.ping(), PING))

    def close(self) -> None:
        """Let go of the engine; the next use connects again."""
        with self._guard:
            clients = tuple(self._clients.values())
            self._clients.clear()
            self._facts = None
        for client in clients:
            client.close()

    def _do(self, work: Callable[[Any], T], patience: float | None) -> T:
        import docker.errors
        import requests.exceptions
        import urllib3.exceptions

        try:
            return work(self._client(patience))
        except docker.errors.APIError as error:
            raise _explain(error, self.address) from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self.close()
            raise _unreachable(self.address, _reason(error)) from error
        except docker.errors.DockerException as error:
            self.close()
            raise _unreachable(self.address, _reason(error)) from error

    def _settle(self) -> DockerSettings:
        """The settings that say where the engine is. Where they name another by now, this one is let go of."""
        now, settled = self._settings(), self._settled
        if settled is not None and (now.host, now.context) != (settled.host, settled.context):
            if self._busy():
                return settled
            self.close()
        self._settled = now
        return now

    def _client(self, patience: float | None) -> Any:
        settings = self._settle()
        with self._guard:
            client = self._clients.get(patience)
        if client is not None and self._address is not None:
            _knock(self._address.url)
            return client
        self._address = address = docker_host.resolve(settings, os.environ)
        _knock(address.url)
        client = _connected(address, patience)
        with self._guard:
            known = self._clients.setdefault(patience, client)
        if known is not client:
            client.close()
        return known


def _connected(address: Address, patience: float | None) -> Any:
    import docker
    from docker.constants import DEFAULT_DOCKER_API_VERSION

    # docker-py says int, and hands on what requests takes: a fraction, or None for no limit.
    options: dict[str, Any] = {"timeout": patience, "max_pool_size": AT_ONCE}
    client: Any = docker.APIClient(
        base_url=address.url, version=DEFAULT_DOCKER_API_VERSION, tls=_tls(address), **options
    )
    client.hooks["response"].append(lambda response, **_: setattr(_answer, "last", response))
    client.trust_env = False  # else a proxy's address or certificates that it names count for the engine too
    try:
        client._version = client._retrieve_server_version()
    except BaseException:
        client.close()
        raise
    return client


def _tls(address: Address) -> Any:
    if address.tls is None:
        return False
    from docker.tls import TLSConfig

    tls = address.tls
    own = (tls.cert, tls.key) if tls.cert is not None and tls.key is not None else None
    return TLSConfig(client_cert=own, ca_cert=tls.ca, verify=tls.verify)


def _knock(url: str) -> None:
    """Raises `OSError` where nobody listens. Asked first: docker-py leaves a socket open where it can't connect."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(PING)
            one.connect(url.removeprefix("unix://"))


def start_exec(client: Any, ident: str, *, terminal: bool = False) -> Any:
    """Start a made exec; the response, which becomes its stream."""
    url = client._url("/exec/{0}/start", ident)
    return client._post_json(url, headers=UPGRADE, data={"Tty": terminal, "Detach": False}, stream=True)


def exec_output(client: Any, ident: str) -> Generator[bytes, None, None]:
    """What a made exec says on stdout, once started; in a thread only. (docker-py's own way leaves a socket open.)"""
    response = start_exec(client, ident)
    client._raise_for_status(response)
    stream, data = _stream_of(response)
    frames = Frames()
    with stream:
        stream.setblocking(True)
        stream.shutdown(socket.SHUT_WR)
        data = data or stream.recv(CHUNK)
        while data:
            yield from (part for number, part in frames.feed(data) if number == 1)
            data = stream.recv(CHUNK)


async def _in_thread(work: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
    """In a thread of its own, which does not hold up the program's end. Cancelled, its result is discarded."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if error is not None:
            if not future.done():
                future.set_exception(error)
        elif future.done():
            discard(cast(T, result))
        else:
            future.set_result(cast(T, result))

    def main() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - handed on whole to whoever waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=main, name="docker", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            discard(future.result())  # it came with the order to give it up
        raise


# --- what an engine answers ---------------------------------------------------------------------------


def _ask(client: Any, address: str, home: Path | None) -> Facts:
    try:
        return _facts(client, address, home)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreachable(address, f"what does answer makes no sense ({type(error).__name__}: {error})") from error


def _facts(client: Any, address: str, home: Path | None) -> Facts:
    version, info = client.version(), client.info()
    podman = any("podman" in str(part.get("Name", "")).lower() for part in version.get("Components") or ())
    return Facts(
        address=address,
        name="Podman" if podman else "Docker Engine",
        version=str(version.get("Version", "")),
        system=f"{version.get('Os', '')}/{version.get('Arch', '')}",
        networks=tuple(sorted(str(network["Name"]) for network in client.networks())),
        oci_runtimes=tuple(sorted(info.get("Runtimes") or {})),
        storage=str(info.get("Driver", "")),
        storage_below=str(dict(info.get("DriverStatus") or ()).get("Backing Filesystem", "")),
        cpus=int(info.get("NCPU") or 1),
        memory_mib=int(info.get("MemTotal") or 0) >> 20,
        memory_limits=bool(info.get("MemoryLimit")),
        cpu_limits=bool(info.get("CpuCfsQuota")),
        podman=podman,
        here=_sees_files(client, home, otherwise=address.startswith("unix://") or _is_this_machine(info)),
    )


def _sees_files(client: Any, home: Path | None, *, otherwise: bool) -> bool:
    """Whether the folders of a home can be mounted into containers: tried with a fresh one."""

    def create(body: dict[str, Any]) -> tuple[int, str]:
        response = client._post_json(client._url("/containers/create"), data=body)
        return response.status_code, response.text

    if home is None:
        return otherwise
    with tempfile.TemporaryDirectory(prefix=".here-", dir=home) as folder:
        seen = docker_host.sees(create, Path(folder))
    return otherwise if seen is None else seen


def _is_this_machine(info: dict[str, Any]) -> bool:
    same = (info.get("Name"), info.get("KernelVersion")) == (platform.node(), platform.release())
    return same and info.get("MemTotal") == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _explain(error: Any, address: str) -> Error:
    said = str(error.explanation or error).strip()
    status = error.status_code
    if status == 404:
        return Absent(said)
    if status == 409:
        return Conflict(said)
    return Refused(f"the engine at {address} refuses: {said}")


def _reason(error: BaseException) -> str:
    """The innermost reason: what wraps it repeats it in brackets.

    >>> _reason(ConnectionError("x", FileNotFoundError(2, "No such file or directory")))
    'No such file or directory'
    """
    seen: list[BaseException] = [error]
    for one in seen:
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        seen += [other for other in inner if isinstance(other, BaseException) and other not in seen][: 20 - len(seen)]
    systems = [one for one in seen if isinstance(one, OSError) and one.strerror]
    return str(systems[-1].strerror) if systems else str(seen[-1]) or type(seen[-1]).__name__


def _unreachable(address: str, reason: str) -> Unreachable:
    hint = "Start it, or say where it is: DOCKER_HOST, or `host` under [docker] in config.toml."
    if reason == "Permission denied":
        hint = "Your user may not use it: have it added to the group docker, then log in anew."
    return Unreachable(f"no Docker Engine answers at {address}: {reason}", hint=hint)


def _stream_of(response: Any) -> tuple[socket.socket, bytes]:
    """The socket below a response, as a stream. What was read with the headers lies in the reader's buffer."""
    reader = response.raw._fp.fp
    below = reader.raw._sock
    below.setblocking(False)
    try:
        early = bytes(reader.peek(1))  # what is buffered; else it tries once to read
    except ssl.SSLWantReadError:
        early = b""
    if isinstance(below, ssl.SSLSocket):
        ours = docker_relay.plain(response, below)
    else:
        ours = socket.socket(fileno=os.dup(below.fileno()))
        response.close()
    ours.setblocking(False)
    return ours, early
