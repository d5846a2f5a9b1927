"""What a Dockerfile may copy: what it names, without what is ignored, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slipway.context import Lines, find_context, read_dockerfile
from slipway.dsl.declaration import Origin
from slipway.dsl.errors import InvalidError
from slipway.dsl.patterns import FilePatternMatcher

HERE = Origin(file="app.py", line=7)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "context"
    for name in ("src/a.py", "src/deep/b.py", "src/deep/b.pyc", "data/x.csv", "data/y.csv", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return folder


def found(context: Path, text: str, ignore: Any = None, file: Path | None = None, **more: Any) -> list[str]:
    lines = Lines(text=text, origin=HERE, address="image i", file=file)
    context_found = find_context(lines, context, ignore, **more)
    assert context_found.faults == ()
    return list(context_found.source.only or ()) if context_found.source is not None else []


def test_only_what_is_named_is_in_it(context: Path) -> None:
    assert found(context, "RUN true") == []
    assert found(context, "COPY src /src") == ["src/a.py", "src/deep/b.py", "src/deep/b.pyc"]
    assert found(context, "COPY ./src/deep/ README.md /x/") == ["README.md", "src/deep/b.py", "src/deep/b.pyc"]
    assert found(context, "ADD da*/?.csv /x/") == ["data/x.csv", "data/y.csv"]
    assert found(context, "COPY src/* /x/") == ["src/a.py", "src/deep/b.py", "src/deep/b.pyc"]
    assert len(found(context, "COPY . /x")) == 6
    assert found(context, "COPY --from=other /y /y") == []


def test_ignore_files_in_their_order(context: Path, tmp_path: Path) -> None:
    file = context / "Dockerfile"
    (tmp_path / ".dockerignore").write_text("**/*.csv\n")
    assert found(context, "COPY . /x/") == ["README.md", "src/a.py", "src/deep/b.py", "src/deep/b.pyc"]
    (context / ".dockerignore").write_text("# caches\n**/*.pyc\n")
    assert found(context, "COPY src /x/", file=file) == ["src/a.py", "src/deep/b.py"]
    (context / "Dockerfile.dockerignore").write_text("src\n!src/a.py\n")
    assert found(context, "COPY src /x/", file=file) == ["src/a.py"]
    assert found(context, "COPY src /x/", ignore=()) == ["src/a.py", "src/deep/b.py", "src/deep/b.pyc"]
    assert found(context, "COPY src /x/", ignore=FilePatternMatcher("**/b.*")) == ["src/a.py"]
    assert found(context, "COPY src /x/", ignore=lambda path: path.suffix == ".py") == ["src/deep/b.pyc"]


def test_links_stay_within(context: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (context / "src/out").symlink_to(tmp_path / "secret")
    (context / "src/in").symlink_to("../data")
    (context / "src/gone").symlink_to("nothing")
    names = found(context, "COPY src /x")
    assert "src/out" not in names
    assert {"src/in", "src/gone", "data/x.csv", "data/y.csv"} <= set(names)


@pytest.mark.parametrize("source", ["out", "out/secret", "out/*", "./out/sec*", "src/../out/secret", "one"])
def test_no_link_is_a_way_out(context: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_text("s")
    (context / "out").symlink_to(tmp_path / "elsewhere")
    (context / "one").symlink_to(tmp_path / "elsewhere/secret")
    lines = Lines(text=f"COPY {source} /x/", origin=HERE, address="image i")
    context_found = find_context(lines, context, None)
    assert context_found.source is None
    (fault,) = context_found.faults
    assert fault.found.endswith("leads out of it by a link")


def test_what_lies_above_is_not_even_looked_for(context: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    assert found(context, "COPY ../secret ../context/src /x/") == []


def test_a_linked_folder_within_is_gone_through(context: Path, tmp_path: Path) -> None:
    (context / "in").symlink_to("data")
    (context / "data/out").symlink_to(tmp_path)
    assert found(context, "COPY in/x.csv /x/") == ["in/x.csv"]
    assert found(context, "COPY in /x") == ["data/x.csv", "data/y.csv", "in"]


def test_a_name_that_is_not_utf8_is_said(context: Path) -> None:
    (context / "src/caf\udce9").write_text("")
    (context / "src/caf\u00e9\nnew").write_text("")
    with pytest.raises(InvalidError, match=r"app\.py:7: the name of b'.*/src/caf\\xe9' is not UTF-8"):
        found(context, "COPY src /x")
    assert "src/caf\u00e9\nnew" in found(context, "COPY src /x", ignore=("src/caf?",))


def test_what_names_nothing_is_said_with_its_line(context: Path) -> None:
    (context / ".dockerignore").write_text("data\n")
    file = context / "Dockerfile"
    lines = Lines(text="FROM a\nCOPY nosuch /x\nCOPY data /y\n", origin=HERE, address="image i", file=file)
    first, second = find_context(lines, context, None).faults
    assert (str(first.origin), first.summary) == (f"{file}:2", "nothing in the context is called nosuch")
    assert (second.origin.line, second.found) == (3, f"{context / 'data'} is ignored")
    in_app = Lines(text="COPY a.txt /x\nCOPY b.txt /y", origin=HERE, address="image i")
    (fault,) = find_context(in_app, context, None, elsewhere=("/a.txt",)).faults
    assert (str(fault.origin), fault.summary) == ("app.py:7", "nothing in the context is called b.txt")


def test_an_ignore_function_that_fails_is_said(context: Path) -> None:
    with pytest.raises(InvalidError, match="ZeroDivisionError"):
        found(context, "COPY src /x", ignore=lambda path: 1 / 0)


def test_dockerfiles_that_cannot_be_read(tmp_path: Path) -> None:
    for name, data, word in (("empty", b" \n", "is empty"), ("latin", b"FROM a\n# \xff", "not UTF-8")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidError, match=word):
            read_dockerfile(str(tmp_path / name), HERE)
    with pytest.raises(InvalidError, match=r"app\.py:7: the Dockerfile .* can't be read: No such file"):
        read_dockerfile(str(tmp_path / "nosuch"), HERE)
    with pytest.raises(InvalidError, match="Is a directory"):
        read_dockerfile(str(tmp_path), HERE)
