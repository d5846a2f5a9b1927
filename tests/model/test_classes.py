"""Classes: parameters, hooks, methods, and variants of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from model_home import ModelHome, Scratch

import slipway
from slipway.dsl.errors import InvalidError

rule = pytest.mark.rule


@rule("1.4 instantiate first", "8.14")
def test_a_method_needs_an_object(home: ModelHome) -> None:
    for model in (home.app("classes").Model, home.cls("classes", "Model")):
        with pytest.raises(AttributeError, match=r"Model\(\)\.scale"):
            model.scale.remote(1)
    assert home.app("classes").Model.kind == "a static attribute"


@rule("1.4 methods")
def test_methods_are_functions(home: ModelHome) -> None:
    classes = home.app("classes")
    model = classes.Model(depth=3)
    assert model.scale.remote(2) == 6
    assert list(model.scale.map([1, 2, 3])) == [3, 6, 9]
    assert model.scale.spawn(4).get() == 12
    assert list(model.numbers.remote_gen(3)) == [0, 3, 6]
    assert asyncio.run(model.scale.remote.aio(5)) == 15
    assert home.cls("classes", "Model")(depth=10).scale.remote(2) == 20


@rule("8.14", "1.4 parameters")
def test_each_set_of_parameters_has_workers_of_its_own(home: ModelHome) -> None:
    model = home.app("classes").Model
    small, large, again = (model(size=size).here.remote() for size in ("small", "large", "small"))
    assert small == again and len({small["token"], large["token"]}) == 2
    assert (small["size"], large["size"], small["depth"]) == ("small", "large", 1)
    assert small["main"] is True


@rule("8.14", "1.4 parameters")
def test_parameters_are_given_by_name_and_of_four_types(home: ModelHome) -> None:
    classes = home.app("classes")
    assert classes.Bytes(raw=b"\x00\xff", flag=True).say.remote() == (b"\x00\xff", True)
    with pytest.raises(InvalidError):
        classes.Model("large")
    for wrong in ({"size": 1}, {"depth": "1"}, {"depth": 1.5}, {"colour": "red"}):
        with pytest.raises(InvalidError, match=next(iter(wrong))):
            classes.Model(**wrong)
    with pytest.raises(InvalidError, match="raw"):
        classes.Bytes()


@rule("8.14", "1.4 parameters")
def test_what_a_class_can_not_be(home: ModelHome) -> None:
    app = slipway.App("refused")
    with pytest.raises(InvalidError, match="__init__"):

        @app.cls(serialized=True)
        class HasInit:
            def __init__(self) -> None: ...

    with pytest.raises(InvalidError, match="float"):

        @app.cls(serialized=True)
        class HasFloat:
            ratio: float = slipway.parameter()

    with pytest.raises(InvalidError, match="annotat"):

        @app.cls(serialized=True)
        class HasNone:
            ratio = slipway.parameter()

    with pytest.raises(InvalidError, match="both"):

        @app.cls(serialized=True)
        class HasBoth:
            @slipway.enter()
            @slipway.method()
            def start(self) -> None: ...

    with pytest.raises(InvalidError, match="enable_memory_snapshot"):

        @app.cls(serialized=True)
        class HasSnap:
            @slipway.enter(snap=True)
            def start(self) -> None: ...


@rule("1.4 inheritance")
def test_hooks_and_methods_are_inherited_base_first(home: ModelHome) -> None:
    model = home.app("classes").Model()
    assert model.hooks.remote() == ["base enter", "enter small", "async enter"]
    assert (model.inherited.remote(), model.overridden.remote()) == ("inherited by Model", "subclass")


@rule("8.8")
def test_async_hooks_and_async_methods_share_one_loop(home: ModelHome) -> None:
    assert home.app("classes").Model().same_loop.remote() is True


@rule("1.4 exit")
def test_exit_hooks_run_after_the_last_input(home: ModelHome, scratch: Scratch) -> None:
    scratch.pipe("-ended")
    ends = home.app("classes").Ends(key=scratch.key)
    ends.work.remote()
    ends.work.remote()
    for worker in workers(home, "Ends"):
        home.slipway(home.machine.folder, "container", "stop", worker, "--graceful")
    assert scratch.hear(f"{scratch.key}-ended") == "ended"
    assert scratch.notes() == ["enter", "work", "work", "exit", "async exit on the same loop"]


def workers(home: ModelHome, function: str) -> list[str]:
    import json

    listed: list[dict[str, Any]] = json.loads(home.slipway(home.machine.folder, "container", "list", "--json").out)
    return [one["id"] for one in listed if one["function"] == function]


@rule("1.4 self")
def test_a_method_calls_others_of_its_object(home: ModelHome) -> None:
    classes = home.app("classes")
    model = classes.Model.with_options(max_containers=2)(depth=2)
    assert model.through_another.remote(3) == (6, 8)


@rule("1.0 handles as arguments", "8.19")
def test_classes_and_objects_are_arguments(home: ModelHome) -> None:
    classes = home.app("classes")
    assert classes.use.remote(classes.Model(depth=4), 2) == 8
    assert classes.make.remote(classes.Model, 5, 2) == 10
    assert home.function("classes", "use").remote(home.cls("classes", "Model")(depth=6), 2) == 12


@rule("8.15", "1.3 with_options")
def test_variants_have_workers_of_their_own(home: ModelHome) -> None:
    model = home.app("classes").Model
    plain = model(depth=7).here.remote()
    varied = model.with_options(memory=300)(depth=7).here.remote()
    again = model.with_options(memory=300)(depth=7).here.remote()
    assert varied == again and varied["token"] != plain["token"]
    with pytest.raises((TypeError, InvalidError), match="min_containers"):
        model.with_options(min_containers=1)


@rule("8.10", "3.4 start-up")
def test_an_ephemeral_app_fails_its_inputs_with_what_the_start_raised(home: ModelHome, scratch: Scratch) -> None:
    failing = home.app("classes").Failing(key=scratch.key)
    with pytest.raises(ConnectionError, match=f"start . of {scratch.key} failed"):
        failing.work.remote()


@rule("8.10", "3.4 start-up")
def test_a_deployed_app_starts_again_until_it_works(home: ModelHome, scratch: Scratch) -> None:
    failing = home.cls("classes", "Failing")(key=scratch.key, starts=2)
    assert failing.work.remote() == "worked"
    assert len(scratch.notes()) == 3


@rule("1.3 local enters")
def test_local_enters_once(home: ModelHome) -> None:
    """Everything is plain Python here, so another file's class shows what `.local` does."""
    folder = home.write({"app.py": LOCAL})
    assert home.python(folder, "app.py").out.splitlines() == ["snap", "enter", "1", "2", "async enter", "3"]


LOCAL = """
import asyncio
import slipway

app = slipway.App("local")

@app.cls(enable_memory_snapshot=True)
class Here:
    step: int = slipway.parameter(default=1)

    @slipway.enter()
    def enter(self):
        print("enter")
        self.base = 0

    @slipway.enter(snap=True)
    def snap(self):
        print("snap")

    @slipway.method()
    def add(self, x):
        self.base += self.step
        return self.base

@app.cls()
class Async:
    @slipway.enter()
    async def enter(self):
        print("async enter")
        self.base = 2

    @slipway.method()
    async def add(self, x):
        return self.base + x

if __name__ == "__main__":
    here = Here()
    print(here.add.local(0))
    print(here.add.local(0))
    coroutine = Async().add.local(1)
    print(asyncio.run(coroutine))
"""


@rule("1.4 local attributes")
def test_attributes_of_an_object_are_those_of_a_local_instance(home: ModelHome) -> None:
    model = home.app("classes").Model(depth=5)
    assert (model.depth, model.helper(3)) == (5, 15)
