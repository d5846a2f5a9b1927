"""What the docker tests take from Debian's archive: the engine's programs, and a base image.

Nothing is installed: a package that the machine lacks is unpacked below the cache folder, so no service starts, nothing
of the machine changes, and removing that folder removes it all.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "bookworm"
INCLUDED = ("python3", "python3-pip", "python3-venv", "ca-certificates")
RECIPE = 1  # goes up when what is done with a base image changes
TRIMMED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")
MIRROR = "http://deb.debian.org/debian"
KEYS = "debian-archive-keyring"

# The programs of each package that the tests use.
PROGRAMS = {
    "docker.io": ("dockerd", "containerd", "runc", "docker-init"),
    "debootstrap": ("debootstrap",),
    "runsc": ("runsc",),
    "docker-registry": ("docker-registry",),
}


class UnobtainableError(Exception):
    """It can't be had here, and why."""


def cache() -> Path:
    """Where all of it is kept between runs."""
    top = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(top) / "slipway-tests"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def refusal() -> str:
    """Why nothing can be made on this machine; "" where it can."""
    if os.getuid() != 0:
        return "only root can start an engine"
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "this system does not say what it is"
    if not {"debian", "ubuntu"} & {release["ID"], *release.get("ID_LIKE", "").split()}:
        return f"an engine is brought up on Debian and Ubuntu, and this is {release.get('NAME', release['ID'])}"
    return ""


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, whoever else runs these tests."""
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(*packages: str) -> dict[str, str]:
    """The environment in which the programs of `packages` are found; what the machine lacks is unpacked first."""
    roots = [root for package in packages if (root := _unpacked(package, PROGRAMS[package]))]
    if not roots:
        return dict(os.environ)
    found = {**os.environ}
    folders = [str(root / folder) for root in roots for folder in ("usr/sbin", "usr/bin", "sbin", "bin")]
    found["PATH"] = ":".join([*folders, os.environ.get("PATH", os.defpath)])
    found["LD_LIBRARY_PATH"] = ":".join(str(path) for root in roots for path in _libraries(root))
    for root in roots:
        if (root / "usr/share/debootstrap").is_dir():
            found["DEBOOTSTRAP_DIR"] = str(root / "usr/share/debootstrap")
    return found


def _libraries(root: Path) -> Iterable[Path]:
    return sorted({path.parent for path in root.glob("**/lib/**/*.so*")})


def _unpacked(package: str, programs: Iterable[str]) -> Path | None:
    """Where a package lies unpacked with those that it needs; None where the machine has its programs."""
    if programs and all(map(shutil.which, programs)):
        return None
    system = platform.freedesktop_os_release()
    name = f"{package}-{system['ID']}-{system.get('VERSION_ID', '')}-{platform.machine()}"
    root = cache() / "packages" / name
    with locked("packages"):
        if not root.is_dir():
            half = root.with_name(f"{name}.half")
            shutil.rmtree(half, ignore_errors=True)
            (half / "archives/partial").mkdir(parents=True)
            _download(package, half / "archives")
            for archive in sorted((half / "archives").glob("*.deb")):
                _run("dpkg-deb", "--extract", str(archive), str(half))
            shutil.rmtree(half / "archives")
            half.rename(root)
    return root


def _download(package: str, folder: Path) -> None:
    """A package and those of its needs that the machine lacks."""
    fetch = ["apt-get", "install", "--download-only", "--reinstall", "--no-install-recommends", "--yes"]
    fetch += ["-o", f"Dir::Cache::archives={folder}", "-o", "Debug::NoLocking=1", package]
    try:
        _run(*fetch)
    except UnobtainableError:  # a new machine has no lists of packages yet, or old ones
        _run("apt-get", "update")
        _run(*fetch)


def offers(package: str) -> bool:
    """Whether the machine has a package's programs, or its release does."""
    if all(map(shutil.which, PROGRAMS[package])):
        return True
    return subprocess.run(["apt-cache", "show", package], capture_output=True, check=False).returncode == 0


def _run(*argv: str, env: dict[str, str] | None = None) -> str:
    """Run a program to its end; what it printed."""
    quiet = {**(env or os.environ), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        ran = subprocess.run(argv, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnobtainableError(f"there is no {argv[0]} here") from None
    if ran.returncode:
        last = " · ".join((ran.stdout + ran.stderr).strip().splitlines()[-4:])
        raise UnobtainableError(f"`{' '.join(argv)}` failed: {last}")
    return ran.stdout


def base_name() -> str:
    """The base image's name: its tag says what is in it."""
    words = " ".join([SUITE, *INCLUDED, platform.machine(), str(RECIPE)])
    return f"slipway-test-base:{SUITE}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def base_tarball() -> Path:
    """The base image's files as a tarball: made once, and anew where it was damaged."""
    tarball = cache() / f"{base_name().partition(':')[2]}.tar"
    noted = tarball.with_suffix(".sha256")
    with locked(tarball.stem):
        if not (tarball.is_file() and noted.is_file() and noted.read_text() == _digest(tarball)):
            noted.unlink(missing_ok=True)
            _make_base(tarball)
            noted.write_text(_digest(tarball))
    return tarball


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_base(tarball: Path) -> None:
    print(f"\n[the base image of the docker tests is made, once, in {tarball.parent}: about a minute]", flush=True)
    root = tarball.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)
    try:
        keys = Path("/usr/share/keyrings") / f"{KEYS}.gpg"
        if not keys.is_file():
            keys = (_unpacked(KEYS, ()) or Path("/")) / str(keys).lstrip("/")
        # In a mount namespace of its own: what it mounts goes with it.
        _run(
            *("unshare", "--mount", "debootstrap", "--variant=minbase", f"--keyring={keys}"),
            *(f"--include={','.join(INCLUDED)}", SUITE, str(root), _mirror()),
            env=_behind_proxy(environment("debootstrap")),
        )
        for folder in TRIMMED:
            for path in (root / folder).iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        half = tarball.with_suffix(".half")
        _run("tar", "--create", "--numeric-owner", "--one-file-system", f"--file={half}", "-C", str(root), ".")
        half.replace(tarball)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _mirror() -> str:
    """The archive that this machine takes the suite from, else Debian's own."""
    targets = _run("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)").splitlines()
    for codename, _, address in (line.partition(" ") for line in targets):
        if codename == SUITE and address.startswith(("http://", "https://", "file:/")):
            return address
    return MIRROR


def _behind_proxy(env: dict[str, str]) -> dict[str, str]:
    """With the proxy that apt is set to: debootstrap's downloads know it by the environment alone."""
    said = _run("apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy").strip()
    return {**env, "http_proxy": said} if said.startswith("http") else env
