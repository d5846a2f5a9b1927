"""What counts as a step's content: decided from the engine's list of changes and from tar archives."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import Any

import pytest

from slipway.executor.runtime import docker_content
from slipway.executor.runtime.docker_content import (
    ADDED,
    CHANGED,
    GONE,
    changes,
    command_lines,
    digest,
    members,
    settle,
)

ROOTS = ("folder", 0o755, 0, 0)
FILE = ("file", 0o644, 0, 0, "aa", "")


def listed(*paths: str) -> list[dict[str, Any]]:
    """The engine's list: "A /a" for an added path, "C" for a changed one, "D" for one that is gone."""
    return [{"Path": path[2:], "Kind": {"C": CHANGED, "A": ADDED, "D": GONE}[path[0]]} for path in paths]


def packed(*entries: tuple[str, bytes, dict[str, Any]], contents: dict[str, bytes] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, about in entries:
            member = tarfile.TarInfo(name)
            member.type = kind
            for key, value in about.items():
                setattr(member, key, value)
            content = (contents or {}).get(name, b"")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_no_changes_are_no_changes() -> None:
    assert changes(None, ()).kinds == {}


def test_mounts_and_what_changes_by_chance_are_left_out() -> None:
    found = listed("A /.slipway", "A /.slipway/bin", "A /.slipway/bin/uv", "C /var", "C /var/log", "C /var/log/x")
    found += listed("A /usr/a", "A /usr/a/__pycache__", "A /usr/a/__pycache__/b.pyc", "D /usr/b", "A /usr/a/b.py")
    what = changes(found, ["/.slipway/bin/uv"])
    assert what.kinds == {
        "/.slipway": ADDED, "/.slipway/bin": ADDED, "/usr/a": ADDED, "/usr/a/b.py": ADDED, "/usr/b": GONE,
        "/var": CHANGED, "/var/log": CHANGED,
    }  # fmt: skip
    assert what.doubtful == ("/.slipway/bin", "/.slipway")
    assert "/usr/b" not in what.present()


def test_a_folder_above_a_mount_with_something_else_in_it_is_no_doubt() -> None:
    what = changes(listed("C /root", "A /root/.cache", "A /root/.cache/uv", "A /root/made"), ["/root/.cache/uv/"])
    assert what.doubtful == ("/root/.cache",)
    assert not what.whole("/root/.cache")
    assert what.whole("/root/made")


def test_folders_that_are_as_the_engine_makes_them_are_not_content() -> None:
    what = changes(listed("A /srv/deep", "A /srv/deep/out", "C /srv"), ["/srv/deep/out"])
    described = {"/srv": ROOTS, "/srv/deep": ROOTS}
    assert settle(what, described, {"/srv": ROOTS}) == {}


@pytest.mark.parametrize("path", ["/srv", "/srv/deep"])
def test_folders_above_mounts_that_the_step_changed_are_content(path: str) -> None:
    what = changes(listed("A /srv/deep", "A /srv/deep/out", "C /srv"), ["/srv/deep/out"])
    closed = ("folder", 0o700, 0, 0)
    described = {"/srv": ROOTS, "/srv/deep": ROOTS, path: closed}
    kept = settle(what, described, {"/srv": ROOTS})
    assert kept[path] == closed
    assert set(kept) == ({"/srv"} if path == "/srv" else {"/srv", "/srv/deep"})


def test_the_digest_is_over_all_of_it_and_what_is_below() -> None:
    one = digest("b", {"/a": FILE, "/b": ("gone",)})
    assert one == digest("b", {"/b": ("gone",), "/a": FILE})
    others = [digest("c", {"/a": FILE}), digest("b", {"/a": FILE}), digest("b", {"/a": FILE, "/c": ("gone",)})]
    assert len({one, *others}) == 4


def test_command_lines_hold_every_path_and_are_never_too_long() -> None:
    paths = [f"/data/{'x' * 200}/{number}" for number in range(2000)]
    lines = list(command_lines(paths))
    assert [word for line in lines for word in line] == ["." + path for path in paths]
    assert max(sum(len(word) + 9 for word in line) for line in lines) <= docker_content.WORDS
    assert list(command_lines([])) == []
    assert len(list(command_lines(["/" + "x" * docker_content.WORDS]))) == 1


def test_an_archive_is_described_without_its_times() -> None:
    kinds: list[tuple[str, bytes, dict[str, Any]]] = [
        ("./data", tarfile.DIRTYPE, {"mode": 0o40755, "mtime": 5}),
        ("./data/a", tarfile.REGTYPE, {"mode": 0o100640, "uid": 7, "gid": 8, "mtime": 1}),
        ("./data/b", tarfile.LNKTYPE, {"mode": 0o640, "uid": 7, "gid": 8, "linkname": "./data/a"}),
        ("./data/c", tarfile.SYMTYPE, {"mode": 0o777, "linkname": "a"}),
        ("./data/d", tarfile.FIFOTYPE, {"mode": 0o600}),
        ("./data/e", tarfile.CHRTYPE, {"mode": 0o666, "devmajor": 1, "devminor": 3}),
        ("./data/f", tarfile.REGTYPE, {"mode": 0o755, "pax_headers": {docker_content.CAPABILITY: "\x01x"}}),
    ]
    found = dict(members([packed(*kinds, contents={"./data/a": b"1"})]))
    hashed = hashlib.sha256(b"1").hexdigest()
    assert found == {
        "/data": ("folder", 0o755, 0, 0),
        "/data/a": ("file", 0o640, 7, 8, hashed, ""),
        "/data/b": ("file", 0o640, 7, 8, hashed, ""),
        "/data/c": ("link", 0, 0, "a"),
        "/data/d": ("special", 0o600, 0, 0, "6", 0, 0),
        "/data/e": ("special", 0o666, 0, 0, "3", 1, 3),
        "/data/f": ("file", 0o755, 0, 0, hashlib.sha256().hexdigest(), "0178"),
    }


def test_names_are_below_the_folder_that_was_asked_for() -> None:
    assert [name for name, _ in members([packed(("a", tarfile.DIRTYPE, {}))], "/usr/lib")] == ["/usr/lib/a"]


def test_a_second_name_of_an_unknown_file_is_left_to_be_asked_for() -> None:
    assert list(members([packed(("./b", tarfile.LNKTYPE, {"linkname": "./a"}))])) == []


@pytest.mark.parametrize("size", [0, 100, 700, 1100])
def test_an_archive_that_is_cut_off_gives_what_was_whole(size: int) -> None:
    whole = packed(("./a", tarfile.REGTYPE, {}), ("./b", tarfile.REGTYPE, {}), contents={"./b": b"x" * 600})
    pieces = [whole[:size][at : at + 7] for at in range(0, size, 7)]
    assert [name for name, _ in members(pieces)] == (["/a"] if size > 512 else [])


def test_what_is_no_archive_says_nothing() -> None:
    assert list(members([b"OCI runtime exec failed: no such file\n" * 40])) == []
