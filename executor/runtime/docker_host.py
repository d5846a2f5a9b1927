"""Where Docker Engine is, by the settings, the environment and Docker's own contexts. It reads, and asks nobody."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from slipway.compiler.faults import did_you_mean
from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import DockerSettings

DEFAULT = "unix:///var/run/docker.sock"
SCHEMES = ("unix", "tcp")
VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH")
LARGEST = 1 << 20  # bytes of a file of Docker's
ELSEWHERE = (
    "Functions need this machine's folders in their containers: the control socket, their code, the volumes. "
    "Run Slipway on the machine where the engine is, or use an engine here."
)


@frozen(kw_only=True)
class Tls:
    """How a connection is made safe: paths of PEM files, and whether the engine's certificate is checked."""

    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@frozen(kw_only=True)
class Address:
    """`url` is `unix:///path` or `tcp://host:port`; `origin` says in words who said so."""

    url: str
    origin: str
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"{self.url} ({self.origin})"


def resolve(settings: DockerSettings, environ: Mapping[str, str]) -> Address:
    """The first that says where: settings, DOCKER_HOST, Docker's context, the usual sockets. Raises
    `RuntimeUnavailable` for an address that can't be used, and for a context that isn't there or makes no sense.

    >>> str(resolve(DockerSettings(host="unix:///run/my.sock"), {"DOCKER_HOST": "tcp://10.0.0.1:2376"}))
    'unix:///run/my.sock (host in config.toml)'
    """
    if settings.host is not None:
        return _address(settings.host, "host in config.toml", environ)
    if settings.context is not None:
        return _context(settings.context, f"context {settings.context} in config.toml", environ)
    if environ.get("DOCKER_HOST"):
        return _address(environ["DOCKER_HOST"], "DOCKER_HOST", environ)
    if environ.get("DOCKER_CONTEXT"):
        return _context(environ["DOCKER_CONTEXT"], f"DOCKER_CONTEXT={environ['DOCKER_CONTEXT']}", environ)
    current = _current_context(environ)
    if current:
        return _context(current, f"Docker's current context, {current}", environ)
    return _usual(environ)


def said(environ: Mapping[str, str]) -> dict[str, str]:
    """What an environment says of where the engine is."""
    return {name: environ[name] for name in VARIABLES if environ.get(name)}


# --- addresses ----------------------------------------------------------------------------------------


def _address(url: str, origin: str, environ: Mapping[str, str]) -> Address:
    """An address as DOCKER_HOST holds it. Its TLS is said as for `docker -H`: DOCKER_TLS_VERIFY, DOCKER_CERT_PATH."""
    url = _checked(url, origin)
    return Address(url=url, origin=origin, tls=_tls_said(environ, origin) if url.startswith("tcp://") else None)


def _checked(url: str, origin: str) -> str:
    """The address in full. Raises `RuntimeUnavailable` for one that is of no use."""
    scheme, _, rest = url.partition("://")
    if scheme == "ssh":
        raise _unusable(f"{url} ({origin}) is an engine on another machine, reached through ssh", ELSEWHERE)
    if scheme not in SCHEMES or not rest:
        hint = "Such as unix:///var/run/docker.sock, or tcp://127.0.0.1:2376 with TLS."
        raise _unusable(f"{url!r:.200} ({origin}) is no address of a Docker Engine that can be used here", hint)
    if scheme == "unix":
        if not rest.startswith("/"):
            raise _unusable(f"{url} ({origin}) does not name a socket by its whole path", f"Write unix:///{rest}")
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if not parts.hostname or port is None:
        raise _unusable(f"{url!r:.200} ({origin}) lacks the engine's host or port", "Write tcp://127.0.0.1:2376")
    return url


def _unusable(message: str, hint: str) -> RuntimeUnavailable:
    return RuntimeUnavailable(f"docker: {message}", hint=hint)


def _tls_said(environ: Mapping[str, str], origin: str) -> Tls | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or _docker_folder(environ)).expanduser()
    return _tls(folder, verify=verify, origin=origin)


def _tls(folder: Path, *, verify: bool, origin: str) -> Tls:
    """The certificates of a folder, named as Docker names them."""
    there = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key") if (folder / f"{name}.pem").is_file()}
    if ("cert" in there) != ("key" in there):
        lacks = "key" if "cert" in there else "cert"
        hint = "A client's certificate is of use only with its key: cert.pem and key.pem, side by side."
        raise _unusable(f"{folder} ({origin}) has no {lacks}.pem", hint)
    return Tls(verify=verify, **there)


# --- Docker's contexts --------------------------------------------------------------------------------


def _docker_folder(environ: Mapping[str, str]) -> Path:
    """Where Docker's command line keeps its settings."""
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"])
    return Path(environ.get("HOME") or os.path.expanduser("~")) / ".docker"  # noqa: PTH111 - no home is no error


def _current_context(environ: Mapping[str, str]) -> str:
    path = _docker_folder(environ) / "config.json"
    try:
        config = _json(path)
    except FileNotFoundError:
        return ""
    current = config.get("currentContext", "")
    if not isinstance(current, str):
        raise _unusable(f"{path}: currentContext is not a name", "Set it anew: docker context use default")
    return "" if current == "default" else current


def _context(name: str, origin: str, environ: Mapping[str, str]) -> Address:
    """The engine of a context, from where Docker's command line keeps it."""
    if name == "default":  # the one that is not kept: the environment, or the usual socket
        if environ.get("DOCKER_HOST"):
            return _address(environ["DOCKER_HOST"], "DOCKER_HOST", environ)
        return _usual(environ)
    contexts = _docker_folder(environ) / "contexts"
    ident = hashlib.sha256(name.encode()).hexdigest()
    path = contexts / "meta" / ident / "meta.json"
    try:
        meta = _json(path)
    except FileNotFoundError:
        known = sorted(_names(contexts / "meta"))
        hint = did_you_mean(name, known, f"There are: {', '.join(['default', *known])}.")
        raise _unusable(f"there is no Docker context {name!r:.100} ({origin})", hint) from None
    endpoint = meta.get("Endpoints", {})
    endpoint = endpoint.get("docker", {}) if isinstance(endpoint, dict) else {}
    host = endpoint.get("Host") if isinstance(endpoint, dict) else None
    if not isinstance(host, str) or not host:
        hint = f"Make it anew: docker context rm {name}, then docker context create"
        raise _unusable(f"the Docker context {name} names no engine: {path}", hint)
    url = _checked(host, origin)
    certificates = contexts / "tls" / ident / "docker"
    tls = None
    if url.startswith("tcp://") and certificates.is_dir():
        tls = _tls(certificates, verify=not endpoint.get("SkipTLSVerify"), origin=origin)
    return Address(url=url, origin=origin, tls=tls)


def _names(folder: Path) -> Iterator[str]:
    """The names of all contexts; those whose file can't be read have none."""
    for path in folder.glob("*/meta.json"):
        try:
            name = _json(path).get("Name")
        except (RuntimeUnavailable, FileNotFoundError):
            continue
        if isinstance(name, str):
            yield name


def _json(path: Path) -> dict[str, Any]:
    """A file of Docker's. Raises `FileNotFoundError`, or `RuntimeUnavailable` where it holds no object."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ValueError("it is not such a file")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        hint = "Mend it, or say where the engine is: `host` under [docker] in config.toml, or DOCKER_HOST."
        raise _unusable(f"{path} can't be read: {why}", hint) from None
    return value


# --- the usual places ---------------------------------------------------------------------------------


def _usual(environ: Mapping[str, str]) -> Address:
    """The first socket that is there, of those that engines make by themselves."""
    run = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = (
        ("/var/run/docker.sock", "default"),
        (f"{run}/docker.sock", "Docker without root"),
        (f"{run}/podman/podman.sock", "Podman without root"),
        ("/run/podman/podman.sock", "Podman"),
    )
    for path, origin in places:
        if _is_socket(path):
            return Address(url=f"unix://{path}", origin=origin)
    return Address(url=DEFAULT, origin="default: none of the usual sockets is there")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - one call
    except OSError:
        return False


# --- whether it is here -------------------------------------------------------------------------------


def sees(create: Callable[[dict[str, Any]], tuple[int, str]], folder: Path) -> bool | None:
    """Whether an engine sees a folder of this machine, by trying to mount it; None where that can't be told.

    An engine looks at the mounts before it looks for the image, so a request for one that can't be there makes
    nothing: 400 names a folder that is missing, 404 the image. `create` asks `POST /containers/create` and
    returns the status and the text of the answer. `folder` must be one that no other machine has.
    """

    def ask(source: str) -> int:
        mount = {"Type": "bind", "Source": source, "Target": "/slipway", "ReadOnly": True}
        status, _text = create({"Image": "slipway.invalid/none:none", "HostConfig": {"Mounts": [mount]}})
        return status

    if ask(str(folder)) == 404:
        # One that looks for the image first says 404 to anything.
        return True if ask(str(folder / "not-there")) != 404 else None
    return False
