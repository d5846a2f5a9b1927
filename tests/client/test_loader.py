"""The loader: what a reference may be, and what is said about a file that is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.dsl.errors import DeclarationError, Error, InvalidError
from slipway.loader import load, target

HEAD = "import slipway\napp = slipway.App('shop')\n"
FUNCTION = "@app.function()\ndef {0}(x: int = 0): return x\n"
ENTRY = "@app.local_entrypoint()\ndef {0}(): pass\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, to stand in; what loading leaves in the interpreter is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files are rewritten within one tick of their mtime
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(ref: str, *, as_module: bool = False, run: bool = False) -> Error:
    with pytest.raises(Error) as caught:
        loaded = load(ref, as_module=as_module)
        if run:
            target(loaded)
    return caught.value


# --- what a reference names ---------------------------------------------------------------------------


def test_a_file_is_imported_by_its_name_with_its_folder_first(folder: Path) -> None:
    write("sub/shop_app.py", "import beside\n" + HEAD + FUNCTION.format("f"))
    write("sub/beside.py", "x = 1\n")
    loaded = load("sub/shop_app.py")
    assert loaded.app.name == "shop"
    assert loaded.module.__name__ == "shop_app" and sys.modules["shop_app"] is loaded.module
    assert loaded.path == folder / "sub" / "shop_app.py"
    assert loaded.name is None
    assert sys.path[0] == str(folder / "sub") and str(folder) in sys.path


def test_names_behind_two_colons() -> None:
    write("shop_app.py", HEAD + FUNCTION.format("f"))
    assert load("shop_app.py::f").name == "f"
    assert load("shop_app.py::app.f").name == "f"
    assert load("shop_app.py::app").name is None
    assert load("shop_app.py::shop.f").name == "f"


def test_a_module_of_a_package() -> None:
    write("pkg/__init__.py", "")
    write("pkg/deep/__init__.py", "")
    write("pkg/deep/shop_app.py", "from .. import deep\n" + HEAD + FUNCTION.format("f"))
    loaded = load("pkg.deep.shop_app::f", as_module=True)
    assert loaded.module.__name__ == "pkg.deep.shop_app" and loaded.name == "f"


def test_what_runs() -> None:
    write("one.py", HEAD + FUNCTION.format("f"))
    assert target(load("one.py")).name == "f"
    write("two.py", HEAD + FUNCTION.format("f") + FUNCTION.format("g") + ENTRY.format("main"))
    assert target(load("two.py")).name == "main"
    assert target(load("two.py::g")).name == "g"
    write("three.py", HEAD + "@app.function(name='other')\ndef f(): pass\n")
    assert target(load("three.py::f")).name == "other"
    assert target(load("three.py::other")).name == "other"


def test_an_app_that_is_included_or_imported_is_not_a_second_one() -> None:
    write("common_app.py", "import slipway\ncommon = slipway.App('common')\n")
    write("shop_app.py", "from common_app import common\n" + HEAD)
    assert load("shop_app.py").app.name == "shop"
    write("whole_app.py", HEAD + "part = slipway.App('part')\napp.include(part)\n")
    assert load("whole_app.py").app.name == "shop"


def test_two_apps_are_told_apart_by_name() -> None:
    write("two.py", HEAD + "other = slipway.App('second')\n@other.function()\ndef f(): pass\n")
    assert load("two.py::other").app.name == "second"
    assert load("two.py::second.f").name == "f"
    assert load("two.py::f").app.name == "second"
    error = refused("two.py")
    assert "2 apps" in error.message
    assert "two.py::app" in error.hint and "two.py::other" in error.hint


def test_a_file_may_be_loaded_again() -> None:
    write("shop_app.py", HEAD)
    first = load("shop_app.py")
    assert load("shop_app.py").module is not first.module


# --- what is wrong with a reference -------------------------------------------------------------------


def test_an_edit_within_the_second_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in ("one", "two"):  # as long as each other
        write("app.py", HEAD.replace("shop", name))
        os.utime("app.py", (1_700_000_000, 1_700_000_000))
        assert load("app.py").app.name == name


def test_no_such_file() -> None:
    write("shop_app.py", HEAD)
    assert "Did you mean shop_app.py?" in refused("shop_ap.py").hint
    assert "Did you mean shop_app.py?" in refused("shop_app").hint
    assert "shop_app.py" in refused("zzz.py").hint
    assert "no folder" in refused("nowhere/app.py").hint


def test_one_colon_for_two() -> None:
    write("shop_app.py", HEAD)
    assert "shop_app.py::f" in refused("shop_app.py:f").hint


def test_not_a_file_of_python() -> None:
    write("pkg/__init__.py", "")
    write("notes.txt", "")
    write("a.b.py", HEAD)
    assert "folder" in refused("pkg").message
    assert "not a Python file" in refused("notes.txt").message
    assert "a_b.py" in refused("a.b.py").hint


def test_a_dotted_module_without_the_switch() -> None:
    write("pkg/shop_app.py", HEAD)
    assert "-m pkg.shop_app" in refused("pkg.shop_app").hint
    assert "no module 'pkg.nothing'" in refused("pkg.nothing", as_module=True).message
    assert "Leave -m out" in refused("pkg/shop_app.py", as_module=True).hint


def test_a_file_that_would_hide_a_module() -> None:
    write("queue.py", HEAD)
    write("pytest.py", HEAD)
    assert "standard library" in refused("queue.py").message
    assert "installed here" in refused("pytest.py").message


def test_what_is_to_run_is_not_said() -> None:
    write("two.py", HEAD + FUNCTION.format("f") + FUNCTION.format("g"))
    error = refused("two.py", run=True)
    assert "2 functions" in error.message and "two.py::f" in error.hint and "two.py::g" in error.hint
    write("entries.py", HEAD + ENTRY.format("a") + ENTRY.format("b"))
    assert "2 local entrypoints" in refused("entries.py", run=True).message
    write("none.py", HEAD)
    assert "nothing to run" in refused("none.py", run=True).message


def test_a_name_that_is_not_there() -> None:
    write("shop_app.py", HEAD + FUNCTION.format("square") + "def helper(): pass\n")
    error = refused("shop_app.py::sqare", run=True)
    assert "Did you mean shop_app.py::square?" in error.hint
    assert "plain function" in refused("shop_app.py::helper", run=True).message


# --- what is wrong with a file ------------------------------------------------------------------------


def fault_of(text: str) -> tuple[str, str, str, str]:
    write("shop_app.py", text)
    error = refused("shop_app.py")
    assert isinstance(error, DeclarationError)
    (fault,) = error.faults
    return f"{Path(fault.origin.file).name}:{fault.origin.line}", fault.summary, fault.found, fault.hint


def test_a_syntax_error_names_the_line_and_points() -> None:
    where, summary, found, _ = fault_of(HEAD + "if True:\n    def f(:\n")
    assert where == "shop_app.py:4"
    assert summary.startswith("SyntaxError: ")
    assert found == "def f(:\n      ^"


def test_a_syntax_error_in_a_file_that_it_imports() -> None:
    write("beside.py", "x = = 1\n")
    assert fault_of("import beside\n")[0] == "beside.py:1"


def test_an_import_error_shows_only_the_users_frames() -> None:
    write("beside.py", "def g():\n    import nothing_of_the_kind\n")
    where, summary, found, hint = fault_of("import beside\n\n\nbeside.g()\n")
    assert where == "beside.py:2"
    assert "nothing_of_the_kind" in summary and "image.imports()" in hint
    assert [line.rpartition("/")[2] for line in found.splitlines()[::2]] == [
        "shop_app.py:4 in <module>",
        "beside.py:2 in g",
    ]


def test_other_ways_to_fail() -> None:
    assert fault_of("1 / 0\n")[1] == "ZeroDivisionError: division by zero"
    assert "sys.exit(3)" in fault_of("import sys\nsys.exit(3)\n")[1]
    assert "-m " in fault_of("from . import x\n")[3]
    assert fault_of("class Odd(BaseException): pass\nraise Odd\n")[1] == "Odd"


def test_bytes_that_are_no_text() -> None:
    Path("shop_app.py").write_bytes(b"x = '\xff'\n")
    with pytest.raises(DeclarationError):
        load("shop_app.py")
    Path("shop_app.py").write_bytes(b"x = 1\0\n")
    with pytest.raises(DeclarationError):
        load("shop_app.py")


def test_a_function_called_directly() -> None:
    write("shop_app.py", HEAD + FUNCTION.format("f") + "f(1)\n")
    error = refused("shop_app.py")
    assert isinstance(error, InvalidError)
    assert "shop_app.py:5: " in error.message and "f.remote(...)" in error.hint and "f.local(...)" in error.hint


def test_a_wrong_parameter_is_told_with_its_line_once() -> None:
    where, summary, _, _ = fault_of(HEAD + "@app.function(memroy=1)\ndef f(): pass\n")
    assert where == "shop_app.py:3"
    assert summary.startswith("TypeError: @app.function() has no parameter 'memroy'")


def test_no_app() -> None:
    write("shop_app.py", "import slipway\nx = 1\n")
    error = refused("shop_app.py")
    assert "shop_app.py" in error.message and "slipway.App(" in error.hint


def test_a_failed_import_leaves_no_module_behind() -> None:
    write("shop_app.py", "1 / 0\n")
    refused("shop_app.py")
    assert "shop_app" not in sys.modules
