"""What an app file is to a worker: its functions are there, and what it declares besides costs nothing."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from small_engine import our_code

import slipway
from slipway.dsl import inside
from slipway.dsl.errors import InvalidError
from slipway.dsl.session import Running

FILE = """
import slipway
from slipway.dsl import context
context.enter_worker()
image = slipway.Image.debian_slim("3.11").apt_install("git").pip_install("numpy").env({"A": "1"})
data = slipway.Volume.from_name("data", create_if_missing=True)
app = slipway.App("example", image=image, secrets=[slipway.Secret.from_dict({"TOKEN": "x"})])
other = slipway.App("other")

@app.function(volumes={"/data": data.read_only()}, cpu=1, retries=slipway.Retries(max_retries=3))
def work(x):
    data.commit()
    return x + 1

@other.function(name="renamed", schedule=slipway.Cron("0 3 * * *"))
def more():
    return work.local(1)

@app.local_entrypoint()
def main(): ...

app.include(other)
"""


def test_a_worker_makes_none_of_the_classes_that_a_plan_needs() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        + FILE
        + "print(sorted(app.functions), app.functions['renamed'].raw(), repr(work), data.name)\n"
        "heavy = ('attr', 'attrs', 'inspect', 'pathlib', 'slipway.dsl.declaration')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    argv = [sys.executable, "-I", "-S", "-c", program, str(our_code() / "lib")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "['renamed', 'work'] 2 <Function work of example> data\n[]\n"


def test_classes_are_declared_there_too(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type] # nothing is called
    app = slipway.App("example", image=inside.Image())  # type: ignore[arg-type] # as a worker's file says it
    image: Any = inside.Image()
    made: Any = app.cls(gpu="A100", image=image)(type("Model", (), {}))
    assert repr(made) == "<Cls Model: >"


def test_what_an_image_could_not_import_is_raised_by_its_functions(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type]
    image = inside.Image.debian_slim("3.11").pip_install("numpy")
    assert image.failures == []
    with warnings.catch_warnings(), image.imports():
        import no_such_module_here  # type: ignore[import-not-found] # noqa: F401
    app = slipway.App("example")
    function = app.function(image=image)(len_of)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        _ = function.raw
    assert image.env({"A": "1"}).failures == []


def len_of(x: str) -> int:
    return len(x)


def test_a_volume_does_what_it_does_everywhere() -> None:
    volume = inside.Volume.from_name("data").with_mount_options(read_only=True)
    volume.commit()
    volume.reload()
    assert volume.name == "data" and repr(inside.Secret.from_dict({})) == "<Secret>"
    with pytest.raises(InvalidError, match="a volume is a plain folder"):
        volume.listdir("/")
    with pytest.raises(AttributeError):
        _ = inside.Image._private
