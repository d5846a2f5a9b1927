"""Images as chains of steps: what each builder takes and writes down."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError

import slipway
from slipway import Image
from slipway.dsl.declaration import AddLocal, FromDockerfile, FromRegistry, PipInstall, RunCommands, Setting, UvSync
from slipway.dsl.errors import InvalidError
from slipway.dsl.session import Running

slim = Image.debian_slim()
loose: Any = slim  # for arguments of wrong types
SECRET = slipway.Secret.from_dict({"TOKEN": "t"})


def step(image: Image) -> Any:
    return image.items[-1].step


def build(path: str = "/x") -> None: ...


def test_chains_are_immutable() -> None:
    one = slim.pip_install("a")
    two = one.apt_install("b")
    assert (len(slim.items), len(one.items), len(two.items)) == (0, 1, 2)
    assert two.items[0] is one.items[0]
    with pytest.raises(FrozenInstanceError):
        one.force = True  # type: ignore[misc]


def test_pip_steps() -> None:
    made = step(slim.pip_install("b", ["a<2", "b"], ("c",), index_url="https://i", pre=True, extra_options="--no-deps"))
    assert isinstance(made, PipInstall) and made.packages == ("a<2", "b", "c")
    assert (made.index_url, made.pre, made.extra_options, made.method) == (
        "https://i",
        True,
        "--no-deps",
        "pip_install",
    )
    assert slim.pip_install() is slim
    made = step(slim.uv_pip_install("x", requirements=["a.txt", "b.txt"]))
    assert [(s.local, s.remote) for s in made.requirements] == [
        ("a.txt", "/.slipway/build/requirements-0.txt"),
        ("b.txt", "/.slipway/build/requirements-1.txt"),
    ]
    assert slim.uv_pip_install("x", uv_version="0.4").items[-1].ignored == ("uv_version",)
    made = step(slim.pip_install_from_requirements("r.txt", "https://links"))
    assert (made.requirements[0].local, made.find_links) == ("r.txt", "https://links")
    made = step(slim.pip_install_from_pyproject("pyproject.toml", ["dev", "test"], extra_index_url="u"))
    assert (made.pyproject.local, made.optional_dependencies) == ("pyproject.toml", ("dev", "test"))
    sync = step(slim.uv_sync("proj", groups=["g"], extras=["e"], frozen=False))
    assert isinstance(sync, UvSync) and sync.project.only == ("pyproject.toml", "uv.lock") and not sync.frozen


def test_system_steps() -> None:
    assert step(slim.apt_install("z", "a", "z")).packages == ("z", "a", "z")
    made = step(slim.run_commands(["a", "b"], "c", volumes={"/v": slipway.Volume.from_name("v")}))
    assert isinstance(made, RunCommands) and made.commands == ("a", "b", "c") and made.volumes[0][1].name == "v"
    assert slim.apt_install() is slim and slim.run_commands() is slim and slim.dockerfile_commands([]) is slim
    made = step(
        slim.dockerfile_commands("RUN x", context_files={"/a.txt": "a.txt"}, context_dir=".", build_args={"A": "1"})
    )
    assert [(s.local, s.remote, s.is_dir) for s in made.context] == [(".", "/", True), ("a.txt", "/a.txt", False)]
    made = step(Image.micromamba("3.11").micromamba_install("pymc", spec_file="env.yml", channels=["conda-forge"]))
    assert (made.packages, made.channels, made.spec_file.local) == (("pymc",), ("conda-forge",), "env.yml")


def test_settings() -> None:
    made = slim.env({"B": "2", "A": "1"}).workdir("/w").entrypoint(["/e"]).shell(["/s", "-c"]).cmd(["c"])
    steps = [item.step for item in made.items]
    assert all(isinstance(s, Setting) for s in steps)
    assert steps[0].env == (("B", "2"), ("A", "1"))  # type: ignore[union-attr]
    assert [s.values for s in steps[1:]] == [("/w",), ("/e",), ("/s", "-c"), ("c",)]  # type: ignore[union-attr]
    assert repr(made) == "<Image debian_slim, env, workdir, entrypoint, shell, cmd>"


def test_bases() -> None:
    base = Image.from_registry("python:3.12", SECRET, setup_dockerfile_commands=["RUN x"], add_python="3.12", gpu="T4")
    assert isinstance(base.base, FromRegistry) and base.base.setup_commands == ("RUN x",)
    assert (base.registry_secret, base.secrets, base.ignored) == (SECRET, (), ("gpu",))
    made = Image.from_dockerfile(
        "Dockerfile", context_dir="ctx", build_args={"A": "1"}, env={"E": "e"}, secrets=[SECRET]
    )
    assert isinstance(made.base, FromDockerfile) and made.base.build_args == (("A", "1"),)
    assert [secret.kind for secret in made.secrets] == ["dict", "env"]
    assert Image.from_dockerfile("Dockerfile", registry_secret=SECRET).registry_secret is SECRET


def test_local_files() -> None:
    made = step(slim.add_local_file("/a/model.yaml", "/etc/"))
    assert made == AddLocal(sources=made.sources, copy=False, method="add_local_file")
    assert made.sources[0].remote == "/etc/model.yaml"
    image = slim.add_local_dir("assets", "/assets/", copy=True, ignore=["*.tmp", "!keep.tmp"])
    assert step(image).copy and step(image).sources[0].remote == "/assets"
    assert image.items[-1].ignore == ("*.tmp", "!keep.tmp")
    image = slim.add_local_python_source("a", "b.c")
    assert image.items[-1].modules == ("a", "b.c")
    assert slim.add_local_python_source() is slim


def test_what_every_step_takes() -> None:
    image = slim.apt_install("a", env={"A": "1"}, secrets=[SECRET], gpu="h100", force_build=True).pip_install("b")
    first, second = image.items
    assert [secret.kind for secret in first.secrets] == ["dict", "env"]
    assert (first.step.options.gpu, first.step.options.force_build) == ("H100", True)
    assert second.step.options.force_build, "what follows a forced step is forced"
    assert Image.debian_slim(force_build=True).pip_install("a").items[0].step.options.force_build
    assert first.step.origin.file == __file__ and first.step.origin.line > 0


def test_run_function() -> None:
    image = slim.run_function(build, args=("/y",), kwargs={}, timeout=60, cpu=2, region="eu", include_source=False)
    item = image.items[-1]
    assert item.function is build and item.args == ("/y",) and not item.include_source
    assert (step(image).qualname, step(image).timeout_ms, item.ignored) == ("build", 60_000, ("cpu", "region"))


def nested() -> Callable[[], None]:
    def inside() -> None: ...

    return inside


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: slim.pip_install("-r x.txt"), "is an option"),
        (lambda: loose.pip_install(3), "takes strings, not int"),
        (lambda: slim.pip_install(" "), "an empty package name"),
        (lambda: loose.apt_install(None), "takes strings, not NoneType"),
        (lambda: loose.env({"A": 1}), "the value of A must be a string"),
        (lambda: loose.env([1]), "Image.env takes a dict"),
        (lambda: loose.entrypoint("bash"), "takes a list of strings"),
        (lambda: slim.add_local_file("a", "etc/a"), "must be absolute, and 'etc/a' isn't"),
        (lambda: slim.add_local_dir("a", "/x/../y"), 'may not have ".." in it'),
        (lambda: loose.add_local_dir(3, "/x"), "takes a local path, not int"),
        (lambda: slim.add_local_dir("a", "/x", ignore="*.py"), "ignore= takes a list of patterns"),
        (lambda: slim.add_local_python_source("./lib"), "takes names of modules, and './lib' is none"),
        (lambda: slim.run_function(lambda: 1), "a build must find it by name"),
        (lambda: slim.run_function(nested()), "a build must find it by name"),
        (lambda: loose.run_function("build"), "takes a plain Python function, not str"),
        (lambda: slim.run_function(build, timeout=None), "timeout=None: it takes seconds"),
        (lambda: loose.pipe(lambda image: 3), "returned int, not an Image"),
        (lambda: slim.apt_install("a", gpu=["A", "B"]), "takes one kind of GPU"),
        (lambda: Image.debian_slim("3"), "python_version='3' isn't a version of Python 3"),
        (lambda: Image.debian_slim("2.7"), "isn't a version of Python 3"),
        (lambda: Image.from_registry(""), "the tag of an image must be a string, not an empty string"),
        (lambda: Image.from_scratch(), "Image.from_scratch is not in this release"),
    ],
)
def test_wrong_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        make()
    assert str(caught.value).startswith(f"{__file__}:")


def test_types_that_are_no_version() -> None:
    for version in (3.1, 3):
        with pytest.raises(TypeError, match="python_version must be a string, not a number"):
            Image.debian_slim(version)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Image.apt_install\(\) has no parameter 'secret'. Did you mean 'secrets'"):
        slim.apt_install("a", secret=SECRET)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"Image.pip_install\(\) has no parameter 'index'. Did you mean 'index_url'"):
        slim.pip_install("a", index="x")  # type: ignore[call-arg]


def test_imports_may_fail_here() -> None:
    image = slim.pip_install("x")
    with image.imports():
        importlib.import_module("a_module_that_is_nowhere")
    assert isinstance(image.failures[0], ImportError)
    with pytest.warns(UserWarning, match="an import for an image failed here: ValueError: bad"), image.imports():
        raise ValueError("bad")
    assert image.apt_install("y").failures == []
    function = slipway.App("a", image=image).function()(build)
    assert function.raw is build, "here the function can be had all the same"


def test_imports_may_not_fail_in_a_worker_of_that_image(in_worker: Callable[[Running], None]) -> None:
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type]
    image = slim.pip_install("x")
    with warnings.catch_warnings(), image.imports():
        importlib.import_module("a_module_that_is_nowhere")
    app = slipway.App("a")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        _ = app.function(image=image)(build).raw
    assert app.function(image=slim, name="other")(build).raw is build


def test_values_of_handles() -> None:
    assert slipway.Cron("0  3 * * *").decl.expression == "0 3 * * *"
    assert slipway.Cron("0 3 * * *") == slipway.Cron("0 3 * * *")
    with pytest.raises(InvalidError, match="a cron expression must be a string, not int"):
        slipway.Cron(3)  # type: ignore[arg-type]
    assert slipway.Period(minutes=1, seconds=0.5).decl.ms == 60_500
    wrong: Any
    for wrong in ({}, {"days": 1.5}, {"days": -1}, {"seconds": -1}, {"hours": True}):
        with pytest.raises(InvalidError):
            slipway.Period(**wrong)
    bad: Any
    for bad in ({"backoff_coefficient": 0.5}, {"initial_delay": 61}, {"max_delay": 0}, {"max_retries": -1}):
        with pytest.raises(InvalidError):
            slipway.Retries(**({"max_retries": 1} | bad))


def test_volumes() -> None:
    volume = slipway.Volume.from_name("v", create_if_missing=True).with_mount_options(sub_path="/a/b/").read_only()
    assert (volume.decl.sub_path, volume.decl.read_only, volume.decl.create_if_missing) == ("a/b", True, True)
    volume.commit()
    volume.reload()
    for name in ("", "a/b", "..", 3):
        with pytest.raises(InvalidError):
            slipway.Volume.from_name(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="leads out of the volume"):
        volume.with_mount_options(sub_path="../x")
    with pytest.raises(InvalidError, match=r"Volume\.listdir is not in this release"):
        volume.listdir("/")


def test_secrets_show_no_value() -> None:
    for secret in (
        slipway.Secret.from_dict({"A": "hidden-value"}),
        slipway.Secret.from_local_environ(["PATH"]),
        slipway.Secret.from_dotenv(),
        slipway.Secret.from_name("n"),
    ):
        assert "hidden-value" not in repr(secret)
    for wrong in ({1: "a"}, {"A B": "x"}, {"A": "\0"}, {"A": "x" * 40_000}, ["A"]):
        with pytest.raises(InvalidError) as caught:
            slipway.Secret.from_dict(wrong)  # type: ignore[arg-type]
        assert "xxx" not in str(caught.value)
    with pytest.raises(InvalidError, match="takes a list of names"):
        slipway.Secret.from_local_environ("PATH")
    with pytest.raises(InvalidError, match=r"Secret\.update is not in this release"):
        slipway.Secret.from_dict({}).update({})
