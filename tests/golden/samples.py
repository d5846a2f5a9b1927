"""The values whose digests are kept. To write the files anew: python tests/golden/samples.py

Do that only together with a new FORMAT in compiler/encode.py and a line in the changelog, or where a class, a field or
a sample was *added*: a changed line means that every home builds every layer again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from slipway.compiler.encode import digest_of, to_wire
from slipway.compiler.facts import BaseFact, BaseNeed, Facts, FileEntry, TreeFact, TreeNeed, VolumeFact, VolumeNeed
from slipway.compiler.lower import compile
from slipway.compiler.nodes import BaseSpec, BundleSpec, FunctionSpec, LayerSpec, ScheduleSpec, SecretSpec, VolumeSpec
from slipway.compiler.plan import Verb
from slipway.compiler.wire import CLASSES
from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AppDecl,
    AptInstall,
    BuildDockerfile,
    CronDecl,
    DebianSlim,
    DockerfileCommands,
    FunctionDecl,
    ImageDecl,
    LocalSource,
    MicromambaInstall,
    Origin,
    PeriodDecl,
    PipInstall,
    Resources,
    Retries,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    SourceDecl,
    StepOptions,
    UvSync,
    VolumeDecl,
)

DIGESTS = Path(__file__).with_name("digests.json")
DEFAULTS = Path(__file__).with_name("classes.json")

A = "sha256:" + "a" * 64
APP_FILE = FileEntry(path="/root/app.py", mode=0o644, digest=A, size=10, source="/home/u/app.py")
SCRIPT = LocalSource(local="/home/u/app.py", remote="/root/app.py")
DATA = LocalSource(local="/home/u/data", remote="/srv/data", is_dir=True, ignore=("*.pyc",))

APP = AppDecl(
    name="search",
    images=(
        ImageDecl(
            name="search",
            base=DebianSlim(python_version="3.11"),
            steps=(
                AptInstall(packages=("git",)),
                PipInstall(packages=("numpy<2", "scikit-learn")),
                Setting(what="env", env=(("HF_HOME", "/models"),)),
                AddLocal(sources=(DATA,)),
            ),
        ),
    ),
    functions=(
        FunctionDecl(
            name="index",
            module="app",
            qualname="index",
            image=0,
            code=SourceDecl(sources=(SCRIPT,)),
            volumes=(("/models", VolumeDecl(name="models", create_if_missing=True)),),
            schedule=CronDecl(expression="0 3 * * 1", timezone="Europe/Berlin"),
        ),
    ),
    origin=Origin(file="/home/u/app.py", line=3),
)
FACTS = Facts(
    runtime="native",
    found=(
        (BaseNeed(kind="debian_slim", ref="3.11"), BaseFact(identity=(("os", "debian 12"), ("python", "3.11.7")))),
        (TreeNeed(source=SCRIPT), TreeFact(files=(FileEntry(path="", mode=0o644, digest=A),))),
        (TreeNeed(source=DATA), TreeFact(files=(FileEntry(path="x/y.csv", mode=0o644, digest=A),))),
        (VolumeNeed(name="models"), VolumeFact(exists=False)),
    ),
)

SAMPLES: dict[str, object] = {
    "null": None,
    "true": True,
    "one": 1,
    "text": 'grüße, \U0001f600 "quoted"\n',
    "tuple": (1, "1", (), None),
    "verb": Verb.REPLACE,
    "pip_install": PipInstall(packages=("numpy<2", "rich"), index_url="https://example.org/simple", pre=True),
    "uv_sync": UvSync(project=LocalSource(local="/p", remote="/app", is_dir=True), groups=("dev",)),
    "run_commands": RunCommands(commands=("make", "make install"), volumes=(("/cache", VolumeDecl(name="cache")),)),
    "run_function": RunFunction(module="app", qualname="download", source="def download(): ...\n", arguments="()"),
    "step with a secret": RunCommands(
        commands=("make",), options=StepOptions(secrets=(SecretDecl(slot="dict:TOKEN#0", keys=("TOKEN",)),), gpu="A100")
    ),
    "base": BaseSpec(identity=(("os", "debian 12"), ("python", "3.11.7"))),
    "layer": LayerSpec(step=AptInstall(packages=("git",)), files=(APP_FILE,), secrets=(("dict:TOKEN#0", 2),)),
    "micromamba_install": MicromambaInstall(packages=("pymc>=5",), channels=("conda-forge",)),
    "dockerfile_commands": DockerfileCommands(commands=("COPY a /b",), context=(DATA,), build_args=(("A", "1"),)),
    "dockerfile": BuildDockerfile(text="FROM a\nCOPY a /b", context=(DATA,), build_args=(("A", "1"),)),
    "add_python": AddPython(version="3.12", resolved="cpython-3.12.9-linux-x86_64-gnu"),
    "base of a registry": BaseSpec(identity=(("manifest", A), ("platform", "linux/amd64")), auth=(("s", 1),)),
    "bundle": BundleSpec(files=(APP_FILE,)),
    "volume": VolumeSpec(name="models"),
    "secret": SecretSpec(slot="dict:TOKEN#0", keys=("TOKEN",), version=3),
    "function": FunctionSpec(
        name="f", module="app", qualname="f", resources=Resources(gpus=("H100:2",)), retries=Retries(max_retries=3)
    ),
    "schedule": ScheduleSpec(function="f", schedule=PeriodDecl(days=1, ms=500)),
}


def digests() -> dict[str, str]:
    graph = compile(APP, FACTS)
    found = {name: digest_of(value) for name, value in SAMPLES.items()}
    return found | {f"app: {node.address}": node.digest for node in graph.nodes}


def classes() -> dict[str, dict[str, dict[str, Any]]]:
    """Per KIND its fields: whether they are identity, and their default. Defaults are left out of an identity, so a
    default that changes would change what an old digest means."""
    return {
        cls.KIND: {
            a.name: {"identity": bool(a.eq)} | ({} if a.default is attrs.NOTHING else {"default": to_wire(a.default)})
            for a in attrs.fields(cls)
        }
        for cls in CLASSES
    }


if __name__ == "__main__":
    for path, data in ((DIGESTS, digests()), (DEFAULTS, classes())):
        path.write_text(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
