"""Dockerfiles: their instructions, what they copy, what they stand on, and how that is pinned.

Nothing here waits, sleeps, opens or spawns. Read as Docker's classic builder reads them, which is the one that every
engine has: no here-documents, no `RUN --mount`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from posixpath import normpath

from attrs import evolve, frozen

WITH_FLAGS = ("FROM", "RUN", "COPY", "ADD", "HEALTHCHECK")
CONTINUED = re.compile(r"\\[ \t]*$")
DIRECTIVE = re.compile(r"#\s*([A-Za-z]+)\s*=\s*(.*?)\s*")
HEREDOC = re.compile(r"\d*<<(-?)([\"']?)([A-Za-z_][A-Za-z0-9_.]*)\2")
FLAG = re.compile(r"--([a-z-]+)(?:=(.*))?")
FROM = re.compile(r"(\S+)(?:\s+[Aa][Ss]\s+(\S+))?")
VARIABLE = re.compile(
    r"\\(?P<escaped>.)|\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::(?P<sign>[-+])(?P<word>[^}]*))?\})"
)
URL = re.compile(r"(https?|ftp|git|ssh)://|git@", re.IGNORECASE)
SCRATCH = "scratch"


@frozen(kw_only=True)
class Instruction:
    """One instruction: its name in capitals, its flags, and what follows them, on one line."""

    line: int
    name: str
    flags: tuple[tuple[str, str], ...] = ()
    rest: str = ""
    heredoc: bool = False  # a here-document followed it, which is left out

    def __str__(self) -> str:
        flags = (f"--{name}={value}" for name, value in self.flags)
        return " ".join((self.name, *flags, self.rest)).rstrip()


@frozen(kw_only=True)
class Dockerfile:
    """What was read. `escape` is the line of an escape character other than the usual one, if there is any."""

    instructions: tuple[Instruction, ...] = ()
    escape: int | None = None


# --- reading ------------------------------------------------------------------------------------------


def parse(text: str) -> Dockerfile:
    """Never raises; what is wrong with it `check_dockerfile` says.

    >>> for instruction in parse("FROM debian AS base\\nRUN apt-get update && \\\\\\n  apt-get clean").instructions:
    ...     print(instruction.line, instruction)
    1 FROM debian AS base
    2 RUN apt-get update &&   apt-get clean
    """
    lines = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    instructions: list[Instruction] = []
    at, escape = _directives(lines)
    while at < len(lines):
        first = at
        logical, at = _logical(lines, at)
        if logical is None:
            continue
        instruction = _instruction(logical, first + 1)
        here_document = _heredoc(instruction)
        if here_document is not None:
            at = _after_heredoc(lines, at, here_document)
        instructions.append(evolve(instruction, heredoc=here_document is not None))
    return Dockerfile(instructions=tuple(instructions), escape=escape)


def _directives(lines: list[str]) -> tuple[int, int | None]:
    """Past `# syntax=` and `# escape=` at the top, which are no comments; and where the escape isn't the usual one."""
    escape = None
    for at, line in enumerate(lines):
        found = DIRECTIVE.fullmatch(line.strip())
        if found is None:
            return at, escape
        if found[1].lower() == "escape" and found[2] != "\\":
            escape = at + 1
    return len(lines), escape


def _logical(lines: list[str], at: int) -> tuple[str | None, int]:
    """The instruction that starts at a line with the lines that it goes on over, and where the next one starts."""
    line = lines[at].lstrip()
    at += 1
    if not line or line.startswith("#"):
        return None, at
    text = ""
    while CONTINUED.search(line):
        text += CONTINUED.sub("", line)
        while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
            at += 1
        if at == len(lines):
            while CONTINUED.search(text):  # what is written out again must not go on either
                text = CONTINUED.sub("", text)
            return text.strip(), at
        line = lines[at]
        at += 1
    return (text + line).strip(), at


def _instruction(logical: str, line: int) -> Instruction:
    name, _, rest = logical.partition(" ") if " " in logical else logical.partition("\t")
    flags: list[tuple[str, str]] = []
    rest = rest.strip()
    while name.upper() in WITH_FLAGS and (found := FLAG.fullmatch(rest.split(maxsplit=1)[0] if rest else "")):
        flags.append((found[1], found[2] or ""))
        rest = rest[found.end() :].strip()
    return Instruction(line=line, name=name.upper(), flags=tuple(flags), rest=rest)


def _heredoc(instruction: Instruction) -> re.Match[str] | None:
    if instruction.name not in ("RUN", "COPY", "ADD"):
        return None
    return next((found for word in instruction.rest.split() if (found := HEREDOC.fullmatch(word))), None)


def _after_heredoc(lines: list[str], at: int, found: re.Match[str]) -> int:
    """Past a here-document's end, so that its lines are not taken for instructions."""
    for end in range(at, len(lines)):
        line = lines[end].lstrip("\t") if found[1] else lines[end]
        if line == found[3]:
            return end + 1
    return at


def arguments(rest: str) -> tuple[str, ...]:
    """The words of COPY and the like: a JSON list, or separated by spaces.

    >>> arguments('["my file", "/x"]'), arguments("a 'b' /x")
    (('my file', '/x'), ('a', 'b', '/x'))
    """
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except (ValueError, RecursionError):
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return tuple(_unquoted(word) for word in rest.split())


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word


# --- what it copies -----------------------------------------------------------------------------------


def copied(instructions: Iterable[Instruction]) -> tuple[tuple[int, str], ...]:
    """What COPY and ADD take from the context: (line, pattern for `PatternSet`), "." for all of it.

    >>> copied(parse("COPY ./src /etc/x? /to/\\nCOPY --from=b /y /y\\nADD https://e.org/z /z").instructions)
    ((1, 'src'), (1, 'etc/x?'))
    """
    return tuple(
        (instruction.line, pattern_of(source))
        for instruction in instructions
        if instruction.name in ("COPY", "ADD") and copied_from(instruction) is None
        for source in arguments(instruction.rest)[:-1]
        if "$" not in source and not URL.match(source)
    )


def pattern_of(source: str) -> str:
    """A source as a pattern of the context's paths; "." for all of it."""
    plain = normpath(source.lstrip("/") or ".")
    return "\\" + plain if plain.startswith("!") else plain


def copied_from(instruction: Instruction) -> str | None:
    return dict(instruction.flags).get("from")


# --- what it stands on --------------------------------------------------------------------------------


def images(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> tuple[str, ...]:
    """The images of registries that it names, in FROM and in COPY --from, each once.

    >>> found = parse("ARG V=3\\nFROM python:$V AS a\\nFROM a\\nCOPY --from=alpine:3 /x /x")
    >>> images(found, {}), images(found, {"V": "4"})
    (('python:3', 'alpine:3'), ('python:4', 'alpine:3'))
    """
    return tuple(dict.fromkeys(ref for _, ref in references(dockerfile.instructions, build_args) if ref))


def references(
    instructions: tuple[Instruction, ...], build_args: Mapping[str, str]
) -> Iterator[tuple[Instruction, str]]:
    """The instructions with the images of registries that they name; "" for a stage, or nothing."""
    args: dict[str, str] = {}
    stages: list[str] = []
    for instruction in instructions:
        ref = ""
        if instruction.name == "ARG" and not stages:
            args.update(_declared(instruction.rest, build_args, args))
        elif instruction.name == "FROM":
            found = FROM.fullmatch(instruction.rest)
            name = expand(found[1], args) if found else ""
            ref = "" if name in (SCRATCH, *stages) else name
            stages.append(found[2].lower() if found and found[2] else "")
        elif (source := copied_from(instruction)) is not None:
            ref = "" if source.lower() in stages or source.isdecimal() else source
        yield instruction, ref


def _declared(rest: str, build_args: Mapping[str, str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for word in rest.split():
        name, has_default, default = word.partition("=")
        if name in build_args:
            yield name, build_args[name]
        elif has_default:
            yield name, expand(_unquoted(default), known)


def expand(text: str, values: Mapping[str, str]) -> str:
    """With the values of variables; one that has none is nothing.

    >>> expand("python:${V:-3.12}-$W", {"W": "slim"})
    'python:3.12-slim'
    """

    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return found["escaped"]
        known = values.get(found["plain"] or found["name"], "")
        if found["sign"] == "+":
            return found["word"] if known else ""
        return known or (found["word"] or "" if found["sign"] else "")

    return VARIABLE.sub(value, text)


def pinned(text: str, build_args: Mapping[str, str], pins: Mapping[str, str]) -> str:
    """The text with each image of a registry by the name that pins it, without comments and directives.

    >>> print(pinned("# build\\nFROM python:3 AS a", {}, {"python:3": "python@sha256:12"}))
    FROM python@sha256:12 AS a
    """
    return "\n".join(
        str(_pinned(instruction, pins[ref]) if ref in pins else instruction)
        for instruction, ref in references(parse(text).instructions, build_args)
    )


def _pinned(instruction: Instruction, pin: str) -> Instruction:
    if instruction.name == "FROM":
        return evolve(instruction, rest=" ".join((pin, *instruction.rest.split()[1:])))
    return evolve(instruction, flags=tuple((n, pin if n == "from" else v) for n, v in instruction.flags))


# --- how processes start ------------------------------------------------------------------------------


@frozen(kw_only=True)
class Started:
    """How processes start in what the last stage gives, as far as its lines say; None: not said, or not to be known."""

    shell: tuple[str, ...] | None = None
    workdir: str | None = None


def started(text: str, before: Started | None = None) -> Started:
    """Fold SHELL and WORKDIR over the last stage.

    >>> started('WORKDIR /srv\\nWORKDIR app\\nSHELL ["/bin/bash", "-c"]')
    Started(shell=('/bin/bash', '-c'), workdir='/srv/app')
    """
    now = before or Started()
    stages: dict[str, Started] = {}
    name = ""
    for instruction in parse(text).instructions:
        if instruction.name == "FROM":
            stages[name] = now
            found = FROM.fullmatch(instruction.rest)
            now = stages.get(found[1].lower() if found else "", Started())
            name = found[2].lower() if found and found[2] else ""
        elif instruction.name == "SHELL":
            now = evolve(now, shell=arguments(instruction.rest) or None)
        elif instruction.name == "WORKDIR":
            now = evolve(now, workdir=_joined(now.workdir, _unquoted(instruction.rest)))
    return now


def _joined(folder: str | None, path: str) -> str | None:
    if "$" in path or "\\" in path or (folder is None and not path.startswith("/")):
        return None
    return normpath(path if path.startswith("/") else f"{folder}/{path}")
