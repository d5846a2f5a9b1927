"""Images: what makes a layer another one, and what is none."""

from __future__ import annotations

import json
import sys

import pytest
from model_home import ModelHome

rule = pytest.mark.rule

APP = """
import slipway

{before}
image = slipway.Image.debian_slim(){steps}
app = slipway.App("layers", image=image)

@app.function()
def f(): ...
"""


def layers(home: ModelHome, steps: str, before: str = "") -> list[str]:
    """The digests of an image's layers, as a plan says them."""
    folder = home.write({"app.py": APP.format(steps=steps, before=before)})
    graph = json.loads(home.slipway(folder, "plan", "app.py", "--json").out)["graph"]
    return [node["digest"] for node in graph["nodes"] if node["address"].startswith("image ")]


@rule("8.5")
def test_packages_of_pip_are_sorted(home: ModelHome) -> None:
    assert layers(home, '.pip_install("b", "a")') == layers(home, '.pip_install("a", "b")')
    assert layers(home, '.uv_pip_install("b", "a")') == layers(home, '.uv_pip_install("a", "b")')


@rule("1.2 apt is not sorted", "8.5")
def test_packages_of_apt_are_not(home: ModelHome) -> None:
    assert layers(home, '.apt_install("b", "a")') != layers(home, '.apt_install("a", "b")')


RUN_FUNCTION = """
LIMIT = {limit}

def helper():
    return {helper}

def prepare():
    return helper(), LIMIT{text}
"""


@rule("1.2 run_function key", "8.5")
def test_run_function_is_known_by_its_text_and_values_alone(home: ModelHome) -> None:
    def key(helper: int = 1, limit: int = 1, text: str = "", argument: int = 1) -> list[str]:
        before = RUN_FUNCTION.format(helper=helper, limit=limit, text=text)
        return layers(home, f".run_function(prepare, kwargs={{'x': {argument}}})", before)

    plain = key()
    assert key(helper=2) == plain
    assert len({tuple(plain), *(map(tuple, (key(limit=2), key(text="  # more"), key(argument=2))))}) == 4


FILES = """
import os
import slipway

image = slipway.Image.debian_slim().add_local_file("data.txt", "/data.txt"){after}
app = slipway.App("deferred", image=image)

@app.function()
def read():
    return open("/data.txt").read()

@app.local_entrypoint()
def main():
    print(read.remote())
"""


@rule("1.2 deferred", "8.4")
def test_files_that_are_added_are_no_layer(home: ModelHome) -> None:
    plain = layers(home, "")
    assert layers(home, '.add_local_file("app.py", "/x.py")') == plain
    assert layers(home, '.add_local_file("app.py", "/x.py", copy=True)') != plain
    folder = home.write({"app.py": FILES.format(after=""), "data.txt": "one"})
    assert home.slipway(folder, "run", "app.py").out == "one\n"
    (folder / "data.txt").write_text("two")
    assert home.slipway(folder, "run", "app.py").out == "two\n"


@rule("1.2 deferred", "8.4")
def test_no_build_step_follows_files_that_are_added(home: ModelHome) -> None:
    folder = home.write({"app.py": FILES.format(after='.run_commands("true")'), "data.txt": ""})
    home.python(folder, "app.py")  # saying it is no fault, planning it is
    refused = home.slipway(folder, "plan", "app.py", code=1).err
    assert "copy=True" in refused and "add_local_file" in refused
    copied = FILES.format(after='.run_commands("true")').replace('"/data.txt")', '"/data.txt", copy=True)', 1)
    assert "run_commands" in home.slipway(home.write({"app.py": copied, "data.txt": ""}), "plan", "app.py").out


@rule("1.2 local Python", "8.6")
def test_an_image_without_a_version_has_the_users_python(home: ModelHome) -> None:
    folder = home.write({"app.py": APP.format(steps="", before="")})
    version = "{}.{}".format(*sys.version_info)
    assert f"debian_slim {version}" in home.slipway(folder, "plan", "app.py").out
    assert home.app("calls").interpreter.remote() == sys.version_info[:2]
