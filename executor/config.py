"""What a home's owner has set in `config.toml`, as frozen data. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from attrs import evolve, field, frozen

Keys = tuple[str, ...]  # the way to a setting: ("docker", "host")
UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BINARY = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
KEEP_RESULTS_DAYS = 7
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?) ?([A-Za-z]+)")


def bytes_of(size: str) -> int | None:
    """How many bytes a size is that is written with its unit; None for what is no size.

    >>> bytes_of("50GB"), bytes_of("1.5 GiB"), bytes_of("50")
    (50000000000, 1610612736, None)
    """
    match = _SIZE.fullmatch(size.strip())
    unit = {**UNITS, **BINARY, "B": 1}.get(match[2]) if match else None
    return int(Decimal(match[1]) * unit) if match and unit else None


@frozen(kw_only=True)
class DockerSettings:
    """How the docker runtime is reached, and what its workers get.

    `host` is an address as in DOCKER_HOST, `context` the name of a Docker context; with neither, DOCKER_HOST and then
    Docker's own current context decide. `bases` maps "debian_slim", "debian_slim 3.12" or "micromamba" to an image.
    """

    host: str | None = None
    context: str | None = None
    network: str | None = None  # of containers that may use one; None: the engine's bridge, or host where it has none
    oci_runtime: str | None = None  # "runsc" is gVisor
    user: str | None = None  # of workers, as "uid", "uid:gid" or a name; None: the image's own
    shm_mib: int | None = None  # size of /dev/shm; None: half of this machine's memory
    bases: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class AppSettings:
    """What is set for one app; None: as for all."""

    runtime: str | None = None
    network: str | None = None
    oci_runtime: str | None = None
    user: str | None = None
    shm_mib: int | None = None


@frozen(kw_only=True)
class LogSettings:
    """How much the logs of a home may take in all, and those of one app; the oldest go where there are more."""

    budget_mib: int = 1024
    app_mib: int = 64


@frozen(kw_only=True)
class Config:
    """`runtime` is that of apps that nothing else is said of; `keep_mib` is how much `slipway gc` leaves unneeded."""

    runtime: str | None = None
    docker: DockerSettings = DockerSettings()
    apps: tuple[tuple[str, AppSettings], ...] = field(default=())
    keep_mib: int | None = None
    logs: LogSettings = LogSettings()
    keep_results_days: int = KEEP_RESULTS_DAYS  # how long the results of calls that were spawned can be had

    def docker_of(self, app: str) -> DockerSettings:
        """Docker's settings as they are for one app.

        >>> config = Config(apps=(("search", AppSettings(oci_runtime="runsc")),))
        >>> config.docker_of("search").oci_runtime, config.docker_of("other").oci_runtime
        ('runsc', None)
        """
        own = dict(self.apps).get(app, AppSettings())
        said = {name: getattr(own, name) for name in ("network", "oci_runtime", "user", "shm_mib")}
        return evolve(self.docker, **{name: value for name, value in said.items() if value is not None})


@frozen(kw_only=True)
class Reading:
    """The settings, and on which line each was said."""

    config: Config = field(factory=Config)
    lines: Mapping[Keys, int] = field(factory=dict)
    file: str = "config.toml"

    def place(self, *keys: str) -> str:
        """Where a setting was said: `config.toml:3`."""
        return f"{self.file}:{line_of(self.lines, keys)}"


def line_of(lines: Mapping[Keys, int], keys: Keys) -> int:
    """The line of a setting, or of the table that holds it."""
    while keys and keys not in lines:
        keys = keys[:-1]
    return lines.get(keys, 1)
