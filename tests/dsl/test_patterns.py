"""Ignore patterns against a slow matcher that follows the rules word by word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.dsl.errors import InvalidError
from slipway.dsl.patterns import NEVER_SOURCE, NON_PYTHON_FILES, FilePatternMatcher, PatternSet, clean, inverted, parse


def slow_match(pattern: str, path: str) -> bool:
    """Whether one pattern matches a whole path, by trying every way to share the path out."""
    if not pattern:
        return not path
    if pattern.startswith("**/"):
        rest = pattern[3:]
        cuts = [0, *(i + 1 for i, char in enumerate(path) if char == "/")]
        return any(slow_match(rest, path[cut:]) for cut in cuts)
    if pattern.startswith("**"):
        return any(slow_match(pattern[2:], path[cut:]) for cut in range(len(path) + 1))
    if pattern.startswith("*"):
        stop = path.find("/") if "/" in path else len(path)
        return any(slow_match(pattern[1:], path[cut:]) for cut in range(stop + 1))
    if not path:
        return False
    if pattern.startswith("?"):
        return path[0] != "/" and slow_match(pattern[1:], path[1:])
    if pattern.startswith("["):
        inside, rest = pattern[1:].split("]", 1)
        wanted = path[0] not in inside[1:] if inside[0] == "^" else path[0] in inside
        return path[0] != "/" and wanted and slow_match(rest, path[1:])
    return pattern[0] == path[0] and slow_match(pattern[1:], path[1:])


def slow(patterns: list[str], path: str) -> bool:
    """The last pattern that matches the path or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    ignored = False
    for pattern in map(clean, patterns):
        if pattern and any(slow_match(pattern.lstrip("!"), p) for p in above):
            ignored = not pattern.startswith("!")
    return ignored


names = st.sampled_from(["a", "b", "ab", "a.b", ".a", "ba"])
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pieces = st.sampled_from(["a", "b", "*", "**", "?", "a*", "*b", ".*", "[ab]", "[^a]", "*.b", "a**b", "**a"])
patterns = st.builds(
    lambda keep, parts: keep + "/".join(parts), st.sampled_from(["", "", "!"]), st.lists(pieces, min_size=1, max_size=4)
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.lists(patterns, max_size=5), paths)
def test_like_the_slow_matcher(given_patterns: list[str], path: str) -> None:
    assert PatternSet(given_patterns).matches(path) == slow(given_patterns, path)


@settings(max_examples=200, deadline=None)
@given(st.lists(patterns, max_size=5), paths)
def test_inverted_is_the_opposite(given_patterns: list[str], path: str) -> None:
    cleaned = PatternSet(given_patterns).patterns
    assert PatternSet(inverted(cleaned)).matches(path) != PatternSet(cleaned).matches(path)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(patterns, max_size=5), paths, paths)
def test_pruning_loses_nothing(given_patterns: list[str], folder: str, below: str) -> None:
    found = PatternSet(given_patterns)
    if found.prunes(folder):
        assert found.matches(f"{folder}/{below}")


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("*.py", "a.py", True),
        ("*.py", "src/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "src/x/a.py", True),
        ("build", "build/out/a.o", True),
        ("/build/", "build/a", True),
        ("src/**", "src", False),
        ("src/**", "src/a/b", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("[a-c]x", "bx", True),
        ("[!a]x", "bx", True),
        ("[^a]x", "ax", False),
        ("a?c", "a/c", False),
        ("[^b]", "/", False),
        ("[]]", "]", True),
    ],
)
def test_rules(pattern: str, path: str, matched: bool) -> None:
    assert FilePatternMatcher(pattern)(path) is matched


def test_a_later_exception_wins() -> None:
    matcher = FilePatternMatcher("data", "!data/keep.csv", "data/keep.csv/x")
    assert [matcher(p) for p in ("data/a", "data/keep.csv", "data/keep.csv/x")] == [True, False, True]


@pytest.mark.parametrize("pattern", ["!", "[a", "[z-a]"])
def test_patterns_that_say_nothing(pattern: str) -> None:
    with pytest.raises(InvalidError):
        FilePatternMatcher(pattern)("x")


def test_only_strings() -> None:
    with pytest.raises(InvalidError, match="must be a string, not int"):
        FilePatternMatcher(3)  # type: ignore[arg-type]


def test_a_file_of_patterns_is_read_when_used(tmp_path: Path) -> None:
    file = tmp_path / ".dockerignore"
    matcher = FilePatternMatcher.from_file(file)
    file.write_text("# caches\n*.pyc\n\n!keep.pyc\n")
    assert parse(file.read_text()) == ("*.pyc", "!keep.pyc") == matcher.patterns
    assert [matcher(Path(p)) for p in ("a.pyc", "keep.pyc")] == [True, False]
    assert (~matcher).patterns == ("**", "!*.pyc", "keep.pyc")
    assert ~~matcher != matcher and (~~matcher).patterns == matcher.patterns


def test_a_missing_file_of_patterns() -> None:
    with pytest.raises(InvalidError, match=r"nowhere/\.dockerignore can't be read"):
        FilePatternMatcher.from_file("/nowhere/.dockerignore")("a")


def test_python_source() -> None:
    source = PatternSet((*NON_PYTHON_FILES.patterns, *NEVER_SOURCE))
    kept = [p for p in ("a.py", "p/b.py", "p/data.txt", ".git/h.py", "p/__pycache__/b.py") if not source.matches(p)]
    assert kept == ["a.py", "p/b.py"]
    assert source.prunes(".git") and source.prunes("p/__pycache__") and not source.prunes("p")
    assert repr(NON_PYTHON_FILES) == "~FilePatternMatcher('**/*.py')"
