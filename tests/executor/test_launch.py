"""From a graph to what workers get: what anybody may read apart from what nobody may."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from assembly import Assembly, app
from fakes import FakeRuntime

from slipway.dsl.declaration import (
    Autoscaling,
    Concurrency,
    FunctionDecl,
    MethodDecl,
    ParameterDecl,
    Resources,
    SecretDecl,
    Setting,
)
from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.home import Home
from slipway.executor.indexes import Indexes
from slipway.executor.launch import Launcher, LiveApp
from slipway.executor.pool import PoolSpec
from slipway.executor.ports import Limits

ENV = Setting(what="env", env=(("MODE", "fast"), ("SLIPWAY_APP", "mine"), ("TOKEN", "from the image")))
SECRETS = (SecretDecl(slot="a", keys=("TOKEN", "KEY")), SecretDecl(slot="b", keys=("KEY", "SLIPWAY_WORKER_TOKEN")))
NOTHING = Resources()
VALUES = {
    "a": {"TOKEN": "first-value", "KEY": "second-value"},
    "b": {"KEY": "third-value", "SLIPWAY_WORKER_TOKEN": "fourth-value"},
}


def pool(
    tmp_path: Path, *steps: Setting, secrets: tuple[SecretDecl, ...] = (), resources: Resources = NOTHING
) -> PoolSpec:
    """The pool of a function `f` of an app that runs under the id ap-1."""

    async def main() -> PoolSpec:
        async with Assembly.opened(tmp_path, FakeRuntime(), indexes=Indexes()) as made:
            function = FunctionDecl(name="f", module="app", qualname="f", image=0, secrets=secrets, resources=resources)
            decl = app(steps, functions=(function,))
            graph = await made.graph(decl, VALUES)
            await made.apply(decl, VALUES)
            launcher = Launcher(Home(tmp_path), made.state, made.seal, made.bundles)
            return (await launcher.live("ap-1", graph)).pools["f"]

    return asyncio.run(main())


def test_secrets_are_apart_from_settings_and_neither_takes_our_names(tmp_path: Path) -> None:
    worker = pool(tmp_path, ENV, secrets=SECRETS).worker
    plain = dict(worker.container.env)
    assert plain == {
        "MODE": "fast",
        "TOKEN": "from the image",
        "SLIPWAY_APP": "app",
        "SLIPWAY_IS_REMOTE": "1",
    }
    assert dict(worker.env) == {"TOKEN": "first-value", "KEY": "third-value"}
    assert set(worker.secrets) == {"first-value", "second-value", "third-value", "fourth-value"}


def test_what_is_not_said_is_left_to_the_image(tmp_path: Path) -> None:
    worker = pool(tmp_path).worker
    assert (worker.cwd, worker.container.entrypoint) == (None, None)
    assert worker.container.labels == (("app", "app"), ("run", "ap-1"), ("function", "f"))


def test_an_entrypoint_can_be_taken_away(tmp_path: Path) -> None:
    worker = pool(tmp_path, Setting(what="entrypoint"), Setting(what="workdir", values=("/srv",))).worker
    assert (worker.cwd, worker.container.entrypoint) == ("/srv", ())


def test_a_request_alone_is_a_limit_too(tmp_path: Path) -> None:
    asked = Resources(cpu_milli=500, memory_mib=256, memory_limit_mib=512, ephemeral_disk_mib=1024)
    limits = pool(tmp_path, resources=asked)
    assert limits.worker.container.limits == Limits(
        cpu_milli=500, memory_mib=512, cpu_request_milli=500, memory_request_mib=256, disk_mib=1024
    )
    assert dict(limits.worker.container.env)["OMP_NUM_THREADS"] == "1"


# --- classes and variants -----------------------------------------------------------------------------

MODEL = FunctionDecl(
    name="Model",
    module="app",
    qualname="Model",
    image=0,
    methods=(MethodDecl(name="embed"), MethodDecl(name="items", is_async=True, is_generator=True)),
    parameters=(ParameterDecl(name="level", type="int", default="3"), ParameterDecl(name="size", type="str")),
    secrets=SECRETS[:1],
    concurrency=Concurrency(max_inputs=4),
    autoscaling=Autoscaling(min_containers=1),
    memory_snapshot=True,
)
PLAIN = FunctionDecl(name="f", module="app", qualname="f", image=0, autoscaling=Autoscaling(min_containers=1))


def with_launcher(tmp_path: Path, act: Callable[[Launcher, LiveApp], Awaitable[None]]) -> None:
    """Act on an app that runs under the id ap-1."""

    async def main() -> None:
        async with Assembly.opened(tmp_path, FakeRuntime(), indexes=Indexes()) as made:
            decl = app((), functions=(MODEL, PLAIN))
            graph = await made.graph(decl, VALUES)
            await made.apply(decl, VALUES)
            launcher = Launcher(Home(tmp_path), made.state, made.seal, made.bundles)
            await act(launcher, await launcher.live("ap-1", graph))

    asyncio.run(main())


def test_a_class_starts_with_its_parameters(tmp_path: Path) -> None:
    async def act(launcher: Launcher, live: LiveApp) -> None:
        plain = live.pools["Model"]
        assert plain.limits.min_workers == 0, "nobody can say yet what its workers would be made with"
        assert live.pools["f"].limits.min_workers == 1
        made = await launcher.variant(live, "Model", {"parameters": {"size": "large"}})
        start = made.worker.function
        assert start.methods == (("embed", False, False), ("items", True, True))
        assert start.parameters == (("level", 3), ("size", "large"))
        assert start.snapshot and not start.batched and start.concurrency == 4
        assert made.key.startswith(f"{plain.key} sha256:") and made.function == "Model"
        assert made.worker.env == plain.worker.env == (("TOKEN", "first-value"), ("KEY", "second-value"))
        again = await launcher.variant(live, "Model", {"parameters": {"size": "large", "level": 3}})
        other = await launcher.variant(live, "Model", {"parameters": {"size": "large", "level": 4}})
        assert again == made and other.key != made.key
        with pytest.raises(InvalidError, match="lacks size"):
            await launcher.variant(live, "Model", {})

    with_launcher(tmp_path, act)


def test_a_variant_has_what_it_says_and_the_rest_of_the_function(tmp_path: Path) -> None:
    async def act(launcher: Launcher, live: LiveApp) -> None:
        assert await launcher.variant(live, "f", {"method": "x", "options": {}}) is live.pools["f"]
        said = {
            "cpu_milli": 2000,
            "cpu_limit_milli": None,
            "timeout_ms": 5000,
            "gpus": ["T4"],
            "max_containers": 7,
            "volumes": [["/data", "data", True, "sub", True]],
        }
        made = await launcher.variant(
            live, "f", {"options": {**said, "env": "e"}, "secrets": {"e": {"A": "new-value"}}}
        )
        assert made.limits.timeout == 5.0 and made.limits.max_workers == 7 and made.limits.min_workers == 0
        worker = made.worker
        assert worker.container.limits.cpu_milli == 2000 and worker.gpus == ("T4",) and worker.startup_timeout == 5.0
        assert dict(worker.container.env)["OMP_NUM_THREADS"] == "2"
        (mount,) = worker.container.mounts
        assert (mount.target, mount.read_only) == ("/data", True) and os.path.isdir(mount.source)  # noqa: ASYNC240
        assert worker.env == (("A", "new-value"),) and "new-value" in worker.secrets
        with pytest.raises(NotFoundError, match="no volume other"):
            await launcher.variant(live, "f", {"options": {"volumes": [["/data", "other", False, None, False]]}})

    with_launcher(tmp_path, act)


def test_secrets_of_a_variant_replace_and_its_env_is_laid_over_all(tmp_path: Path) -> None:
    async def act(launcher: Launcher, live: LiveApp) -> None:
        size = {"parameters": {"size": "x"}}
        values = {"e": {"KEY": "mine", "SLIPWAY_APP": "no"}, "0": {"KEY": "one"}, "1": {"KEY": "two", "MORE": "three"}}
        laid = await launcher.variant(live, "Model", {**size, "options": {"env": "e"}, "secrets": values})
        assert dict(laid.worker.env) == {"TOKEN": "first-value", "KEY": "mine"}
        assert set(laid.worker.secrets) >= {"first-value", "second-value", "mine"}
        both = {"options": {"secrets": ["0", "1"]}, "secrets": values}
        replaced = await launcher.variant(live, "Model", {**size, **both})
        assert dict(replaced.worker.env) == {"KEY": "two", "MORE": "three"}
        assert set(replaced.worker.secrets) == {"one", "two", "three"}
        assert "three" not in replaced.key and len({laid.key, replaced.key}) == 2

    with_launcher(tmp_path, act)
