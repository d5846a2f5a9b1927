"""What differs between two values of one class, in the user's words: `timeout: 300 s → 600 s`, `packages: + "numpy<2"`.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from .titles import shorten

SECONDS, THOUSANDTHS, MIB = "_ms", "_milli", "_mib"


def differences(old: object, new: object, name: str = "") -> tuple[str, ...]:
    """One line for each field of the identity that differs, down to the innermost.

    >>> from slipway.dsl.declaration import AptInstall
    >>> differences(AptInstall(packages=("git",)), AptInstall(packages=("git", "curl")))
    ('packages: + "curl"',)
    """
    return tuple(_differences(old, new, name))


def _differences(old: Any, new: Any, name: str) -> Iterator[str]:
    if type(old) is type(new) and attrs.has(type(new)):
        for attribute in attrs.fields(type(new)):
            before, after = getattr(old, attribute.name), getattr(new, attribute.name)
            if attribute.eq and before != after:
                yield from _differences(before, after, attribute.name)
    elif isinstance(old, tuple) and isinstance(new, tuple):
        yield from _items(old, new, name)
    elif isinstance(old, str) and isinstance(new, str) and ("\n" in old or "\n" in new):
        yield _line(old, new, name)
    elif old != new:
        yield f"{_word(name)}: {_value(old, name)} → {_value(new, name)}"


def _items(old: tuple[Any, ...], new: tuple[Any, ...], name: str) -> Iterator[str]:
    """What came, what went, and, where it is a table of names, what changed of each."""
    if _is_table(old) and _is_table(new):
        before, after = dict(old), dict(new)
        for key in sorted(before.keys() | after.keys()):
            if key not in before:
                yield f"{_word(name)}: + {key} = {_value(after[key], '')}"
            elif key not in after:
                yield f"{_word(name)}: - {key}"
            else:
                yield from _differences(before[key], after[key], key)
        if before == after:
            yield f"{_word(name)}: the order changed"
        return
    if _is_named(old) and _is_named(new):
        yield from _named(old, new)
        return
    before_set, after_set = set(old), set(new)
    gone = [item for item in dict.fromkeys(old) if item not in after_set]
    come = [item for item in dict.fromkeys(new) if item not in before_set]
    if len(gone) == len(come) == 1 and attrs.has(type(come[0])):
        yield from _differences(gone[0], come[0], name)
        return
    yield from (f"{_word(name)}: - {_value(item, name)}" for item in gone)
    yield from (f"{_word(name)}: + {_value(item, name)}" for item in come)
    if not gone and not come:
        yield f"{_word(name)}: the order changed"


def _named(old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[str]:
    """`method added: embed`, `parameter size: default: "small" → "large"`."""
    before, after = {item.name: item for item in old}, {item.name: item for item in new}
    yield from (f"{item.KIND} removed: {name}" for name, item in before.items() if name not in after)
    yield from (f"{item.KIND} added: {name}" for name, item in after.items() if name not in before)
    for name in (name for name in after if name in before):
        for line in _differences(before[name], after[name], name):
            yield f"{after[name].KIND} {name}: {line}"
    if before.keys() == after.keys() and list(before) != list(after):
        yield f"the order of its {old[0].KIND}s changed"


def _is_named(items: tuple[Any, ...]) -> bool:
    """Whether things with names of their own, each once, stand there; nothing at all may be any of them."""
    named = all(attrs.has(type(item)) and hasattr(item, "name") for item in items)
    return named and len({item.name for item in items}) == len(items)


def _is_table(items: tuple[Any, ...]) -> bool:
    pairs = all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items)
    return bool(items) and pairs and len({item[0] for item in items}) == len(items)


def _line(old: str, new: str, name: str) -> str:
    """The first line in which two texts differ."""
    before, after = old.splitlines(), new.splitlines()
    for number, (was, now) in enumerate(zip(before, after, strict=False), start=1):
        if was != now:
            return f"{_word(name)}: line {number}: {_value(was.strip(), '')} → {_value(now.strip(), '')}"
    short = min(len(before), len(after))
    if len(before) == len(after):
        return f"{_word(name)}: the end of a line changed"
    more, sign = (after, "+") if len(after) > len(before) else (before, "-")
    return f"{_word(name)}: line {short + 1}: {sign} {_value(more[short].strip(), '')}"


def _word(name: str) -> str:
    for unit in (SECONDS, THOUSANDTHS, MIB):
        name = name.removesuffix(unit)
    return name


def _value(value: Any, name: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if name.endswith(SECONDS):
            return f"{value / 1000:g} s" if value % 1000 == 0 else f"{value} ms"
        if name.endswith(THOUSANDTHS):
            return f"{value / 1000:g}"
        return f"{value} MiB" if name.endswith(MIB) else str(value)
    if isinstance(value, str):
        return f'"{shorten(value)}"'
    if isinstance(value, tuple):
        return shorten("(" + ", ".join(_value(item, name) for item in value) + ")")
    if attrs.has(type(value)):
        return _object(value)
    return str(value)


def _object(value: Any) -> str:
    """A value by the fields that are not at their default."""
    parts = []
    for attribute in attrs.fields(type(value)):
        item = getattr(value, attribute.name)
        if attribute.eq and item != attribute.default:
            parts.append(f"{_word(attribute.name)} {_value(item, attribute.name)}")
    return shorten(f"{value.KIND.removesuffix('_decl')} ({', '.join(parts)})" if parts else value.KIND)
