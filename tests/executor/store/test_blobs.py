"""What the blob store promises."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from fakes import digest_of_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.store.blobs import FileBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs")


def put(blobs: FileBlobs, content: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        (digest,) = blobs.put_files([file.name])
    return digest


def test_what_is_put_is_there_under_its_digest(blobs: FileBlobs) -> None:
    digest = put(blobs, b"content")
    assert digest_of_bytes(b"content") == digest
    assert blobs.has(digest)
    assert Path(blobs.path(digest)).read_bytes() == b"content"


def test_a_file_is_copied_in(blobs: FileBlobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    (digest,) = blobs.put_files([str(source)])
    source.write_bytes(b"other")
    assert Path(blobs.path(digest)).read_bytes() == b"x" * 3_000_000


def test_files_are_put_together(blobs: FileBlobs, tmp_path: Path) -> None:
    for name, text in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(text)
    digests = blobs.put_files(str(tmp_path / name) for name in "abc")
    assert (digest_of_bytes(b"1"), digest_of_bytes(b"2"), digest_of_bytes(b"1")) == digests
    assert {digests[0], digests[1]} == set(blobs.iterate())


def test_a_missing_file_is_an_os_error_and_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"1")
    with pytest.raises(FileNotFoundError):
        blobs.put_files([str(tmp_path / "not there")])
    assert list(blobs.iterate()) == []


def test_a_blob_that_is_not_there_is_named(blobs: FileBlobs) -> None:
    digest = digest_of_bytes(b"never put")
    assert not blobs.has(digest)
    with pytest.raises(NotFoundError, match=digest[:19]):
        blobs.path(digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "A" * 64, "sha256:../../etc/passwd", "md5:" + "a" * 64])
def test_what_is_no_digest_is_refused(blobs: FileBlobs, digest: str) -> None:
    with pytest.raises(InvalidError):
        blobs.has(digest)


def test_removing_is_safe_twice(blobs: FileBlobs) -> None:
    digest = put(blobs, b"content")
    blobs.remove(digest)
    blobs.remove(digest)
    assert not blobs.has(digest)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(contents=st.lists(st.binary(max_size=64), max_size=6))
def test_any_bytes_come_back(blobs: FileBlobs, contents: list[bytes]) -> None:
    digests = [put(blobs, content) for content in contents]
    assert contents == [Path(blobs.path(digest)).read_bytes() for digest in digests]


def test_a_blob_is_never_written_again(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    digest = put(blobs, b"content")
    before = Path(blobs.path(digest)).stat()
    put(blobs, b"content")
    (tmp_path / "same").write_bytes(b"content")
    blobs.put_files([str(tmp_path / "same")])
    assert before.st_ino == Path(blobs.path(digest)).stat().st_ino
    assert list((tmp_path / "sha256" / "making").iterdir()) == []


def test_halves_are_removed(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    kept = put(blobs, b"content")
    (tmp_path / "sha256" / "making" / "half").write_bytes(b"cont")
    assert blobs.remove_halves() == 1
    assert [kept] == list(blobs.iterate())
