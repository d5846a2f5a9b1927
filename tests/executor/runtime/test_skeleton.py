"""The lowest layers: the host's shape without its secrets, and a virtual environment made by writing files."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

from slipway.executor.runtime.pythons import Pythons
from slipway.executor.runtime.skeleton import Skeletons, read_shape


def host(top: Path) -> Path:
    for folder in (
        "usr/bin",
        "usr/lib",
        "usr/local/bin",
        "etc/ssl/private",
        "etc/ssl/certs",
        "opt",
        "var/lib/dpkg",
        "lib32",
    ):
        (top / folder).mkdir(parents=True)
    (top / "bin").symlink_to("usr/bin")
    (top / "lib").symlink_to("/usr/lib")
    (top / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (top / "etc" / "token").write_text("secret")
    (top / "etc" / "token").chmod(0o600)
    (top / "etc" / "ssl" / "private").chmod(0o700)
    (top / "etc" / "ssl" / "certs" / "key").write_text("secret")
    (top / "etc" / "ssl" / "certs" / "key").chmod(0o640)
    return top


def test_the_shape_of_a_host_is_read(tmp_path: Path) -> None:
    shape = read_shape(rootless=False, top=host(tmp_path))
    assert shape.folders == ("usr", "etc", "opt", "lib32", "var/lib/dpkg")
    assert shape.links[0] == ("bin", "usr/bin")
    assert {"token", "ssl/private", "ssl/certs/key", "shadow", "sudoers.d"} <= set(shape.hidden)
    assert "passwd" not in shape.hidden
    assert shape.owned == ()


def test_without_root_the_container_owns_the_folders_it_must_write(tmp_path: Path) -> None:
    owned = read_shape(rootless=True, top=host(tmp_path)).owned
    assert {"etc", "etc/ssl", "etc/ssl/certs", "usr/local", "usr/local/bin"} <= set(owned)


def test_a_host_skeleton_hides_with_whiteouts(tmp_path: Path) -> None:
    shape = read_shape(rootless=True, top=host(tmp_path / "host"))
    top = Skeletons(tmp_path / "skeletons").host(shape)
    for name in ("token", "ssl/private", "ssl/certs/key", "sudoers"):
        status = (top / "etc" / name).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert (top / "bin").readlink() == Path("usr/bin")
    assert stat.S_IMODE((top / "tmp").stat().st_mode) == 0o1777
    assert "root:*:" in (top / "etc" / "shadow").read_text()
    assert (top / "etc" / "resolv.conf").read_text() == ""


def test_the_environment_works_where_it_lies_and_is_made_once(tmp_path: Path) -> None:
    interpreter = Pythons().find("")
    skeletons = Skeletons(tmp_path)
    top = skeletons.python(interpreter)
    assert skeletons.python(interpreter) == top
    code = "import sys, pip; print(sys.prefix); print(pip.__file__)"
    done = subprocess.run([top / "venv/bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == str(top / "venv")
    assert done.stdout.splitlines()[1].startswith(str(top / "venv"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [top.name]
