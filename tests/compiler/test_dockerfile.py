"""Dockerfiles: read as Docker reads them, refused in words, and never with a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.compiler.check_dockerfile import INSTRUCTIONS, REFUSED, problems_of
from slipway.compiler.dockerfile import (
    Started,
    arguments,
    copied,
    expand,
    images,
    parse,
    pinned,
    started,
)

words = st.sampled_from(
    [
        *INSTRUCTIONS,
        *REFUSED,
        "#",
        "\\",
        "\n",
        "\\\n",
        " ",
        "a",
        "AS",
        "$V",
        "${V:-x}",
        "--from=a",
        "<<EOF",
        "EOF",
        '["a"',
    ]
)
texts = st.one_of(st.text(max_size=200), st.lists(words, max_size=40).map(" ".join), st.lists(words).map("".join))


@given(texts, st.booleans())
def test_any_text_is_read_or_refused_in_words(text: str, whole: bool) -> None:
    found = problems_of(text, {"V": "1"}, whole=whole)
    assert all(problem.summary and problem.line >= 1 for problem in found)
    read = parse(text)
    images(read, {})
    copied(read.instructions)
    started(text)
    again = pinned(text, {}, {})
    assert pinned(again, {}, {}) == again or found


def lines(text: str) -> list[tuple[int, str]]:
    return [(instruction.line, str(instruction)) for instruction in parse(text).instructions]


def test_comments_continuations_and_directives() -> None:
    text = (
        "# syntax=docker/dockerfile:1\n# escape=\\\n\n# words\nfrom debian\r\n"
        "run apt-get update && \\  \n  # why\n\n  apt-get clean \\\n  && true\n  # more\nCMD"
    )
    assert lines(text) == [
        (5, "FROM debian"),
        (6, "RUN apt-get update &&   apt-get clean   && true"),
        (12, "CMD"),
    ]
    assert lines("RUN a \\") == lines("RUN a \\\\") == [(1, "RUN a")]
    assert [(p.line, p.summary) for p in problems_of("# escape=`\nFROM a", {}, whole=True)] == [
        (1, "only \\ can be the escape character")
    ]


@pytest.mark.parametrize(
    ("text", "line", "summary", "hint"),
    [
        ("", 1, "the first instruction must be FROM", "FROM debian"),
        ("ARG A\nRUN x", 2, "the first instruction must be FROM", "FROM debian"),
        ("FROM a\nVOLUME /x", 2, "VOLUME is not supported", "mount a volume"),
        ("FROM a\nONBUILD RUN x", 2, "ONBUILD is not supported", "itself"),
        ("FROM a\nSTOPSIGNAL 9", 2, "STOPSIGNAL is not supported", "own way"),
        ("FROM a\nRUM x", 2, "there is no such instruction", 'Did you mean "RUN"?'),
        ("FROM a\nRUN", 2, "RUN says nothing", "Leave the line out"),
        ("FROM a\nRUN cat <<EOF\nVOLUME /x\nEOF\nRUN true", 2, "here-documents need BuildKit", "&&"),
        ("FROM a\nRUN --mount=type=cache,target=/c x", 2, "RUN --mount needs BuildKit", "run_commands"),
        ("FROM a\nCOPY --chmod=755 a /b", 2, "COPY --chmod needs BuildKit", "chmod"),
        ("FROM a\nCOPY a", 2, "COPY needs a source and a place", "COPY src /app"),
        ("FROM a\nCOPY $X /b", 2, "a source holds a variable", "Write the path out"),
        ("FROM a\nCOPY ../x /b", 2, "../x lies outside of the context", 'context_dir=".."'),
        ("FROM a\nCOPY [x /b", 2, "the ignore pattern '[x'", ""),
        ("FROM a AS 1x", 1, "this can't name a stage", "small letters"),
        ("FROM a b", 1, "FROM can't be read", "FROM image AS name"),
        ("ARG V\nFROM $V", 2, "FROM names a variable that has no value", "build_args"),
        ("FROM a\nRUN a\0b", 2, "RUN holds a NUL", "text"),
    ],
)
def test_what_stands_in_the_way_is_said_with_its_line(text: str, line: int, summary: str, hint: str) -> None:
    (problem,) = problems_of(text, {}, whole=True)
    assert problem.line == line
    assert problem.summary.startswith(summary)
    assert hint in problem.hint


def test_all_problems_at_once_in_order() -> None:
    found = problems_of("RUN true\nVOLUME /x\nCOPY a\n", {}, whole=True)
    assert [problem.line for problem in found] == [1, 2, 3]


def test_here_strings_and_shifts_are_no_here_documents() -> None:
    assert problems_of("FROM a\nRUN cat <<<x && echo $((1<<2)) $((x<<y))\n", {}, whole=True) == ()


def test_what_is_copied() -> None:
    text = 'FROM a\nCOPY --chown=1:1 . /x\nADD ["a b", "c/", "/d"]\nCOPY !odd /x\nCOPY --from=0 q /q\nADD git@h:r /r\n'
    assert copied(parse(text).instructions) == ((2, "."), (3, "a b"), (3, "c"), (4, "\\!odd"))
    assert arguments("'a' \"b\" /c") == ("a", "b", "/c")
    assert arguments('["a", 1]') == ('["a",', "1]")


STAGES = """ARG VERSION=3.12
ARG KIND=slim
FROM --platform=linux/amd64 python:${VERSION}-$KIND AS Build
ARG VERSION
RUN pip install x
FROM build AS more
FROM scratch
COPY --from=Build /a /a
COPY --from=0 /b /b
COPY --from=busybox:1 --chown=1 /c /c
"""


def test_what_it_stands_on_and_how_that_is_pinned() -> None:
    read = parse(STAGES)
    assert images(read, {}) == ("python:3.12-slim", "busybox:1")
    assert images(read, {"VERSION": "3.13"}) == ("python:3.13-slim", "busybox:1")
    text = pinned(STAGES, {}, {"python:3.12-slim": "python@sha256:1", "busybox:1": "sha256:2"})
    assert text.splitlines()[2] == "FROM --platform=linux/amd64 python@sha256:1 AS Build"
    assert text.splitlines()[-1] == "COPY --from=sha256:2 --chown=1 /c /c"
    assert images(parse(text), {}) == ("python@sha256:1", "sha256:2")


@pytest.mark.parametrize(
    ("text", "value"),
    [("$A/${A}", "1/1"), ("${B:-2}${A:+3}${B:+4}", "23"), ("\\$A", "$A"), ("$B", ""), ("${A:-x}", "1"), ("$$", "$$")],
)
def test_variables(text: str, value: str) -> None:
    assert expand(text, {"A": "1"}) == value


def test_how_processes_start_afterwards() -> None:
    assert started("RUN x", Started(shell=("/s",), workdir="/w")) == Started(shell=("/s",), workdir="/w")
    assert started("WORKDIR app", Started(workdir="/srv")).workdir == "/srv/app"
    assert started("WORKDIR app").workdir is None
    assert started("WORKDIR $X", Started(workdir="/srv")).workdir is None
    text = 'FROM a AS one\nSHELL ["/bin/bash", "-c"]\nWORKDIR /one\nFROM b\nWORKDIR /two\nFROM one\nWORKDIR x'
    assert started(text) == Started(shell=("/bin/bash", "-c"), workdir="/one/x")
