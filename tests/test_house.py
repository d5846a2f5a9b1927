"""The house keeps its order: floors, pure files, packages, sizes. Read from the sources, lazy imports too."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("dsl", "compiler", "executor", "schedules", "endpoints", "client", "cli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
SOURCES = tuple(sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")))
CHECKED = (*SOURCES, *sorted(path for name in ("examples", "scripts") for path in (ROOT / name).glob("*.py")))

PURE_FLOORS = ("compiler",)
PURE_WORD = "Nothing here waits, sleeps, opens or spawns."
PURE_FILES = (
    "executor/solver.py",
    "executor/lifecycle.py",
    *("executor/actions.py", "executor/attempts.py", "executor/placement.py", "executor/retrying.py"),
    *("executor/scaling.py", "executor/seats.py", "executor/workforce.py"),
    "executor/keep.py",
    "executor/worker/frames.py",
    "executor/worker/logs.py",
    "cli/render.py",
)
PURE_PARTS = {"urllib.parse"}  # of packages that do more
IMPURE = {
    *("os", "io", "socket", "select", "selectors", "signal", "subprocess", "multiprocessing", "threading", "asyncio"),
    *("time", "tempfile", "shutil", "pathlib", "glob", "random", "secrets", "uuid", "sqlite3", "urllib", "http"),
    *("mmap", "fcntl", "queue", "concurrent", "logging", "platform", "locale", "getpass", "pwd", "ctypes"),
    *("docker", "pynvml", "apscheduler", "starlette", "uvicorn", "anyio", "psutil", "rich", "click", "uvloop"),
}
# A third-party library that does I/O is known to one file; what else is used of the standard library, likewise.
ONE_FILE = {
    "docker": {"executor/runtime/docker.py"},
    "botocore": {"executor/runtime/docker_keys.py"},
    "pynvml": {"executor/runtime/gpus.py"},
    "apscheduler": {"schedules/service.py"},
    "sqlite3": {
        *("executor/store/state.py", "executor/store/database.py", "executor/store/migrations.py"),
        *("executor/store/call_writes.py", "executor/store/call_reads.py"),
    },
    "starlette": {"endpoints/gateway.py", "endpoints/control.py"},
    "uvicorn": {"endpoints/gateway.py", "cli/daemon.py"},
    "uvloop": {"cli/daemon.py"},
    "cryptography": {"executor/store/seal.py"},
    "networkx": {"compiler/graph.py"},
}
SIGNS = set("±→←·…–—×≤≥≠│┌┐└┘├┤┬┴┼─█░✓✗é▴▸")  # the plan's signs, and what prose needs


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def imports_of(path: Path) -> tuple[tuple[str, int], ...]:
    """Absolute names of all that a file imports, anywhere in it, with lines; relative ones made absolute."""
    found: list[tuple[str, int]] = []
    package = package_of(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            found.append((base, node.lineno))
            if base == "slipway":
                found += [(f"slipway.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def package_of(path: Path) -> str:
    folder = path.parent.relative_to(ROOT).as_posix()
    return next((package for package, place in PACKAGES.items() if place == folder), folder)


def floor_of(module: str) -> str | None:
    """The floor that a module of ours is on; what is not a sub-package is the client's. `slipway` itself is on none:
    it is loaded with whatever is below it, and light."""
    if not module.startswith("slipway."):
        return None
    part = module.split(".")[1]
    return part if part in FLOORS else "client"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_floor_imports_only_the_floors_before_it(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    wrong = [f"line {line}: {name}" for name, line in imports_of(path) if (floor_of(name) or floor) not in allowed]
    assert wrong == []


# Two places start something of a later floor by name: the worker its way to call others, a program the daemon.
BY_NAME = {"executor/launch.py": {"slipway.session"}, "client/engine_client.py": {"slipway.cli.daemon"}}
MODULES = {f"{package_of(path)}.{path.stem}" for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_later_floor_is_not_named_in_a_string_either(path: Path) -> None:
    allowed = FLOORS[: FLOORS.index(path.relative_to(ROOT).parts[0]) + 1]
    texts = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
    named = {text.partition(":")[0] for text in texts if isinstance(text, str)} & MODULES
    assert {name for name in named if floor_of(name) not in allowed} == BY_NAME.get(name_of(path), set())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_neighbour_is_imported_relatively(path: Path) -> None:
    if name_of(path) == "executor/worker/main.py":
        return  # a program, started by its path: it is in no package
    asked = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.module in MODULES]
    assert [n.lineno for n in asked if not n.level and str(n.module).rpartition(".")[0] == package_of(path)] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_floor_is_imported_past_its_package(path: Path) -> None:
    """`import dsl` would make every class twice."""
    assert [name for name, _ in imports_of(path) if name.split(".")[0] in FLOORS] == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_library_that_does_io_is_known_to_one_file(path: Path) -> None:
    wrong = [
        name for name, _ in imports_of(path) if name_of(path) not in ONE_FILE.get(name.split(".")[0], {name_of(path)})
    ]
    assert wrong == []


def pure_files() -> list[Path]:
    whole = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PURE_FLOORS]
    said = [path for path in SOURCES if PURE_WORD in path.read_text() and path not in whole]
    return whole + said


@pytest.mark.parametrize("path", pure_files(), ids=name_of)
def test_a_pure_file_stays_pure(path: Path) -> None:
    asked = [(name, line) for name, line in imports_of(path) if name not in PURE_PARTS]
    wrong = [f"line {line}: {name}" for name, line in asked if name.split(".")[0] in IMPURE]
    assert wrong == []
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert [node.lineno for node in calls if getattr(node.func, "id", "") in {"open", "print", "input"}] == []


@pytest.mark.parametrize("name", PURE_FILES)
def test_the_files_that_are_pure_by_design_say_so(name: str) -> None:
    path = ROOT / name
    assert PURE_WORD in path.read_text()


def test_the_floor_dsl_needs_little() -> None:
    """It runs in every user's container: only attrs, cloudpickle and the standard library."""
    allowed = {"attrs", "attr", "cloudpickle", "slipway", "__future__", *sys.stdlib_module_names}
    for path in (ROOT / "dsl").glob("*.py"):
        assert {name.split(".")[0] for name, _ in imports_of(path)} <= allowed, name_of(path)


# --- packages -----------------------------------------------------------------------------------------


def test_every_folder_of_code_is_a_package_that_is_shipped() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES}
    assert folders == set(PACKAGES.values())
    assert sorted(PACKAGES) == sorted(PROJECT["tool"]["setuptools"]["packages"])


def test_no_folder_at_the_root_hides_the_package() -> None:
    assert not (ROOT / "slipway").exists()


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_cannot_be_imported_by_its_folder(floor: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {floor}"], cwd=tmp_path, capture_output=True, text=True)
    assert f"No module named '{floor}'" in done.stderr


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


HEAVY = {"networkx", "docker", "apscheduler", "starlette", "uvicorn", "rich", "cryptography", "numpy", "psutil"}


def test_importing_slipway_is_light() -> None:
    assert loaded_by("import slipway; slipway.App, slipway.Image, slipway.Volume") & (HEAVY | {"click"}) == set()


def test_help_imports_only_click() -> None:
    assert loaded_by("from slipway.cli.main import main; main(['--help'])") & (HEAVY | {"attrs", "asyncio"}) == set()


def test_a_plan_imports_no_engine() -> None:
    statement = "import slipway.cli.plan, slipway.cli.render, slipway.loader, slipway.runner, slipway.engine_client"
    assert loaded_by(statement) & HEAVY == set()


# --- manners ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_file_says_what_it_is_and_fits_a_sitting(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module has a one-line docstring"


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_function_fits_a_screen(path: Path) -> None:
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {node.name: node.end_lineno - node.lineno for node in functions if node.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines >= 50} == {}


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_only_known_signs_besides_ascii(path: Path) -> None:
    assert {sign for sign in path.read_text() if ord(sign) > 127} - SIGNS == set()


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_broad_except_carries_its_reason(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "BaseException"
        again = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        if caught in {"Exception", "BaseException"} and not again:
            around = " ".join(lines[node.lineno - 2 : node.lineno + 1])
            assert "#" in around, f"{name_of(path)}:{node.lineno}: why is everything caught?"


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_nothing_is_left_for_later(path: Path) -> None:
    words = ("TODO", "FIXME", "XXX")
    assert [word for word in words if word in path.read_text()] == []
