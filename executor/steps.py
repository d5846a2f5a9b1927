"""How a build step becomes commands, for every runtime the same way. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

import json
import shlex

from attrs import field, frozen

from slipway.compiler.facts import FileEntry
from slipway.compiler.nodes import LayerSpec
from slipway.dsl.declaration import AddLocal, AptInstall, PipInstall, RunCommands, RunFunction, UvSync, VolumeDecl
from slipway.dsl.errors import InvalidError

from .images import ImageConfig

OURS = "/.slipway"  # everything of ours that a build container sees is mounted below
UV = f"{OURS}/bin/uv"
CACHE = f"{OURS}/cache"
FILES = f"{OURS}/files"  # the files of the step, laid out like a container's root
BUILD_FOLDER = f"{OURS}/build"  # where requirements lists and projects say that they are
PROJECT = f"{BUILD_FOLDER}/project"
VENV_PYTHON = "/venv/bin/python"  # the native runtime's environment for the user's packages
BUILD_FUNCTION = f"{OURS}/lib/slipway/executor/worker/build_function.py"
EPOCH = "315532800"  # 1980: the first time that a zip file, so a wheel, can hold

# What `uv pip install` understands of what `pip install` does. Any other option is left to pip itself.
UV_OPTIONS = frozenset(
    (
        "--build-constraint",
        "--config-setting",
        "--config-settings",
        "--constraint",
        "--editable",
        "--exclude-newer",
        "--extra",
        "--extra-index-url",
        "--find-links",
        "--force-reinstall",
        "--group",
        "--ignore-installed",
        "--index-url",
        "--no-binary",
        "--no-build-isolation",
        "--no-cache",
        "--no-cache-dir",
        "--no-deps",
        "--no-index",
        "--only-binary",
        "--pre",
        "--quiet",
        "--requirement",
        "--require-hashes",
        "--trusted-host",
        "--upgrade",
        "--upgrade-package",
        "--verbose",
        *("-C", "-P", "-U", "-b", "-c", "-e", "-f", "-i", "-q", "-r", "-v"),
    )
)


@frozen(kw_only=True)
class Recipe:
    """What to do in a container so that its layer comes about. Paths in `caches` are names below the home's cache."""

    commands: tuple[tuple[str, ...], ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    stdin: bytes = field(default=b"", repr=False)  # of every command
    files: tuple[FileEntry, ...] = ()  # appear below FILES
    build_folder: bool = False  # what of `files` lies below BUILD_FOLDER appears there too
    code: tuple[FileEntry, ...] = ()  # the user's code, laid over the image while the step runs
    worker: bool = False  # our own package is needed
    uv: bool = False
    caches: tuple[str, ...] = ()
    alone: str = ""  # steps with the same word here never run at the same time
    volumes: tuple[tuple[str, VolumeDecl], ...] = ()
    timeout_ms: int | None = None


def recipe(spec: LayerSpec, *, runtime: str, config: ImageConfig) -> Recipe:
    """The commands of a step in a container of the image so far. Raises `InvalidError` where it can't be built."""
    step = spec.step
    match step:
        case PipInstall():
            return _pip(step, spec.files, runtime)
        case UvSync():
            return _uv_sync(step, spec.files, runtime)
        case AptInstall():
            return _apt(step)
        case RunCommands():
            return _commands(step, config)
        case RunFunction():
            return _function(step, spec.code, config)
        case AddLocal():
            copy = ("/bin/sh", "-c", f"umask 022 && cp -RP {FILES}/. /")
            return Recipe(commands=(copy,), files=spec.files)
        case _:
            raise InvalidError(
                f"{step.origin}: the {runtime} runtime can't build {step.KIND}",
                hint="Try --runtime docker.",
            )


BASE_ENV = (
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("PIP_CACHE_DIR", f"{CACHE}/pip"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_NO_INPUT", "1"),
    ("PIP_PROGRESS_BAR", "off"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
    ("UV_CACHE_DIR", f"{CACHE}/uv"),
    ("UV_LINK_MODE", "copy"),  # a cache on another file system can't be linked from
    ("UV_NO_PROGRESS", "1"),
    ("UV_PYTHON_DOWNLOADS", "never"),
)
# Compiled as Python itself would: with the source's time in it, so that a later step can change a source file.
COMPILED = (("PYC_INVALIDATION_MODE", "TIMESTAMP"), ("SOURCE_DATE_EPOCH", EPOCH))
# What a program that is run once leaves behind is its result, not its byte code.
UNCOMPILED = (("PYTHONDONTWRITEBYTECODE", "1"),)
PACKAGE_CACHES = ("uv", "pip")
IS_REMOTE = ("SLIPWAY_IS_REMOTE", "1")


# --- Python packages ----------------------------------------------------------------------------------


def _pip(step: PipInstall, files: tuple[FileEntry, ...], runtime: str) -> Recipe:
    arguments = [*step.packages]
    for source in step.requirements:
        arguments += ["-r", source.remote]
    for option, value in (
        ("--find-links", step.find_links),
        ("--index-url", step.index_url),
        ("--extra-index-url", step.extra_index_url),
    ):
        if value is not None:
            arguments += [option, value]
    extra = _split(step)
    if needs_pip(step.method, extra):
        commands = _with_pip([*arguments, *(["--pre"] if step.pre else []), *extra], runtime)
    else:
        arguments += ["--prerelease=allow"] if step.pre else []
        commands = (_with_uv([*arguments, *extra], runtime),)
    return Recipe(
        commands=commands,
        env=(*BASE_ENV, *COMPILED),
        files=files,
        build_folder=bool(files),
        uv=True,
        caches=PACKAGE_CACHES,
    )


def _split(step: PipInstall | UvSync) -> list[str]:
    try:
        return shlex.split(step.extra_options)
    except ValueError as error:
        raise InvalidError(f"{step.origin}: extra_options={step.extra_options!r} can't be read: {error}") from None


def needs_pip(method: str, options: list[str]) -> bool:
    """Whether an option is one that only pip knows; whoever wrote `uv_pip_install` means uv's.

    >>> needs_pip("pip_install", ["--no-deps"]), needs_pip("pip_install", ["--use-pep517"])
    (False, True)
    """
    return method != "uv_pip_install" and any(
        option.startswith("-") and option.partition("=")[0] not in UV_OPTIONS for option in options
    )


def _with_uv(arguments: list[str], runtime: str) -> tuple[str, ...]:
    install = (UV, "pip", "install", "--compile-bytecode")
    if runtime == "native":
        return (*install, "--python", VENV_PYTHON, *arguments)
    # The image's own Python, whatever its place and its distribution's opinion of packages that it did not bring.
    find = 'python="$(command -v python || command -v python3)" || { echo "the image has no Python" >&2; exit 127; }'
    install_there = f'exec {shlex.join(install)} --python "$python" --break-system-packages "$@"'
    return ("/bin/sh", "-c", f"{find}; {install_there}", "sh", *arguments)


def _with_pip(arguments: list[str], runtime: str) -> tuple[tuple[str, ...], ...]:
    if runtime == "native":
        return ((VENV_PYTHON, "-m", "pip", "install", "--no-compile", *arguments), _compiled())
    install = 'exec "$(command -v python || command -v python3)" -m pip install --break-system-packages "$@"'
    return (("/bin/sh", "-c", install, "sh", *arguments),)


def _compiled() -> tuple[str, ...]:
    """pip would compile in a way that makes every import read the source too, because of SOURCE_DATE_EPOCH."""
    return (VENV_PYTHON, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "timestamp", "/venv/lib")


def _uv_sync(step: UvSync, files: tuple[FileEntry, ...], runtime: str) -> Recipe:
    """Into the environment that the worker uses, beside what other steps put there; never the project itself."""
    sync = ["sync", "--inexact", "--no-install-workspace", "--compile-bytecode"]
    sync += ["--frozen"] if step.frozen else []
    for group in step.groups:
        sync += ["--group", group]
    for extra in step.extras:
        sync += ["--extra", extra]
    sync += _split(step)
    folder = "/tmp/slipway-project"  # noqa: S108 - in the container; uv writes a lock file where it makes one
    if runtime == "native":
        where, python = "/venv", VENV_PYTHON
    else:
        where, python = '"$("$python" -c "import sys; print(sys.prefix)")"', '"$python"'
    find = "" if runtime == "native" else 'python="$(command -v python || command -v python3)"; '
    script = (
        f"set -e; {find}cp -R {PROJECT} {folder}; "
        f"UV_PROJECT_ENVIRONMENT={where} {UV} {shlex.join(sync)} --project {folder} --python {python}; "
        f"rm -rf {folder} /tmp/uv-*.lock"
    )
    return Recipe(
        commands=(("/bin/sh", "-c", script),),
        env=(*BASE_ENV, *COMPILED),
        files=files,
        build_folder=True,
        uv=True,
        caches=PACKAGE_CACHES,
    )


# --- the system ---------------------------------------------------------------------------------------


def _apt(step: AptInstall) -> Recipe:
    options = (
        *("-o", f"Dir::Cache::Archives={CACHE}/apt/archives"),
        *("-o", f"Dir::State::Lists={CACHE}/apt/lists"),
        *("-o", "APT::Keep-Downloaded-Packages=true"),
        *("-o", "APT::Sandbox::User=root"),  # the cache is root's, and there is nobody to be kept from it
        *("-o", "Dpkg::Use-Pty=0"),
        "-q",
    )
    folders = ("/bin/sh", "-c", f"mkdir -p {CACHE}/apt/archives/partial {CACHE}/apt/lists/partial")
    return Recipe(
        commands=(
            folders,
            ("apt-get", *options, "update"),
            ("apt-get", *options, "install", "-y", *step.packages),
        ),
        env=(*BASE_ENV, *UNCOMPILED),
        caches=("apt",),
        alone="apt",  # its lists are locked while it reads and writes them
    )


def _commands(step: RunCommands, config: ImageConfig) -> Recipe:
    return Recipe(
        commands=tuple((*config.shell, command) for command in step.commands),
        env=(*BASE_ENV, *UNCOMPILED),
        cwd=config.workdir,
        caches=PACKAGE_CACHES,
        volumes=step.volumes,
    )


def _function(step: RunFunction, code: tuple[FileEntry, ...], config: ImageConfig) -> Recipe:
    call = {"module": step.module, "qualname": step.qualname, "payload": step.payload}
    return Recipe(
        commands=(("python", BUILD_FUNCTION),),
        env=(*BASE_ENV, *UNCOMPILED, IS_REMOTE),
        cwd=config.workdir or "/root",
        stdin=json.dumps(call).encode(),
        code=code,
        worker=True,
        caches=PACKAGE_CACHES,
        volumes=step.volumes,
        timeout_ms=step.timeout_ms,
    )
