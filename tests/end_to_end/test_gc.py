"""`slipway gc` on real homes: what it says it frees is what the disk gets back, and nobody loses what they need."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from docker_machine import DockerMachine
from machine import Machine

APP = """
import slipway

image = slipway.Image.debian_slim().run_commands("head -c 2000000 /dev/zero | tr '\\\\0' x > /base")
image = image.run_commands("echo {word} > /word").add_local_file("data.txt", "/data.txt", copy=True)
app = slipway.App("shop", image=image)


@app.function(volumes={{"/shelf": slipway.Volume.from_name("shelf", create_if_missing=True)}})
def word():
    with open("/shelf/kept", "w") as shelf:
        shelf.write("kept")
    return open("/word").read().strip() + open("/data.txt").read() + "{word}"
"""


@pytest.fixture(params=["native", "docker"])
def box(request: pytest.FixtureRequest) -> Machine:
    """A machine on each of the runtimes."""
    found = request.getfixturevalue("machine" if request.param == "native" else "docker_machine")
    assert isinstance(found, Machine)
    found.write("data.txt", "data")
    return found


def apply(box: Machine, word: str) -> int:
    """How many steps were run."""
    box.write("app.py", APP.format(word=word))
    return int(json.loads(box.run("apply", "app.py", "--yes", "--json").out.splitlines()[-1])["executed"])


def look(box: Machine, *argv: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run("gc", "--json", *argv).out)
    return found


def kinds(offer: dict[str, Any]) -> dict[str, int]:
    return {kind["kind"]: kind["number"] for kind in offer["kinds"]}


def layers(box: Machine) -> int:
    if isinstance(box, DockerMachine):
        return len(box.layers())
    return len(list((box.home / "layers").iterdir()))


def on_disk(*folders: Path) -> int:
    """What these take, each inode once."""
    sizes: dict[int, int] = {}
    for top in folders:
        for folder, names, files in os.walk(top):
            for name in (*names, *files):
                status = Path(folder, name).lstat()
                sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def test_what_no_deployment_needs_goes_and_the_rest_works(box: Machine) -> None:
    assert apply(box, "one") == 3
    assert (
        look(box)["free"]["number"] == kinds(look(box)).get("bundle", 0) * 2
    )  # what the layer of data.txt was made of
    for word in ("two", "three"):
        assert apply(box, word) == 2  # not the lowest
    before = layers(box)
    shown = box.run("gc").out
    assert "layers" in shown and "run_commands echo one > /word" in shown
    assert "no deployment needs them; last used" in shown
    assert "Nothing was freed. To free it: slipway gc --yes" in shown
    assert box.run("gc", "--dry-run", "--yes").out.count("Freed") == 0
    assert layers(box) == before
    freed = look(box, "--yes")
    assert kinds(freed)["layer"] == 2 and freed["left"] == []
    assert freed["freed"] == freed["free"]
    assert layers(box) == before - 2
    assert box.run("call", "shop.word").out.strip() == "threedatathree"
    assert box.run("gc", "--yes").out.startswith("Nothing to free.")
    assert apply(box, "two") == 0  # the one before is there
    assert apply(box, "one") == 2
    assert box.run("call", "shop.word").out.strip() == "onedataone"


def test_when_nothing_is_deployed_nothing_is_left_but_volumes(box: Machine) -> None:
    apply(box, "one")
    box.run("call", "shop.word")
    box.run("destroy", "shop", "--yes")
    freed = look(box, "--yes", "--caches")
    assert freed["left"] == []
    assert layers(box) == 0
    if isinstance(box, DockerMachine):
        assert kinds(freed)["image"] >= 1
        with box.engine.client() as client:
            assert client.images.list(filters={"label": box.label}) == []
    for folder in ("bundles", "cache", "logs/layers"):
        assert list((box.home / folder).iterdir()) == []
    assert [path.name for path in (box.home / "blobs" / "sha256").rglob("*") if path.is_file()] == []
    (shelf,) = (box.home / "volumes").iterdir()
    assert (shelf / "kept").read_text() == "kept"
    assert apply(box, "one") == 3
    assert box.run("call", "shop.word").out.strip() == "onedataone"


def test_the_sizes_are_what_the_disk_gets_back(machine: Machine) -> None:
    """Hard links between bundles and blobs are counted once, and what another needs is not counted at all."""
    machine.write("data.txt", "data" * 10_000)
    for word in ("one", "two", "three"):
        apply(machine, word)
    folders = [machine.home / name for name in ("layers", "bundles", "blobs", "logs/layers", "runtime")]
    before = on_disk(*folders)
    freed = look(machine, "--yes")["freed"]["size"]
    assert freed == before - on_disk(*folders) > 40_000
    machine.run("destroy", "shop", "--yes")
    before = on_disk(*folders)
    most = look(machine)["free"]["size"] - 1_000_000
    freed = look(machine, "--yes", "--keep", f"{most}B")
    assert freed["freed"]["size"] == before - on_disk(*folders) >= 1_000_000
    assert freed["spare"]["size"] <= most


def test_what_runs_keeps_what_it_needs(box: Machine) -> None:
    """A `slipway run` of an app that nobody deployed, held at a pipe in the volume."""
    box.write(
        "app.py",
        APP.format(word="one") + "\n\n@app.local_entrypoint()\ndef main():\n    print('SAID', word.remote())\n"
        "    open('begun', 'w').write('x')\n    open('go').read()\n    print('SAID', word.remote())\n",
    )
    for name in ("begun", "go"):
        os.mkfifo(box.folder / name)
    process = box.start("run", "app.py")
    (box.folder / "begun").read_text()  # returns when it has called once
    freed = look(box, "--yes", "--caches")
    assert "layer" not in kinds(freed) and "image" not in kinds(freed) and layers(box) == 3
    (box.folder / "go").write_text("go")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("SAID onedataone") == 2
    assert kinds(look(box, "--yes"))["layer"] == 3
    assert layers(box) == 0


def test_applies_and_removals_at_the_same_time(box: Machine) -> None:
    """Each apply finds or makes what it needs, whatever is freed meanwhile."""
    for number in range(2):
        box.write("app.py", APP.format(word="one" if number % 2 else "two"))
        applying = box.start("apply", "app.py", "--yes")
        freeing = [box.start("gc", "--yes") for _ in range(2)]
        said = [(process, process.communicate(timeout=120)) for process in (applying, *freeing)]
        for process, (out, err) in said:
            assert process.returncode == 0, f"{process.args!r}\n{out}\n{err}"
        word = "one" if number % 2 else "two"
        assert box.run("call", "shop.word").out.strip() == f"{word}data{word}"
        box.run("destroy", "shop", "--yes")
    assert look(box, "--yes")["left"] == []
    assert layers(box) == 0


def test_a_runtime_that_cannot_be_reached_is_told(machine: Machine) -> None:
    machine.write("data.txt", "data")
    apply(machine, "one")
    machine.run("destroy", "shop", "--yes")
    (machine.home / "config.toml").write_text('[docker]\nhost = "unix:///nowhere/docker.sock"\n')
    shown = machine.run("gc", "--yes").out
    assert "Freed" in shown and layers(machine) == 0
    assert "note:" not in shown, "nothing of this home was ever made by docker"
    (machine.home / "config.toml").write_text('[gc]\nkeep = "lots"\n')
    assert "config.toml:2" in machine.run("gc", code=1).err
