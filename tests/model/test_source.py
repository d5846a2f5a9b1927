"""Where a function's code comes from: scripts, packages, programs, prompts, notebooks and closures."""

from __future__ import annotations

import pytest
from model_home import ModelHome
from notebook import Notebook

rule = pytest.mark.rule

SCRIPT = """
import os
import slipway

app = slipway.App("script")

@app.function()
def where():
    return __file__, __name__, sorted(name for name in os.listdir("/root") if name[0] not in "._")

@app.local_entrypoint()
def main():
    print(*where.remote())
"""


@rule("3.2 script", "8.7")
def test_a_script_is_one_file_in_root(home: ModelHome) -> None:
    folder = home.write({"script.py": SCRIPT, "beside.py": "", "data.txt": ""})
    assert home.slipway(folder, "run", "script.py").out == "/root/script.py script ['script.py']\n"


PACKAGE = """
import os
import slipway
from ..shared import tables

app = slipway.App("package")

@app.function()
def where():
    found = sorted(os.path.join(top, name) for top, _, names in os.walk("/root") for name in names)
    return __name__, tables.NAME, [name for name in found if name[6] != "." and "__pycache__" not in name]

@app.local_entrypoint()
def main():
    print(*where.remote())
"""


@rule("3.2 package", "8.7")
def test_a_package_comes_whole(home: ModelHome) -> None:
    files = {
        "shop/__init__.py": "",
        "shop/jobs/__init__.py": "",
        "shop/jobs/night.py": PACKAGE,
        "shop/shared/tables.py": "NAME = 'tables'",
        "shop/words.txt": "data",
        "shop/.hidden/secret.txt": "",
        "other.py": "",
    }
    folder = home.write(files)
    wanted = [f"/root/{name}" for name in sorted(files) if name.startswith("shop/") and ".hidden" not in name]
    assert home.slipway(folder, "run", "-m", "shop.jobs.night").out == f"shop.jobs.night tables {wanted}\n"


BESIDE = """
import slipway
{imports}

app = slipway.App("beside"{image})

@app.function()
def use():
    import helper
    return helper.value()

@app.local_entrypoint()
def main():
    print(use.remote())
"""


@rule("3.2 other modules", "8.7")
def test_other_modules_are_not_taken_along_by_themselves(home: ModelHome) -> None:
    helper = "def value(): return 'helped'\n"
    folder = home.write({"app.py": BESIDE.format(imports="", image=""), "helper.py": helper})
    failed = home.slipway(folder, "run", "app.py", code=1)
    assert "No module named 'helper'" in failed.err
    folder = home.write({"app.py": BESIDE.format(imports="import helper", image=""), "helper.py": helper})
    assert "helper" in (told := home.slipway(folder, "plan", "app.py").out) and "add_local_python_source" in told
    image = ', image=slipway.Image.debian_slim().add_local_python_source("helper")'
    folder = home.write({"app.py": BESIDE.format(imports="import helper", image=image), "helper.py": helper})
    assert home.slipway(folder, "run", "app.py").out == "helped\n"


ELSEWHERE = """
import slipway

app = slipway.App("elsewhere")

if slipway.is_local():
    @app.function()
    def f():
        return 1

@app.local_entrypoint()
def main():
    f.remote()
"""


@rule("3.2 conditions")
def test_a_function_that_is_not_there_remotely_is_told(home: ModelHome) -> None:
    failed = home.slipway(home.write({"app.py": ELSEWHERE}), "run", "app.py", code=1).err
    assert "the module app has no f in the container" in failed and "condition" in failed


PROGRAM = """
import slipway

app = slipway.App("program")

class Point:
    def __init__(self, x):
        self.x = x

class Trouble(Exception):
    pass

@app.function()
def move(point):
    return isinstance(point, Point), __name__, Point(point.x + 1)

@app.function(serialized=True)
def move_by_value(point):
    return isinstance(point, Point), __name__, Point(point.x + 1)

@app.function()
def fail():
    raise Trouble("on purpose")

if __name__ == "__main__":
    with app.run():
        for function in (move, move_by_value):
            same, name, point = function.remote(Point(1))
            print(same, name, isinstance(point, Point), point.x)
        try:
            fail.remote()
        except Trouble as trouble:
            print("caught", trouble)
"""


@rule("3.2 __main__")
def test_a_program_that_runs_its_own_app(home: ModelHome) -> None:
    """What `__main__` defines is the same here and there, both ways."""
    said = home.python(home.write({"app.py": PROGRAM}), "app.py").out.splitlines()
    assert said == ["True app True 2", "True __main__ True 2", "caught on purpose"]


@rule("3.2 __main__")
def test_a_module_that_runs_its_own_app(home: ModelHome) -> None:
    folder = home.write({"shop/__init__.py": "", "shop/app.py": PROGRAM})
    said = home.python(folder, "-m", "shop.app").out.splitlines()
    assert said == ["True shop.app True 2", "True __main__ True 2", "caught on purpose"]


PROMPT = """
import slipway
app = slipway.App("prompt")
factor = 3

@app.function(serialized=True)
def times(x):
    return x * factor

with app.run():
    print(times.remote(5))

"""


@rule("3.2 no file", "1.1 serialized")
def test_functions_of_a_prompt(home: ModelHome) -> None:
    folder = home.write({})
    assert home.python(folder, "-i", "-q", stdin=PROMPT).out.splitlines() == ["15"]
    assert home.python(folder, "-", stdin=PROMPT).out == "15\n"


CLOSURES = """
import slipway

app = slipway.App("closures")

def family(factor, words):
    @app.function(serialized=True)
    def inner(x):
        return x * factor

    @app.function(serialized=True, name="outer")
    async def second(x):
        return await inner.remote.aio(x), words

    @app.function(serialized=True)
    def recursive(n):
        return 1 if n == 0 else n * recursive.remote(n - 1)

    return inner, second, recursive

if __name__ == "__main__":
    inner, second, recursive = family(7, ["a", "b"])
    with app.run():
        print(inner.remote(2), second.remote(3), recursive.remote(4))
"""


@rule("3.1 siblings", "8.19", "1.1 serialized")
def test_closures_hold_values_and_other_functions(home: ModelHome) -> None:
    assert home.python(home.write({"app.py": CLOSURES}), "app.py").out == "14 (21, ['a', 'b']) 24\n"


@rule("1.1 serialized")
def test_a_function_within_a_function_must_be_sent_by_value(home: ModelHome) -> None:
    text = CLOSURES.replace("(serialized=True)", "()", 1)
    failed = home.python(home.write({"app.py": text}), "app.py", code=1).err
    assert "serialized=True" in failed and "app.py:7" in failed


SECRETS = """
import slipway

app = slipway.App("holds")
secret = slipway.Secret.from_dict({"TOKEN": "the-hidden-value"})
image = slipway.Image.debian_slim().env({"PLAIN": "yes"})

@app.function(serialized=True, secrets=[secret], image=image)
def f():
    import os
    return os.environ["TOKEN"][:3], os.environ["PLAIN"], type(secret).__name__, type(image).__name__, type(app).__name__

if __name__ == "__main__":
    from slipway.dsl.own import cloudpickle
    print(b"the-hidden-value" in cloudpickle.dumps(f.raw_function))
    with app.run():
        print(f.remote())
"""


@rule("1.1 serialized", "1.0 handles as arguments")
def test_what_a_function_by_value_holds_shows_no_secret(home: ModelHome) -> None:
    said = home.python(home.write({"app.py": SECRETS}), "app.py").out.splitlines()
    assert said == ["False", "('the', 'yes', 'Secret', 'Image', 'App')"]


CELLS = """
import slipway
app = slipway.App("notebook")
factor = 10
class Point:
    def __init__(self, x): self.x = x
---
@app.function(serialized=True)
def times(x):
    print("working on", x)
    return x * factor
---
@app.function(serialized=True)
def move(point):
    return isinstance(point, Point), Point(times.remote(point.x))
---
with app.run():
    same, point = move.remote(Point(4))
    print(times.remote(3), list(times.map([1, 2])), same, isinstance(point, Point), point.x)
---
@app.function(serialized=True)
def times(x):
    return x * factor + 1
factor = 100
---
with app.run():
    print(times.remote(3))
---
async with app.run():
    print(await times.remote.aio(4))
---
@app.cls(serialized=True)
class Model:
    size: int = slipway.parameter(default=2)
    @slipway.method()
    def scale(self, x): return x * self.size * factor
with app.run():
    print(Model(size=3).scale.remote(1))
"""


@rule("3.2 notebooks")
def test_the_cells_of_a_notebook(home: ModelHome) -> None:
    """Defined in one cell, used in another, defined anew without a word, and blocking in spite of the kernel's loop."""
    folder = home.write({})
    with Notebook(folder, home.machine.env | home.variables) as notebook:
        said = [notebook.run(cell) for cell in CELLS.strip().split("\n---\n")]
        notebook.run("@app.function()\ndef stays(): ...")
        failed = notebook.run("with app.run(): stays.remote()", fails=True)
    assert said == ["", "", "", "30 [10, 20] True True 40\n", "", "301\n", "401\n", "300\n"]
    assert "serialized=True" in failed and "in no file" in failed
