"""The lowest layers of every container: the host's shape, and a virtual environment for one interpreter.

They are made once as plain folders under `<home>/skeletons/`, named by what is in them, and are never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from .layout import BUILD_POINTS, POINTS
from .pythons import Interpreter

FORMAT = 1
HOME_MODE, SHARED_MODE = 0o700, 0o1777
FOLDERS = (
    *("dev", "home", "media", "mnt", "proc", "run", "srv", "sys", "usr", "etc", "opt"),
    *("var/cache", "var/lib", "var/local", "var/log", "var/mail", "var/opt", "var/spool"),
)
# Never shown, whatever their mode says; what only root may read is hidden besides.
HIDDEN_ETC = ("shadow", "shadow-", "gshadow", "gshadow-", "sudoers", "sudoers.d", "ssh", "docker", "machine-id")
ACTIVATE = 'VIRTUAL_ENV=/venv\nexport VIRTUAL_ENV\nPATH="/venv/bin:$PATH"\nexport PATH\n'
PIP_SCRIPT = "#!/venv/bin/python\nimport sys\nfrom pip._internal.cli.main import main\n\nsys.exit(main())\n"


@frozen(kw_only=True)
class Shape:
    """What the host's root looks like, as far as containers show it."""

    folders: tuple[str, ...]  # real folders among POINTS
    links: tuple[tuple[str, str], ...]  # bin -> usr/bin and the like
    hidden: tuple[str, ...]  # names below /etc that are not shown
    owned: tuple[str, ...]  # folders that a container without root must own to write in them

    def key(self) -> str:
        text = json.dumps([FORMAT, self.folders, self.links, self.hidden, self.owned])
        return "host-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def read_shape(*, rootless: bool, top: Path = Path("/")) -> Shape:
    folders, links = [], []
    for point in POINTS + BUILD_POINTS:
        path = top / point
        target = str(path.readlink()).lstrip("/") if path.is_symlink() else ""
        if target.startswith("usr/") and "/" not in point:
            links.append((point, target))
        elif path.is_dir():
            folders.append(point)
    hidden = set(_secret(top / "etc")) | set(HIDDEN_ETC)
    return Shape(
        folders=tuple(folders),
        links=tuple(links),
        hidden=tuple(sorted(name for name in hidden if name.split("/")[0] not in HIDDEN_ETC or name in HIDDEN_ETC)),
        owned=tuple(_to_own(top)) if rootless else (),
    )


def _secret(etc: Path) -> list[str]:
    """What of /etc not everyone may read."""
    found = []
    for folder, names, files in os.walk(etc):
        for name in sorted(names + files):
            path = os.path.join(folder, name)  # noqa: PTH118 - two thousand files: pathlib takes ten times as long
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISLNK(mode):
                continue
            needed = 0o005 if stat.S_ISDIR(mode) else 0o004
            if mode & needed != needed:
                found.append(os.path.relpath(path, etc))
                if name in names:
                    names.remove(name)
    return found


def _to_own(top: Path) -> list[str]:
    found = []
    for base in ("etc", "usr/local"):
        for folder, names, _ in os.walk(top / base):
            found.append(os.path.relpath(folder, top))
            names[:] = [name for name in names if os.access(os.path.join(folder, name), os.R_OK | os.X_OK)]  # noqa: PTH118
    return sorted(found)


class Skeletons:
    """Makes them where they are missing. Methods block; call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clean(self) -> None:
        """Remove what was begun and not finished."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.tmp-*"):
            shutil.rmtree(path, ignore_errors=True)

    def host(self, shape: Shape) -> Path:
        return self._made(shape.key(), lambda path: _fill_host(path, shape))

    def python(self, interpreter: Interpreter) -> Path:
        """The folder with `/venv` for this interpreter: no system packages, pip from our own environment."""
        text = json.dumps([FORMAT, interpreter.executable, interpreter.version, importlib.metadata.version("pip")])
        key = f"python-{interpreter.version}-" + hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._made(key, lambda path: _fill_venv(path / "venv", interpreter))

    def _made(self, key: str, fill: Callable[[Path], None]) -> Path:
        final = self.folder / key
        if final.is_dir():
            return final
        begun = self.folder / f"{key}.tmp-{uuid.uuid4().hex[:8]}"
        begun.mkdir(parents=True, mode=0o755)
        begun.chmod(0o755)
        try:
            fill(begun)
            begun.rename(final)
        except OSError:
            shutil.rmtree(begun, ignore_errors=True)
            if not final.is_dir():
                raise
        return final


def _fill_host(top: Path, shape: Shape) -> None:
    old = os.umask(0o022)
    try:
        for name in (*FOLDERS, *shape.folders, *shape.owned):
            (top / name).mkdir(parents=True, exist_ok=True)
        for name, mode in (("root", HOME_MODE), ("tmp", SHARED_MODE), ("var/tmp", SHARED_MODE)):
            (top / name).mkdir(exist_ok=True)
            (top / name).chmod(mode)
        for name, target in (*shape.links, ("var/run", "/run"), ("var/lock", "/run/lock")):
            (top / name).symlink_to(target)
        for name in shape.hidden:
            _hide(top / "etc" / name)
        for name in ("resolv.conf", "hosts"):  # a mount point each; often links to places that a container lacks
            (top / "etc" / name).unlink(missing_ok=True)
            (top / "etc" / name).touch()
        _fill_shadow(top / "etc")
    finally:
        os.umask(old)


def _hide(path: Path) -> None:
    """Leave a whiteout: to an overlay, the name is not there."""
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def _fill_shadow(etc: Path) -> None:
    """A shadow file without passwords, so that packages which add users can do it."""
    for source, name, line in (("passwd", "shadow", "{}:*:19000:0:99999:7:::\n"), ("group", "gshadow", "{}:*::\n")):
        names = [entry.split(":")[0] for entry in Path("/etc", source).read_text().splitlines() if ":" in entry]
        path = etc / name
        path.unlink(missing_ok=True)
        path.write_text("".join(line.format(user) for user in names))
        path.chmod(0o640)


def _fill_venv(venv: Path, interpreter: Interpreter) -> None:
    packages = venv / "lib" / f"python{interpreter.minor}" / "site-packages"
    packages.mkdir(parents=True)
    scripts = venv / "bin"
    scripts.mkdir()
    (venv / "lib64").symlink_to("lib")
    (scripts / "python").symlink_to(interpreter.executable)
    for name in ("python3", f"python{interpreter.minor}"):
        (scripts / name).symlink_to("python")
    home = Path(interpreter.executable).parent
    (venv / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {interpreter.version}\n"
        f"executable = {interpreter.executable}\n"
    )
    (scripts / "activate").write_text(ACTIVATE)
    _copy_pip(packages)
    for name in ("pip", "pip3", f"pip{interpreter.minor}"):
        (scripts / name).write_text(PIP_SCRIPT)
        (scripts / name).chmod(0o755)


def _copy_pip(packages: Path) -> None:
    """Our own pip with the times of its files, so that the compiled ones stay good; it needs no network."""
    pip = importlib.metadata.distribution("pip")
    root = Path(str(pip.locate_file("")))
    info = [path for path in root.glob("pip-*.dist-info") if path.name.startswith(f"pip-{pip.version}.")]
    for folder in (root / "pip", *info):
        shutil.copytree(folder, packages / folder.name, symlinks=False)
    for path in packages.rglob("*"):
        with contextlib.suppress(OSError):
            path.chmod(0o755 if path.is_dir() else 0o644)
