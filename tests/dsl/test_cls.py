"""Classes: what stands in them, what objects of them are, and what is said of what can't be."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import slipway
from slipway.dsl import hooks, inside, instance
from slipway.dsl.errors import ExecutionError, InvalidError
from slipway.dsl.session import Running

from .conftest import LocalRunner

app = slipway.App("class-shop")  # a name that no other test has: a handle from a pickle is looked for by it
SEEN: list[str] = []


class Base:
    level: int = slipway.parameter(default=1)
    notes = "of the base"

    @slipway.enter()
    def open(self) -> None:
        SEEN.append("open")

    @slipway.method()
    def embed(self, text: str) -> str:
        return f"base {text}"

    @slipway.exit()
    def close(self) -> None:
        SEEN.append("close")


@app.cls(enable_memory_snapshot=True)
@slipway.concurrent(max_inputs=3)
class Model(Base):
    """A model."""

    size: str = slipway.parameter(default="small")
    key: bytes = slipway.parameter(default=b"")
    hidden: str = slipway.parameter(init=False)
    WIDTH = 7

    @slipway.enter(snap=True)
    def load(self) -> None:
        SEEN.append("load")

    @slipway.enter()
    def open(self) -> None:
        super().open()
        SEEN.append("open again")

    @slipway.method()
    def embed(self, text: str) -> str:
        return f"{self.plain()} {self.size} {text} over {super().embed(text)}"

    @slipway.method()
    def twice(self, text: str) -> str:
        return f"{self.embed.local(text)}!"

    @slipway.method()
    async def later(self, text: str) -> str:
        return f"later {text}"

    @slipway.method()
    def count(self, upto: int) -> Iterator[int]:
        yield from range(upto)

    @slipway.method()
    async def count_later(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    def plain(self) -> str:
        return "plain"

    @staticmethod
    def helper(x: int) -> int:
        return x + 1


MODEL: Any = Model  # a checker sees the class as it is written, not the handle


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


def test_a_class_knows_its_methods_hooks_and_parameters_over_its_bases() -> None:
    assert list(MODEL.methods) == ["embed", "twice", "later", "count", "count_later"]
    kind = MODEL.user_class
    names = [hook.__qualname__ for hook in hooks.hooks(kind, "enter")]
    assert names == ["Model.open", "Model.load"], "a base's hooks first, each where the first of its name stood"
    assert [h.__name__ for h in hooks.hooks(kind, "enter", snap=True)] == ["load"]
    assert [h.__name__ for h in hooks.hooks(kind, "exit")] == ["close"]
    said = {name: (kind, parameter.default) for name, (kind, parameter) in MODEL.parameters.items()}
    assert said == {"level": (int, 1), "size": (str, "small"), "key": (bytes, b"")}


def test_what_a_subclass_does_not_decorate_is_ordinary() -> None:
    class Plainer(Base):
        def embed(self, text: str) -> str:
            return text

        notes = "its own"

    assert hooks.methods(Plainer) == {} and Plainer().embed("x") == "x" and Plainer.notes == "its own"


def test_an_app_knows_its_classes() -> None:
    assert app.classes == {"Model": MODEL} and MODEL.__doc__ == "A model."
    assert repr(MODEL) == "<Cls Model: embed, twice, later, count, count_later>"
    assert repr(MODEL(size="large")) == "Model(size='large')"


def test_a_class_is_not_an_object() -> None:
    assert MODEL.WIDTH == 7 and MODEL.helper(1) == 2
    with pytest.raises(AttributeError, match=r"Model.embed is a method: make an object first, Model\(\).embed"):
        _ = MODEL.embed
    with pytest.raises(AttributeError, match="is a hook"):
        _ = MODEL.load
    with pytest.raises(AttributeError, match=r"Model\(size=...\).size"):
        _ = MODEL.size
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = MODEL.nothing
    with pytest.raises(InvalidError, match="not in this release"):
        MODEL.lookup("shop", "Model")


def test_parameters_are_checked() -> None:
    with pytest.raises(InvalidError, match="takes its parameters by name"):
        MODEL("large")
    with pytest.raises(InvalidError, match=r"no parameter 'sise'\nDid you mean 'size'"):
        MODEL(sise="large")
    with pytest.raises(InvalidError, match="the parameter is of type str, this is of type int"):
        MODEL(size=3)
    with pytest.raises(InvalidError, match="of type int, this is of type bool"):
        MODEL(level=True)
    with pytest.raises(InvalidError, match="no parameter 'hidden'"):
        MODEL(hidden="x")
    with pytest.raises(InvalidError, match="take 16388 bytes, and at most 16384"):
        MODEL(size="x" * 16384)
    assert MODEL(size="é" * 8190)


def test_a_parameter_without_a_default_is_wanted() -> None:
    class Needs:
        name: str = slipway.parameter()

    made = slipway.App("x").cls(serialized=True)(Needs)
    with pytest.raises(InvalidError, match=r"Needs\(\) lacks name\nIts parameters: name: str."):
        made()
    assert made(name="a").name == "a", "a parameter may be called as something of ours"


def test_methods_are_functions(runner: LocalRunner) -> None:
    model = MODEL(size="large")
    assert repr(model.embed) == "<Function Model.embed of class-shop>" and model.embed is model.embed
    assert model.later.is_async and model.count.is_generator and not model.embed.is_generator
    with app.run() as running, pytest.raises(TypeError, match=r"the function is Model.embed\(self, text\)"):
        assert running is app
        model.embed.remote()
    with pytest.raises(InvalidError, match=r"Model.with_options\(...\)\(...\).embed"):
        model.embed.with_options(gpu="A100")
    with pytest.raises(InvalidError, match="can't be called directly"):
        model.embed("x")
    with pytest.raises(ExecutionError, match=r"Model.embed.remote\(\) needs the app to be running"):
        model.embed.remote("x")


def test_calling_here_enters_once() -> None:
    model = MODEL(size="large")
    assert model.twice.local("x") == "plain large x over base x!"
    assert SEEN == ["load", "open", "open again"], "before the snapshot, then after it"
    assert list(model.count.local(3)) == [0, 1, 2] and len(SEEN) == 3
    assert model.WIDTH == 7 and model.size == "large" and model.level == 1 and model.plain() == "plain"
    with pytest.raises(AttributeError, match="hidden has not been set"):
        _ = model.hidden


def test_an_asynchronous_method_enters_when_it_is_awaited() -> None:
    model = MODEL()
    coroutine = model.later.local("x")
    assert SEEN == []

    async def main() -> None:
        both: tuple[Any, ...] = tuple(await asyncio.gather(coroutine, model.later.local.aio("y")))
        assert both == ("later x", "later y")
        assert [number async for number in model.count_later.local(2)] == [0, 1]

    asyncio.run(main())
    assert SEEN == ["load", "open", "open again"]


def test_hooks_that_fail_run_again_and_may_be_asynchronous() -> None:
    class Flaky:
        ready = False

        @slipway.enter()
        async def load(self) -> None:
            SEEN.append("load")
            if len(SEEN) == 1:
                raise OSError("not yet")
            Flaky.ready = True

        @slipway.method()
        def ask(self) -> bool:
            return self.ready

    made = slipway.App("x").cls(serialized=True)(Flaky)()
    with pytest.raises(OSError, match="not yet"):
        made.ask.local()
    assert made.ask.local() is True and SEEN == ["load", "load"]

    async def main() -> None:
        with pytest.raises(InvalidError, match="load is asynchronous, and the method is not"):
            slipway.App("y").cls(serialized=True)(Flaky)().ask.local()

    asyncio.run(main())


def test_two_threads_enter_once() -> None:
    begun = threading.Barrier(2)

    class Slow:
        @slipway.enter()
        def load(self) -> None:
            SEEN.append("load")

        @slipway.method()
        def ask(self) -> int:
            return len(SEEN)

    made = slipway.App("x").cls(serialized=True)(Slow)()

    def ask() -> None:
        begun.wait()
        made.ask.local()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SEEN == ["load"]


def test_a_class_of_another_app() -> None:
    found = slipway.Cls.from_name("shop", "Model")
    assert repr(found(size="x").embed) == "<Function Model.embed of shop>"
    with pytest.raises(AttributeError, match="make an object first"):
        _ = found.embed
    with pytest.raises(ExecutionError, match="its code isn't here"):
        found().embed.local("x")
    with pytest.raises(AttributeError, match="has no method '_repr_html_'"):
        _ = found()._repr_html_
    with pytest.raises(InvalidError, match="the parameter is a str, an int, a bool or bytes"):
        found(size=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="an older version"):
        slipway.Cls.from_name("shop", "Model", version=3)
    with pytest.raises(InvalidError, match="is a method"):
        slipway.Cls.from_name("shop", "Model.embed")
    with pytest.raises(InvalidError, match="name of a class must be a string"):
        slipway.Cls.from_name("shop", 3)  # type: ignore[arg-type]


def test_handles_travel() -> None:
    model = MODEL.with_options(timeout=60)(size="large")
    for handle in (model, model.embed):
        again = pickle.loads(pickle.dumps(handle))
        assert repr(again) == repr(handle)
    assert pickle.loads(pickle.dumps(MODEL)) is MODEL
    again = pickle.loads(pickle.dumps(model.embed))
    assert again.variant == model.embed.variant and again.local("x").startswith("plain large")
    looked_up = pickle.loads(pickle.dumps(slipway.Cls.from_name("other", "Model")(level=2).embed))
    assert repr(looked_up) == "<Function Model.embed of other>" and looked_up.variant.parameters == (("level", 2),)


def test_a_class_can_be_inherited_from_and_asked_about() -> None:
    class Better(MODEL):  # type: ignore[misc]
        @slipway.method()
        def embed(self, text: str) -> str:
            return "better"

    assert Better.__mro__[1] is MODEL.user_class
    assert isinstance(MODEL.user_class(), MODEL) and not isinstance(3, MODEL)
    with pytest.raises(ExecutionError, match="looked up by name"):
        type("Worse", (*slipway.Cls.from_name("a", "B").__mro_entries__(()),), {})


def test_a_variant_is_a_class_of_its_own() -> None:
    quick = MODEL.with_options(timeout=60, cpu=2).with_options(timeout=90).with_concurrency(max_inputs=5)
    assert quick is not MODEL and MODEL.variant is None
    assert quick(size="x").embed.variant.opening() == {
        "parameters": {"size": "x"},
        "options": {
            "cpu_limit_milli": None,
            "cpu_milli": 2000,
            "max_inputs": 5,
            "target_inputs": None,
            "timeout_ms": 90_000,
        },
    }
    assert MODEL.with_batching(max_batch_size=3, wait_ms=5)().embed.variant.options == (
        ("max_batch_size", 3),
        ("wait_ms", 5),
    )
    with pytest.raises(InvalidError, match="can't set min_containers="):
        MODEL.with_options(min_containers=1)


def test_in_a_worker(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type] # nothing is called
    there = slipway.App("there")
    image: Any = inside.Image()

    class Model:
        size: str = inside.parameter(default="small")
        level: int = inside.parameter()

        @inside.enter(snap=True)
        def load(self) -> None:
            SEEN.append("load")

        @inside.exit()
        def close(self) -> None: ...

        @inside.batched(max_batch_size=3, wait_ms=1)
        def embed(self, texts: list[str]) -> list[str]:
            return [f"{self.size}{self.level}{text}" for text in texts]

        @inside.method()
        def again(self, text: str) -> Any:
            return self.embed.local([text])

    declared = there.cls(gpu="A100", image=image)(inside.concurrent(max_inputs=3)(Model))
    user_class, cls = instance.loaded(declared, "Model")
    assert user_class is Model and cls is declared and there.classes == {"Model": declared}
    served = instance.make(user_class, {"level": 3}, cls)
    assert served.again.local("x") == ["small3x"] and SEEN == [], "whoever serves it runs the hooks"
    assert [h.__name__ for h in hooks.hooks(user_class, "enter", snap=True)] == ["load"]
    assert served.embed.target("remote")[1].opening() == {
        "app": "ap-1",
        "function": "Model",
        "member": "embed",
        "parameters": {"level": 3},
    }


def test_a_class_that_came_by_value_has_a_handle_too(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type]
    user_class, cls = instance.loaded(Base, "Base")
    served = instance.make(user_class, {}, cls)
    assert repr(served.embed) == "<Function Base.embed>" and served.embed.local("x") == "base x"
    assert served.embed.target("remote")[1].app == "ap-1"
    again = pickle.loads(pickle.dumps(served.embed))
    assert again.target("remote")[1].opening() == {"app": "ap-1", "function": "Base", "member": "embed"}
    with pytest.raises(ExecutionError, match="not a class in the container"):
        instance.loaded(3, "Base")


def test_the_methods_of_a_variant_lead_to_workers_of_its_kind(in_worker: Callable[[Running], None]) -> None:
    opening = (
        MODEL.with_options(gpu="A100", volumes={"/a": slipway.Volume.from_name("a")}, env={"B": "2"})
        .with_options(secrets=[slipway.Secret.from_dict({"A": "1"})])(level=3)
        .embed.variant.opening()
    )
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type]
    user_class, cls = instance.loaded(Base, "Base", json.loads(json.dumps(opening)))
    served = instance.make(user_class, {"level": 3}, cls)
    assert json.dumps(served.embed.variant.opening()) == json.dumps(opening)
    assert hash(served.embed.variant) and "'1'" not in repr(served.embed.variant)


def test_missing_modules_are_told_when_the_class_is_wanted(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type]
    image: Any = inside.Image()
    with image.imports():
        raise ModuleNotFoundError("no torch")
    made = slipway.App("there", image=image).cls()(type("Model", (), {}))
    with pytest.raises(ModuleNotFoundError, match="no torch"):
        instance.loaded(made, "Model")


# --- what can't be ------------------------------------------------------------------------------------


def cls_of(**members: Any) -> type:
    return type("Model", (), members)


def refused(made: type, **options: Any) -> str:
    with pytest.raises(InvalidError) as caught:
        slipway.App("x").cls(serialized=True, **options)(made)
    return str(caught.value)


def test_classes_that_can_not_be() -> None:
    def work(self: Any, x: int) -> int:
        return x

    class Parent:
        def __init__(self) -> None: ...

    assert "has an __init__ of its own" in refused(cls_of(__init__=lambda self: None))
    assert "by way of Parent" in refused(type("Child", (Parent,), {}))
    assert "no __dict__" in refused(cls_of(__slots__=()))
    snap = slipway.enter(snap=True)(work)
    assert "enable_memory_snapshot=True" in refused(cls_of(load=snap))
    assert "enable_memory_snapshot=True" in refused(cls_of(load=snap), enable_memory_snapshot=False)
    batched = slipway.batched(max_batch_size=2, wait_ms=1)(work)
    assert "the only method" in refused(cls_of(work=batched, other=slipway.method()(work)))
    both = slipway.concurrent(max_inputs=2)(cls_of(work=batched))
    assert "not both" in refused(both)  # type: ignore[arg-type]
    alone = slipway.method()(slipway.concurrent(max_inputs=2)(work))
    assert "for a whole class, not for one method like Model.work" in refused(cls_of(work=alone))
    assert "of type float" in refused(cls_of(__annotations__={"size": float}, size=slipway.parameter()))
    assert "of type Unknown" in refused(cls_of(__annotations__={"size": "Unknown"}, size=slipway.parameter()))
    assert "has no annotation" in refused(cls_of(size=slipway.parameter()))
    mixed = cls_of(__annotations__={"size": "int"}, size=slipway.parameter(default="x"))
    assert "is 'x', which is no int" in refused(mixed)
    generator = slipway.method(is_generator=True)(work)
    assert "its methods are generators" in refused(cls_of(work=generator), retries=3)
    with pytest.raises(InvalidError, match="defined inside of a function"):
        slipway.App("x").cls()(type("Model", (), {"__qualname__": "f.<locals>.Model"}))
    with pytest.raises(InvalidError, match="part of an app already"):
        slipway.App("x").cls()(MODEL)
    with pytest.raises(TypeError, match=r"work isn't one: use @app\.function"):
        slipway.App("x").cls()(work)
    with pytest.raises(InvalidError, match="decorates plain functions and methods, not a staticmethod"):
        slipway.method()(staticmethod(work))
    with pytest.raises(InvalidError, match="decorated with both 'enter' and 'method'"):
        slipway.method()(slipway.enter()(work))
    with pytest.raises(InvalidError, match="a str, int, bool or bytes"):
        slipway.parameter(default=1.5)


def test_names_of_functions_and_classes_are_one_lot() -> None:
    shop = slipway.App("shop")
    shop.cls(serialized=True)(cls_of())
    shop.function(name="Model", serialized=True)(lambda: None)
    assert [(f.severity, f.address, f.found) for f in shop.faults] == [
        ("error", "function Model", "class Model and function Model")
    ]
    other = slipway.App("other")
    other.cls(serialized=True)(cls_of())
    other.cls(serialized=True)(cls_of())
    assert [f.found for f in other.faults] == ["class Model, twice"]
    third = slipway.App("third")
    third.function(name="Model", serialized=True)(lambda: None)
    third.include(slipway.App("fourth")).include(other)
    assert list(third.functions) == [] and list(third.classes) == ["Model"]
    assert [f.severity for f in third.faults] == ["warning", "error"]
