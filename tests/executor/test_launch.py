"""From a graph to what workers get: what anybody may read apart from what nobody may."""

from __future__ import annotations

import asyncio
from pathlib import Path

from assembly import Assembly, app
from fakes import FakeRuntime

from slipway.dsl.declaration import FunctionDecl, Resources, SecretDecl, Setting
from slipway.executor.home import Home
from slipway.executor.indexes import Indexes
from slipway.executor.launch import Launcher
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
