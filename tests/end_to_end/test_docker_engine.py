"""The same apps on Docker Engine: the same answers, nothing built that need not be, whatever they stand on."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from docker_engine import DockerTestEngine
from docker_machine import DockerMachine
from machine import Machine

ROOT = Path(__file__).parents[2]
QUERY = "compress a file"


def executed(machine: Machine, *argv: str) -> int:
    """How many build steps this apply ran."""
    return int(json.loads(machine.run("apply", *argv, "--yes", "--json").out.splitlines()[-1])["executed"])


def test_the_example_finds_the_same_on_both_runtimes(
    docker_machine: DockerMachine, docker_engine: DockerTestEngine
) -> None:
    """From one file and one home, with nothing changed but what makes the containers. What is searched is Python's own
    documentation, so both have the same Python; where that is the system's, the base's is near enough for the best hit.
    """
    machine, same = docker_machine, sys.base_prefix != "/usr"
    if same:
        python = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info[:2]))
        docker_engine.write_config(machine.home, base=docker_engine.interpreter_image(python))
    shutil.copy(ROOT / "examples" / "search.py", machine.folder)
    specs, hits = [], []
    for runtime in ("native", "docker"):
        plan = json.loads(machine.run("plan", "search.py", "--runtime", runtime, "--json").out)
        specs.append({node["address"]: node["spec"] for node in plan["graph"]["nodes"]})
        out = machine.run("run", "search.py", "--query", QUERY, SLIPWAY_RUNTIME=runtime).out
        hits.append(re.findall(r"^  0\.\d\d  (\S+)", out.partition("The five best for")[2], re.MULTILINE))
    assert len(hits[0]) == 5
    assert hits[0] == hits[1] if same else hits[0][0] == hits[1][0]
    native, docker = specs
    assert native.keys() == docker.keys()
    assert [address for address, spec in native.items() if spec != docker[address]] == ["image image/0"], "the base"


TOWER = """
import slipway

image = slipway.Image.debian_slim()
for number in range(1, 11):
    image = image.run_commands(f"echo {{'{word}' if number == 9 else number}} > /layer-{{number}}")
app = slipway.App("tower", image=image)


@app.function()
def read() -> str:
    return " ".join(open(f"/layer-{{number}}").read().strip() for number in range(1, 11))
"""


def test_only_what_changed_is_built(docker_machine: DockerMachine) -> None:
    """Of ten layers, counted in the engine's own list of images."""
    machine = docker_machine
    machine.write("app.py", TOWER.format(word="nine"))
    assert executed(machine, "app.py") == 10
    first = machine.layers()
    assert len(first) == 10
    assert machine.run("call", "tower.read").out.strip() == "1 2 3 4 5 6 7 8 nine 10"

    with machine.watch() as happened:
        assert executed(machine, "app.py") == 0
    assert happened == [], "nothing changed, and nothing was made"

    machine.write("app.py", TOWER.format(word="neuf"))
    assert "2 layers" in machine.run("plan", "app.py").out
    assert executed(machine, "app.py") == 2
    assert len(machine.layers() - first) == 2
    assert first <= machine.layers()
    assert machine.run("call", "tower.read").out.strip() == "1 2 3 4 5 6 7 8 neuf 10"


def test_an_image_that_was_removed_is_noticed_at_plan(docker_machine: DockerMachine) -> None:
    machine = docker_machine
    machine.write("app.py", TOWER.format(word="nine"))
    executed(machine, "app.py")
    machine.run("down")
    machine.remove_images()
    machine.run("plan", "app.py", "--exit-code", code=2)
    assert "missing from the store, will be rebuilt" in machine.run("plan", "app.py").out
    assert executed(machine) == 10
    assert machine.run("call", "tower.read").out.strip() == "1 2 3 4 5 6 7 8 nine 10"


ZOO = """
import slipway

app = slipway.App("zoo")


def facts() -> str:
    import importlib
    import importlib.metadata
    import os
    import sys

    def version(module: str, package: str) -> str:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            return "none"
        return importlib.metadata.version(package)

    python = "{}.{}".format(*sys.version_info[:2])
    packages = f"{version('attr', 'attrs')} {version('cloudpickle', 'cloudpickle')}"
    return f"{python} {packages} {os.getuid()} {os.environ.get('ENTERED', 'directly')}"
"""
ANIMAL = """

@app.function(image=slipway.Image.{image})
def {name}(n: int) -> tuple[str, int]:
    print("{name} here")
    return facts(), n + 1
"""
ENTER = r"""printf '#!/bin/sh\nexport ENTERED=through\nexec "$@"\n' > /enter && chmod +x /enter"""


def test_images_of_all_kinds(docker_machine: DockerMachine, docker_engine: DockerTestEngine) -> None:
    """Each with an interpreter and packages of its own: the image's versions win, and ours are not seen."""
    machine = docker_machine
    wanted = {}
    for version in ("3.10", "3.12", "3.13"):
        try:
            tag = docker_engine.python_image(version)
        except pytest.skip.Exception:
            continue  # this machine has none; said by the test of the images themselves
        wanted[f"python_{version.replace('.', '_')}"] = (tag, f"{version} none none 0 directly")
    enter = docker_engine.image("entry", f"RUN {ENTER}", 'ENTRYPOINT ["/enter"]')
    sailor = docker_engine.image("sailor", "RUN useradd --create-home --uid 1234 sailor", "USER sailor")
    wanted["base"] = (docker_engine.base_image, "3.11 none none 0 directly")
    wanted["entered"] = (enter, "3.11 none none 0 through")
    wanted["sailor"] = (sailor, "3.11 none none 1234 directly")
    wanted["old"] = (docker_engine.image_with_old_packages(), "3.11 21.4.0 2.0.0 0 directly")
    text = ZOO + "".join(ANIMAL.format(name=name, image=f'from_registry("{tag}")') for name, (tag, _) in wanted.items())
    machine.write("zoo.py", text)
    machine.run("apply", "zoo.py", "--yes")
    found = {name: json.loads(machine.run("call", f"zoo.{name}", "[1]").out) for name in wanted}
    assert found == {name: [said, 2] for name, (_, said) in wanted.items()}
    logs = machine.run("app", "logs", "zoo").out
    assert all(f"{name} here" in logs for name in wanted)


def test_an_image_without_python_is_refused(docker_machine: DockerMachine, docker_engine: DockerTestEngine) -> None:
    tag = docker_engine.image_without_python()
    docker_machine.write("zoo.py", ZOO + ANIMAL.format(name="mute", image=f'from_registry("{tag}")'))
    refused = docker_machine.run("apply", "zoo.py", "--yes", code=1)
    assert "add_python" in refused.err + refused.out
    assert "Traceback" not in refused.err


GVISOR = """
import slipway

app = slipway.App("caged", image=slipway.Image.debian_slim().run_commands("echo built > /built"))


@app.function()
def look(n: int) -> tuple[str, int]:
    print("in the cage")
    return open("/proc/version").read().split()[2], len(open("/built").read()) + n
"""


def test_workers_run_within_gvisor(docker_machine: DockerMachine, docker_engine: DockerTestEngine) -> None:
    """Under a kernel that is not this machine's."""
    with docker_engine.client() as client:
        runsc = client.info()["Runtimes"].get("runsc", {})
    if "--host-uds=open" not in runsc.get("runtimeArgs", ()):
        pytest.skip("this engine has no runsc that may use sockets of this machine's")
    docker_engine.write_config(docker_machine.home, 'oci_runtime = "runsc"')
    docker_machine.write("caged.py", GVISOR)
    docker_machine.run("apply", "caged.py", "--yes")
    kernel, number = json.loads(docker_machine.run("call", "caged.look", "[1]").out)
    assert number == 7
    assert kernel != os.uname().release
    assert "in the cage" in docker_machine.run("app", "logs", "caged").out
