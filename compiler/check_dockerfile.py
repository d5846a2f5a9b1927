"""What stands in the way of building a Dockerfile, with its lines.

Nothing here waits, sleeps, opens or spawns. Judged by Docker's classic builder, which is the one that every engine has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from posixpath import normpath

from attrs import frozen

from slipway.dsl.errors import InvalidError
from slipway.dsl.patterns import PatternSet

from .dockerfile import FROM, URL, Dockerfile, Instruction, arguments, copied_from, parse, pattern_of, references
from .faults import did_you_mean

INSTRUCTIONS = (
    *("FROM", "RUN", "CMD", "LABEL", "MAINTAINER", "EXPOSE", "ENV", "ADD", "COPY", "ENTRYPOINT", "USER", "WORKDIR"),
    *("ARG", "HEALTHCHECK", "SHELL"),
)
REFUSED = {
    "ONBUILD": "Write the instruction itself in the Dockerfile that it is meant for.",
    "STOPSIGNAL": "Leave it out: workers are asked to end in Slipway's own way.",
    "VOLUME": "Leave it out, and mount a volume: @app.function(volumes={…}).",
}
# What an instruction may carry; BuildKit alone knows the others.
FLAGS = {"FROM": ("platform",), "COPY": ("from", "chown"), "ADD": ("chown",), "HEALTHCHECK": None}
BUILDKIT_HINTS = {
    "mount": "For a secret or a cache use run_commands(…, secrets=[…]), where both are there.",
    "chmod": "Set the mode with a RUN chmod after it, or on the file itself.",
}
STAGE = re.compile(r"[a-z][a-z0-9_.-]*")


@frozen(kw_only=True)
class Problem:
    """Why a Dockerfile can't be built; `line` counts from 1."""

    line: int
    summary: str
    found: str = ""
    hint: str = ""


def problems_of(text: str, build_args: Mapping[str, str], *, whole: bool) -> tuple[Problem, ...]:
    """All that stands in the way of building it; without `whole` these are lines that stand on an image.

    >>> [problem.summary for problem in problems_of("RUN true", {}, whole=True)]
    ['the first instruction must be FROM']
    """
    read = parse(text)
    found = [problem for instruction in read.instructions for problem in _problems(instruction)]
    found += _stage_problems(read, build_args) if whole else _lines_problems(read)
    if read.escape is not None:
        hint = "Leave the line out, and use \\ at the end of lines that go on."
        found.append(Problem(line=read.escape, summary="only \\ can be the escape character", hint=hint))
    return tuple(sorted(found, key=lambda problem: problem.line))


def _problems(instruction: Instruction) -> Iterator[Problem]:
    """What is wrong with one instruction by itself."""
    name, line = instruction.name, instruction.line
    if name in REFUSED:
        yield Problem(line=line, summary=f"{name} is not supported", found=str(instruction)[:80], hint=REFUSED[name])
        return
    if name not in INSTRUCTIONS:
        hint = did_you_mean(name, INSTRUCTIONS, f"There are {', '.join(INSTRUCTIONS)}.")
        yield Problem(line=line, summary="there is no such instruction", found=f"{name!r:.60}", hint=hint)
        return
    if "\0" in instruction.rest:
        yield Problem(line=line, summary=f"{name} holds a NUL", hint="A Dockerfile is text.")
    if not instruction.rest:
        yield Problem(line=line, summary=f"{name} says nothing", hint="Leave the line out, or say what it is about.")
    if instruction.heredoc:
        hint = "Join the commands with && and \\, or put them into a file that is copied."
        yield Problem(line=line, summary="here-documents need BuildKit", found=str(instruction)[:80], hint=hint)
        return
    known = FLAGS.get(name, ())
    for flag, _ in instruction.flags:
        if known is not None and flag not in known:
            hint = BUILDKIT_HINTS.get(flag, "Leave it out.")
            yield Problem(line=line, summary=f"{name} --{flag} needs BuildKit", found=str(instruction)[:80], hint=hint)
    if name in ("COPY", "ADD"):
        yield from _copy_problems(instruction)


def _copy_problems(instruction: Instruction) -> Iterator[Problem]:
    line, found = instruction.line, str(instruction)[:120]
    words = arguments(instruction.rest)
    if len(words) < 2:
        hint = f"For example: {instruction.name} src /app"
        yield Problem(line=line, summary=f"{instruction.name} needs a source and a place", found=found, hint=hint)
        return
    if copied_from(instruction) is not None:
        return
    for source in words[:-1]:
        plain = normpath(source.lstrip("/") or ".")
        if "$" in source:
            hint = "Write the path out: what is copied must be known before the build."
            yield Problem(line=line, summary="a source holds a variable", found=found, hint=hint)
        elif not URL.match(source) and (plain == ".." or plain.startswith("../")):
            hint = 'Give a context_dir= that has it: context_dir=".."' if "../.." not in plain else "Move it there."
            yield Problem(line=line, summary=f"{source} lies outside of the context", found=found, hint=hint)
        else:
            try:
                PatternSet((pattern_of(source),))
            except InvalidError as error:
                yield Problem(line=line, summary=error.message, found=found, hint=error.hint)


def _lines_problems(read: Dockerfile) -> Iterator[Problem]:
    if not read.instructions:
        yield Problem(line=1, summary="there is no instruction", hint='For example: dockerfile_commands("RUN true")')
    for instruction in read.instructions:
        if instruction.name == "FROM":
            hint = "Leave it out; for a Dockerfile with stages use Image.from_dockerfile."
            summary = "the lines stand on the image already"
            yield Problem(line=instruction.line, summary=summary, found=str(instruction), hint=hint)


def _stage_problems(read: Dockerfile, build_args: Mapping[str, str]) -> Iterator[Problem]:
    first = next((i for i in read.instructions if i.name != "ARG"), None)
    if first is None or first.name != "FROM":
        line, found = (first.line, str(first)[:80]) if first else (1, "")
        hint = "Say what it stands on: FROM debian:bookworm-slim"
        yield Problem(line=line, summary="the first instruction must be FROM", found=found, hint=hint)
    for instruction, ref in references(read.instructions, build_args):
        if instruction.name != "FROM" or not instruction.rest:
            continue
        found_from = FROM.fullmatch(instruction.rest)
        if found_from is None:
            hint = "Write it as FROM image, or FROM image AS name."
            yield Problem(line=instruction.line, summary="FROM can't be read", found=str(instruction)[:80], hint=hint)
        elif found_from[2] and not STAGE.fullmatch(found_from[2].lower()):
            hint = "Names of stages are small letters, digits, '-', '_' and '.'."
            yield Problem(line=instruction.line, summary="this can't name a stage", found=found_from[2], hint=hint)
        elif "$" in found_from[1] and not ref:
            hint = "Give it a default: ARG NAME=value, before the first FROM, or build_args={…}."
            summary = "FROM names a variable that has no value"
            yield Problem(line=instruction.line, summary=summary, found=str(instruction)[:80], hint=hint)
