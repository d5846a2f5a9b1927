"""The dependency lists of a pyproject.toml: the only part of it that a layer depends on.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import tomllib
from attrs import frozen


@frozen(kw_only=True)
class Unusable:
    """Why the file gives no dependencies, and what to do."""

    summary: str
    found: str = ""
    hint: str


def dependencies(text: str, extras: tuple[str, ...]) -> tuple[str, ...] | Unusable:
    """`[project.dependencies]` and the named optional groups, sorted.

    >>> dependencies('[project]\\ndependencies = ["numpy<2", "attrs"]', ())
    ('attrs', 'numpy<2')
    """
    try:
        project: Any = tomllib.loads(text).get("project")
    except tomllib.TOMLDecodeError as error:
        return Unusable(summary="pyproject.toml is not valid TOML", found=str(error), hint="Correct the file.")
    listed = project.get("dependencies") if isinstance(project, dict) else None
    if listed is None:
        return Unusable(
            summary="pyproject.toml has no [project.dependencies]",
            found=f"tables: {', '.join(project) if isinstance(project, dict) else 'no [project]'}",
            hint='Add: [project]\ndependencies = ["…"]  or name the packages in pip_install(…).',
        )
    groups = project.get("optional-dependencies", {})
    lists = [("dependencies", listed)]
    for extra in extras:
        if not isinstance(groups, dict) or extra not in groups:
            return _no_group(extra, list(groups) if isinstance(groups, dict) else [])
        lists.append((extra, groups[extra]))
    for name, items in lists:
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            return Unusable(
                summary=f"pyproject.toml: {name} is not a list of texts",
                found=repr(items)[:80],
                hint=f'Write it as: {name} = ["numpy<2", "attrs"]',
            )
    return tuple(sorted({item.strip() for _, items in lists for item in items}))


def _no_group(extra: str, there: list[str]) -> Unusable:
    close = get_close_matches(extra, there, n=1)
    return Unusable(
        summary=f"pyproject.toml has no optional dependencies called {extra!r}",
        found=f"groups: {', '.join(there) or 'none'}",
        hint=f"Did you mean {close[0]!r}?" if close else "Name one of the groups, or add it to the file.",
    )
