"""The list of rules and the tests are about the same things."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from model_rules import RULES

HERE = Path(__file__).parent


def marked() -> Iterator[tuple[str, tuple[str, ...], set[str]]]:
    """Each test of a rule: its name, the rules, and the fixtures that it takes."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "rule":
                    rules = tuple(ast.literal_eval(argument) for argument in decorator.args)
                    yield f"{path.stem}.{node.name}", rules, {argument.arg for argument in node.args.args}


def test_every_rule_is_tested_or_waits_for_its_release() -> None:
    tested = {rule for _, rules, _ in marked() for rule in rules}
    built = {rule.name for rule in RULES if not rule.later}
    assert built - tested == set(), "built, and no test shows it"
    assert tested - built == set(), "tested, and not in the list of what is built"


def test_the_list_has_every_number_and_says_each_rule_once() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {f"8.{number}" for number in range(1, 26)} <= set(names)
    assert sum(rule.star for rule in RULES) >= 30


def test_every_test_of_a_rule_runs_on_both_runtimes() -> None:
    assert [name for name, _, fixtures in marked() if "home" not in fixtures] == []


def test_every_test_here_says_which_rules_it_shows() -> None:
    said = {name for name, _, _ in marked()}
    written = {
        f"{path.stem}.{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert {name for name in written - said if not name.startswith("test_rules.")} == set()
