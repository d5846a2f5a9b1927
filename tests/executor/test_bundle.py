"""Bundles: content as planned or not at all, put together once, whole or absent, and safe against odd paths."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import digest_of_bytes

from slipway.compiler.facts import FileEntry
from slipway.dsl.errors import InvalidError, NotFoundError, StalePlanError
from slipway.executor.bundle import Bundles, bundle_digest
from slipway.executor.store.blobs import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def bundles(tmp_path: Path, blobs: FileBlobs) -> Bundles:
    return Bundles(tmp_path / "bundles", blobs)


@pytest.fixture
def entry(tmp_path: Path) -> Callable[..., FileEntry]:
    def make(path: str, content: bytes, mode: int = 0o644) -> FileEntry:
        source = tmp_path / "source" / path.replace("/", "_")
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(content)
        return FileEntry(path=path, mode=mode, digest=digest_of_bytes(content), size=len(content), source=str(source))

    return make


def made(bundles: Bundles, *files: FileEntry) -> Path:
    async def main() -> str:
        await bundles.keep(files)
        return await bundles.make(bundle_digest(files), files)

    return Path(asyncio.run(main()))


def test_a_bundle_is_laid_out_like_a_root(bundles: Bundles, entry: Callable[..., FileEntry]) -> None:
    old = os.umask(0o077)
    try:
        link = FileEntry(path="/root/pkg/link", mode=0o644, digest="link:a.py")
        top = made(bundles, entry("/root/pkg/a.py", b"a"), entry("/srv/run.sh", b"run", 0o755), link)
    finally:
        os.umask(old)
    assert (top / "root/pkg/a.py").read_bytes() == b"a"
    assert stat.S_IMODE((top / "root/pkg/a.py").stat().st_mode) == 0o644
    assert stat.S_IMODE((top / "srv/run.sh").stat().st_mode) == 0o755
    assert os.readlink(top / "root/pkg/link") == "a.py"
    assert {0o755} == {stat.S_IMODE(path.stat().st_mode) for path in (top, top / "root", top / "root/pkg", top / "srv")}


def test_contents_are_shared_with_the_blobs(
    bundles: Bundles, blobs: FileBlobs, entry: Callable[..., FileEntry]
) -> None:
    file = entry("/root/a.py", b"a")
    top = made(bundles, file)
    assert Path(blobs.path(file.digest)).stat().st_ino == (top / "root/a.py").stat().st_ino


def test_a_file_that_changed_since_the_plan_is_named(
    bundles: Bundles, entry: Callable[..., FileEntry], tmp_path: Path
) -> None:
    file = entry("/root/a.py", b"a")
    Path(file.source).write_bytes(b"b")
    with pytest.raises(StalePlanError, match=f"{file.source} has changed"):
        made(bundles, file)
    Path(file.source).unlink()
    with pytest.raises(StalePlanError, match="can't be read any more"):
        made(bundles, file)
    assert list((tmp_path / "bundles").glob("*")) == []


def test_what_is_in_the_blobs_needs_no_source(bundles: Bundles, entry: Callable[..., FileEntry]) -> None:
    file = entry("/root/a.py", b"a")
    made(bundles, file)
    Path(file.source).unlink()
    assert made(bundles, file, entry("/root/b.py", b"b")).is_dir()


def test_a_damaged_blob_is_found_out_and_thrown_away(
    bundles: Bundles, blobs: FileBlobs, entry: Callable[..., FileEntry]
) -> None:
    file = entry("/root/a.py", b"a")
    asyncio.run(bundles.keep((file,)))
    Path(blobs.path(file.digest)).write_bytes(b"?")
    with pytest.raises(InvalidError, match="damaged"):
        made(bundles, file)
    assert (made(bundles, file) / "root/a.py").read_bytes() == b"a"


@pytest.mark.parametrize("path", ["root/a", "/root/../etc/a", "/root//a", "/", "/root/./a", "/a\0b", ""])
def test_paths_that_lead_elsewhere_are_refused(
    bundles: Bundles, entry: Callable[..., FileEntry], path: str, tmp_path: Path
) -> None:
    (tmp_path / "s").write_bytes(b"x")
    file = FileEntry(path=path, mode=0o644, digest=digest_of_bytes(b"x"), source=str(tmp_path / "s"))
    with pytest.raises(InvalidError, match="can't be the place"):
        made(bundles, file)
    assert list((tmp_path / "bundles").glob("*")) == []


def test_a_path_through_a_link_is_refused(bundles: Bundles, entry: Callable[..., FileEntry], tmp_path: Path) -> None:
    link = FileEntry(path="/root/out", mode=0o644, digest=f"link:{tmp_path}")
    with pytest.raises(InvalidError):
        made(bundles, link, entry("/root/out/a", b"a"))
    assert not (tmp_path / "a").exists()


def test_a_path_that_is_file_and_folder_is_refused(bundles: Bundles, entry: Callable[..., FileEntry]) -> None:
    with pytest.raises(InvalidError):
        made(bundles, entry("/root/a", b"1"), entry("/root/a/b", b"2"))


def test_many_who_ask_get_one(bundles: Bundles, entry: Callable[..., FileEntry], tmp_path: Path) -> None:
    files = (entry("/root/a.py", b"a"),)

    async def main() -> set[str]:
        await bundles.keep(files)
        digest = bundle_digest(files)
        return set(await asyncio.gather(*(bundles.make(digest, files) for _ in range(20))))

    assert len(asyncio.run(main())) == 1
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_halves_are_removed(bundles: Bundles, entry: Callable[..., FileEntry], tmp_path: Path) -> None:
    files = (entry("/root/a.py", b"a"),)
    made(bundles, *files)
    (tmp_path / "bundles" / ".making-x").mkdir()
    assert bundles.remove_halves() == 1
    assert [Path(bundles.path(bundle_digest(files)))] == list((tmp_path / "bundles").iterdir())


def test_a_bundle_that_is_not_there_is_named(bundles: Bundles) -> None:
    digest = bundle_digest(())
    assert not bundles.has(digest)
    with pytest.raises(NotFoundError, match=digest[:19]):
        bundles.path(digest)
