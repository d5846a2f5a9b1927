"""Layers on disk: their digests, and that a half one is never there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from slipway.dsl.errors import InternalError, NotFoundError
from slipway.executor.runtime import kernel
from slipway.executor.runtime.layers import Layers, Made, Taken, content_digest, remove_tree, short

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64
C = "sha256:" + "c" * 64


def tree(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    return top


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    made = Layers(tmp_path / "layers")
    made.clean()
    return made


def test_the_digest_is_over_content_modes_and_names_and_not_over_times(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", {"a/b": "1", "c": "2"})
    two = tree(tmp_path / "two", {"c": "2", "a/b": "1"})
    os.utime(two / "c", (1, 1))
    os.utime(two / "a", (1, 1))
    same = content_digest(one)
    assert same == content_digest(two)
    seen = {same}
    for change in (
        lambda: (two / "c").write_text("3"),
        lambda: (two / "c").chmod(0o755),
        lambda: (two / "a" / "b").rename(two / "a" / "d"),
        lambda: (two / "empty").mkdir(),
        lambda: (two / "link").symlink_to("c"),
        lambda: os.mknod(two / "gone", 0o020000, os.makedev(0, 0)),
        lambda: os.setxattr(two / "a", "user.overlay.opaque", b"y"),
        lambda: os.mkfifo(two / "pipe"),
    ):
        change()
        digest = content_digest(two)
        assert digest not in seen
        seen.add(digest)


def test_noise_is_not_in_the_digest(tmp_path: Path) -> None:
    before = content_digest(tree(tmp_path / "x", {"usr/lib/a.py": "1"}))
    for name in ("usr/lib/__pycache__/a.pyc", "var/log/apt/history.log"):
        tree(tmp_path / "x", {name: "now"})
    with_folders = content_digest(tmp_path / "x")
    tree(tmp_path / "x", {"usr/lib/__pycache__/a.pyc": "later", "var/log/apt/history.log": "later"})
    assert content_digest(tmp_path / "x") == with_folders
    assert before != with_folders  # var and var/log are folders that were not there


def test_uppers_become_one_root(layers: Layers, tmp_path: Path) -> None:
    taken = (
        Taken(target="", upper=tree(tmp_path / "u0", {"data/a": "1"})),
        Taken(target="usr", upper=tree(tmp_path / "u1", {"bin/x": "2"})),
        Taken(target="var/lib/dpkg", upper=tree(tmp_path / "u2", {"status": "3"})),
        Taken(target="opt", upper=tree(tmp_path / "u3", {})),
    )
    (tmp_path / "u3").mkdir()
    output = layers.commit(A, taken, ())
    top = layers.folder / short(A) / "fs"
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()) == [
        *("data/a", "usr/bin/x", "var/lib/dpkg/status"),
    ]
    assert not (top / "opt").exists()
    assert layers.output(A) == output == content_digest(top)
    assert layers.has(A)
    assert layers.holds(layers.place(A), ("usr", "opt", "var/lib/dpkg")) == {"usr", "var/lib/dpkg"}


def test_what_was_made_for_mounts_is_left_out_where_it_is_as_it_was(layers: Layers, tmp_path: Path) -> None:
    upper = tmp_path / "u0"
    for folder in ("root/.cache/uv", "keep/mine", "changed/x"):
        (upper / folder).mkdir(parents=True)
    (upper / "file").touch()
    tree(upper, {"keep/mine/file": "1"})
    usr = tmp_path / "u1"
    (usr / "share" / "point").mkdir(parents=True)
    made = []
    for path in ("root", "root/.cache", "root/.cache/uv", "keep", "keep/mine", "changed", "changed/x", "file"):
        status = (upper / path).stat()
        made.append(Made("/" + path, status.st_mode, status.st_uid, status.st_gid))
    for path in ("share", "share/point"):
        status = (usr / path).stat()
        made.append(Made("/usr/" + path, status.st_mode, status.st_uid, status.st_gid))
    (upper / "changed").chmod(0o700)
    if os.geteuid() != 0:
        made = [Made(entry.path, entry.mode, 0, 0) for entry in made]  # as the container saw them
    layers.commit(A, (Taken(target="", upper=upper), Taken(target="usr", upper=usr)), tuple(made))
    top = layers.folder / short(A) / "fs"
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == [
        "changed",
        "keep",
        "keep/mine",
        "keep/mine/file",
    ]


def test_a_failing_disk_leaves_no_layer(layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kernel, "sync_file_system", full)
    with pytest.raises(OSError, match="No space left"):
        layers.commit(A, (Taken(target="", upper=tree(tmp_path / "u0", {"a": "1"})),), ())
    assert not layers.has(A)
    assert list(layers.folder.iterdir()) == []


def test_a_digest_that_shares_its_beginning_is_another_layer(layers: Layers, tmp_path: Path) -> None:
    layers.commit(A, (Taken(target="", upper=tree(tmp_path / "u0", {"a": "1"})),), ())
    twin = "sha256:" + "a" * 16 + "0" * 48
    assert short(twin) == short(A)
    assert not layers.has(twin)
    with pytest.raises(NotFoundError):
        layers.place(twin)


def test_removal_passes_content_on_to_the_next_name(layers: Layers, tmp_path: Path) -> None:
    layers.commit(A, (Taken(target="", upper=tree(tmp_path / "u0", {"a": "1"})),), ())
    others = ["sha256:" + letter * 64 for letter in "bcd"]
    for other in others:
        layers.alias(other, A)
    layers.remove(others[0])
    layers.remove(A)
    assert list(layers.all()) == sorted(others[1:])
    for other in others[1:]:
        assert (layers.folder / layers.place(other) / "fs" / "a").read_text() == "1"
        layers.remove(other)
    assert list(layers.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "sha256:", "sha256:XYZ", "sha256:" + "a" * 15])
def test_what_is_no_digest_never_becomes_a_path(name: str) -> None:
    with pytest.raises(InternalError):
        short(name)


def test_locked_folders_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "x" / "work" / "work").mkdir(parents=True)
    (tmp_path / "x" / "work" / "work").chmod(0)
    (tmp_path / "x" / "work").chmod(0)
    remove_tree(tmp_path / "x")
    remove_tree(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"layers": [1], "output": ""}', '{"layers": ["x"]}', None])
def test_what_is_left_of_a_damaged_layer_is_none_and_gives_way(
    tmp_path: Path, layers: Layers, text: str | None
) -> None:
    def keep() -> str:
        return layers.commit(A, (Taken(target="", upper=tree(tmp_path / "upper", {"a": "1"})),), ())

    output = keep()
    place = layers.folder / short(A)
    if text is None:
        remove_tree(place / "fs")
    else:
        (place / "layer.json").write_text(text)
    assert not layers.has(A)
    assert list(layers.all()) == []
    assert keep() == output
    assert (place / "fs" / "a").read_text() == "1"
    layers.alias(B, A)
    layers.remove(A)
    assert layers.has(B)
    assert not [path for path in layers.folder.iterdir() if "." in path.name]


def names(layers: Layers) -> dict[str, str]:
    """What each name in the folder is: "folder", or the name that it stands for."""
    return {path.name: path.readlink().name if path.is_symlink() else "folder" for path in layers.folder.iterdir()}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_the_content_goes_to_the_other_names(
    layers: Layers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    def refused(one: str, other: str) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    if not can_exchange:
        monkeypatch.setattr(kernel, "exchange", refused)
    layers.commit(A, (Taken(target="", upper=tree(tmp_path / "u0", {"a": "1"})),), ())
    for other in (B, C):
        layers.alias(other, A)
    assert dict(layers.places()) == {A: short(A), B: short(A), C: short(A)}
    layers.remove(A)
    assert names(layers) == {short(B): "folder", short(C): short(B)}
    assert dict(layers.places()) == {B: short(B), C: short(B)}
    layers.remove(C)
    layers.remove(B)
    assert names(layers) == {}


def test_what_was_being_handed_over_at_a_crash_gets_to_its_heir(layers: Layers, tmp_path: Path) -> None:
    layers.commit(A, (Taken(target="", upper=tree(tmp_path / "u0", {"a": "1"})),), ())
    for other in (B, C):
        layers.alias(other, A)
    info = layers.folder / short(A) / "layer.json"
    info.write_text(info.read_text().replace(f'"{A}", ', ""))
    (layers.folder / short(B)).unlink()
    assert not layers.has(B)
    layers.clean()
    assert names(layers) == {short(B): "folder", short(C): short(B)}
    assert set(layers.all()) == {B, C}


def test_the_size_is_what_the_disk_gives_back(layers: Layers, tmp_path: Path) -> None:
    upper = tree(tmp_path / "u0", {"a": "1" * 8192, "d/b": "2" * 4096})
    (upper / "again").hardlink_to(upper / "a")
    layers.commit(A, (Taken(target="", upper=upper),), ())
    layers.alias(B, A)
    taken = {path.lstat().st_ino: path.lstat().st_blocks for path in (layers.folder, *layers.folder.rglob("*"))}
    del taken[layers.folder.stat().st_ino]
    assert layers.size(A) == 512 * sum(taken.values()) - 512 * (layers.folder / short(B)).lstat().st_blocks
    assert layers.size(B) == 0
