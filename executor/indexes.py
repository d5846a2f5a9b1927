"""Where this host gets packages from: its pip and uv settings, for build steps. Never in a layer or a key."""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomllib
from attrs import field, frozen

from .ports import Mount
from .steps import OURS

CERTIFICATES = f"{OURS}/ca.pem"
CLIENT_CERTIFICATE = f"{OURS}/client.pem"
NETRC = f"{OURS}/netrc"
UV_CONFIG = f"{OURS}/uv.toml"
NO_INDEX = f"file://{OURS}/no-index"
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
# Of uv's own variables, those that say where packages come from. The rest say where things lie on this host.
UV_VARIABLES = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX(_URL|_STRATEGY)?|INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)|EXTRA_INDEX_URL|FIND_LINKS"
    r"|INSECURE_HOST|HTTP_TIMEOUT|REQUEST_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS|KEYRING_PROVIDER|OFFLINE|EXCLUDE_NEWER)"
)
UV_PLACES = ("index-url", "extra-index-url", "find-links", "index", "no-index")
SECTIONS = ("global", "install")


@frozen(kw_only=True)
class Indexes:
    """What a build container gets: variables, mounts of local places, and what must not show in a log."""

    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)


@frozen(kw_only=True)
class HostSettings:
    """What was found on this host: pip's settings by name (`index-url`), uv's file, and the environment."""

    pip: Mapping[str, str]
    uv: Mapping[str, Any]
    uv_file: str | None
    netrc: str | None
    environ: Mapping[str, str] = field(repr=False)


def read_indexes(environ: Mapping[str, str] = os.environ) -> Indexes:
    """This host's settings, translated. Blocks, shortly."""
    return translate(read_settings(environ), exists=os.path.exists)


# --- reading ------------------------------------------------------------------------------------------


def read_settings(environ: Mapping[str, str], *, prefix: str = sys.prefix, root: Path = Path("/")) -> HostSettings:
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    pip: dict[str, str] = {}
    for path in _pip_files(environ, home=home, config=config, prefix=Path(prefix), root=root):
        pip |= _pip_file(path)
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            pip[name[4:].lower().replace("_", "-")] = value
    uv_file, uv = _uv_settings((config / "uv/uv.toml", root / "etc/uv/uv.toml"), environ)
    netrc = environ.get("NETRC") or str(home / ".netrc")
    return HostSettings(
        pip=pip, uv=uv, uv_file=uv_file, netrc=netrc if Path(netrc).is_file() else None, environ=dict(environ)
    )


def _pip_files(environ: Mapping[str, str], *, home: Path, config: Path, prefix: Path, root: Path) -> Iterator[Path]:
    """pip's files, each going before those above it."""
    own = environ.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    yield root / "etc/xdg/pip/pip.conf"
    yield root / "etc/pip.conf"
    yield home / ".pip/pip.conf"
    yield config / "pip/pip.conf"
    yield prefix / "pip.conf"
    if own:
        yield Path(own)


def _pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeDecodeError):
        return {}  # pip itself will say so, to whoever uses it
    return {
        name.lower().replace("_", "-"): value
        for section in SECTIONS
        if parser.has_section(section)
        for name, value in parser.items(section)
    }


def _uv_settings(paths: Iterable[Path], environ: Mapping[str, str]) -> tuple[str | None, Mapping[str, Any]]:
    own = environ.get("UV_CONFIG_FILE")
    for path in (Path(own),) if own else () if environ.get("UV_NO_CONFIG") else paths:
        if path.is_file():
            with suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):  # uv itself will say what is wrong
                return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    return None, {}


# --- translating --------------------------------------------------------------------------------------


def translate(found: HostSettings, *, exists: Any = os.path.exists) -> Indexes:
    """The same for pip and uv in a container. `exists` says whether a path is there."""
    pip, environ = found.pip, found.environ
    env: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    for name in PROXY_VARIABLES:
        value = environ.get(name) or environ.get(name.lower()) or _pip_proxy(name, pip)
        if value:
            env[name] = env[name.lower()] = value
    certificates = _first(
        exists, *map(environ.get, ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), pip.get("cert")
    )
    if certificates:
        _mount(mounts, certificates, CERTIFICATES)
        env |= dict.fromkeys(CERTIFICATE_VARIABLES, CERTIFICATES)
    client = _first(exists, environ.get("SSL_CLIENT_CERT"), pip.get("client-cert"))
    if client:
        _mount(mounts, client, CLIENT_CERTIFICATE)
        env |= {"SSL_CLIENT_CERT": CLIENT_CERTIFICATE, "PIP_CLIENT_CERT": CLIENT_CERTIFICATE}
    if found.netrc:
        _mount(mounts, found.netrc, NETRC)
        env["NETRC"] = NETRC
    env |= _for_pip(pip)
    env |= _for_uv(found)
    if found.uv_file is not None:
        _mount(mounts, found.uv_file, UV_CONFIG)
        env["UV_CONFIG_FILE"] = UV_CONFIG
    else:
        env["UV_NO_CONFIG"] = "1"
    places = [*_places(env), *_uv_places(found.uv)]
    for path in dict.fromkeys(map(_whole, filter(None, map(_local, places)))):
        if exists(path):
            _mount(mounts, path, path)
    return Indexes(env=tuple(sorted(env.items())), mounts=tuple(mounts.values()), secrets=tuple(passwords(env)))


def _for_pip(pip: Mapping[str, str]) -> dict[str, str]:
    names = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "default-timeout", "timeout")
    found = {f"PIP_{name.upper().replace('-', '_')}": " ".join(pip[name].split()) for name in names if pip.get(name)}
    if timeout := found.pop("PIP_TIMEOUT", None):
        found["PIP_DEFAULT_TIMEOUT"] = timeout
    return found


def _for_uv(found: HostSettings) -> dict[str, str]:
    pip, own = found.pip, {name: value for name, value in found.environ.items() if UV_VARIABLES.fullmatch(name)}
    env: dict[str, str] = {}
    timeout = pip.get("timeout") or pip.get("default-timeout")
    if timeout:
        env["UV_HTTP_TIMEOUT"] = str(int(float(timeout))) if _is_number(timeout) else "60"
    if pip.get("trusted-host"):
        env["UV_INSECURE_HOST"] = " ".join(pip["trusted-host"].split())
    if not any(name in found.uv for name in UV_PLACES) and not any("INDEX" in name or "LINKS" in name for name in own):
        if pip.get("index-url"):
            env["UV_DEFAULT_INDEX"] = pip["index-url"].strip()
        if pip.get("extra-index-url"):
            env["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
            env["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does, whose settings these are
        if pip.get("find-links"):
            env["UV_FIND_LINKS"] = ",".join(pip["find-links"].split())
        if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
            env.pop("UV_INDEX", None)
            env["UV_DEFAULT_INDEX"] = NO_INDEX  # uv knows no variable for it: an index that has nothing
    return env | own


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text.strip()) is not None


def _pip_proxy(name: str, pip: Mapping[str, str]) -> str | None:
    return pip.get("proxy") if name in {"HTTP_PROXY", "HTTPS_PROXY"} else None


def _first(exists: Any, *paths: str | None) -> str | None:
    return next((path for path in paths if path and exists(path)), None)


def _mount(mounts: dict[str, Mount], source: str, target: str) -> None:
    mounts[target] = Mount(source=os.path.abspath(source), target=target, read_only=True)  # noqa: PTH100 - links stay


def _places(env: Mapping[str, str]) -> Iterator[str]:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        yield from env.get(name, "").split()
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        yield from env.get(name, "").split()
    yield from env.get("UV_FIND_LINKS", "").replace(",", " ").split()


def _uv_places(uv: Mapping[str, Any]) -> Iterator[str]:
    for table in (uv, uv.get("pip", {})):
        for name in ("index-url", "extra-index-url", "find-links"):
            value = table.get(name, ())
            yield from (value,) if isinstance(value, str) else value
        for index in table.get("index", ()):
            yield str(index.get("url", ""))


def _local(place: str) -> str | None:
    """The path of a place on this host; None for one on another.

    >>> _local("file:///srv/wheels"), _local("/srv/wheels"), _local("https://pypi.org/simple")
    ('/srv/wheels', '/srv/wheels', None)
    """
    if place.startswith("/"):
        return place
    url = urlsplit(place.partition("=")[2] if re.match(r"[A-Za-z0-9_-]+=", place) else place)
    return unquote(url.path) if url.scheme == "file" else None


def _whole(path: str) -> str:
    """The folder that all of a place lies in: the pages of an index called `simple` mostly link to files beside it.

    >>> _whole("/srv/mirror/simple/"), _whole("/srv/wheels"), _whole("/simple")
    ('/srv/mirror', '/srv/wheels', '/simple')
    """
    above, _, last = path.rstrip("/").rpartition("/")
    return above if above and last == "simple" else path


def passwords(env: Mapping[str, str]) -> Iterator[str]:
    """What of these must not show in a log."""
    for name, value in env.items():
        if name.endswith("_PASSWORD"):
            yield value
        for word in value.replace(",", " ").split():
            with_password = re.match(r"[a-z+]+://[^/@\s]*:([^/@\s]+)@", word)
            if with_password:
                yield unquote(with_password[1])
                yield with_password[1]
