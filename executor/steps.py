"""How a build step becomes commands, for every runtime the same way. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

import json
import shlex

from attrs import field, frozen

from slipway.compiler.facts import FileEntry
from slipway.compiler.nodes import LayerSpec
from slipway.dsl.declaration import (
    AddLocal,
    AddPython,
    AptInstall,
    MicromambaInstall,
    PipInstall,
    RunCommands,
    RunFunction,
    UvSync,
    VolumeDecl,
)
from slipway.dsl.errors import InvalidError

from .images import ImageConfig

OURS = "/.slipway"  # everything of ours that a build container sees is mounted below
UV = f"{OURS}/bin/uv"
CACHE = f"{OURS}/cache"
FILES = f"{OURS}/files"  # the files of the step, laid out like a container's root
BUILD_FOLDER = f"{OURS}/build"  # where requirements lists and projects say that they are
PROJECT = f"{BUILD_FOLDER}/project"
CODE = f"{OURS}/code"  # the user's own code, for the function of a step
PYTHON = f"{OURS}/python"  # one that is to be put into the image
APT_CONFIG = f"{OURS}/apt.conf"
VENV_PYTHON = "/venv/bin/python"  # the native runtime's environment for the user's packages
BUILD_FUNCTION = f"{OURS}/lib/slipway/executor/worker/build_function.py"
FINISH_PYTHON = f"{OURS}/lib/slipway/executor/worker/finish_python.py"
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
    code: tuple[FileEntry, ...] = ()  # the user's code: what of it lies below /root appears below CODE
    worker: bool = False  # our own package is needed
    python: AddPython | None = None  # appears at PYTHON
    apt: bool = False  # the host's settings for apt appear at APT_CONFIG, where it has some
    as_user: bool = False  # as the user that the image names; else as root
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
            return _apt(step, runtime)
        case MicromambaInstall():
            return _micromamba(step, spec.files)
        case AddPython():
            return _add_python(step)
        case RunCommands():
            return _commands(step, config, runtime)
        case RunFunction():
            return _function(step, spec.code, config, runtime)
        case AddLocal():
            return Recipe(commands=(("/bin/sh", "-c", COPY_FILES),), files=spec.files)
        case _:
            raise InvalidError(
                f"{step.origin}: the {runtime} runtime can't build {step.KIND}",
                hint="Try --runtime docker.",
            )


# Folder by folder at the top, since some of those are links in many images: /bin and /lib.
COPY_FILES = f"""umask 022; cd {FILES} || exit
for name in * .[!.]* ..?*; do
  if [ -d "$name" ] && [ ! -L "$name" ] && [ -d "/$name" ]; then cp -RP "./$name/." "/$name/" || exit
  elif [ -e "$name" ] || [ -L "$name" ]; then cp -RP "./$name" / || exit
  fi
done"""

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
    for_pip = [*arguments, *(["--pre"] if step.pre else []), *extra]
    if needs_pip(step.method, extra):
        commands = _with_pip(for_pip, runtime)
    else:
        commands = _with_uv([*arguments, *(["--prerelease=allow"] if step.pre else []), *extra], for_pip, runtime)
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


# The image's own Python, whatever its place and its distribution's opinion of packages that it did not bring.
FIND_PYTHON = """python="$(command -v python || command -v python3)" || {
  echo "this image has no Python: say add_python=\\"3.12\\", or install one before" >&2; exit 127; }"""
# uv is a program for glibc: an image of another C library (Alpine's) can't run it.
NO_UV = f"""{UV} --version >/dev/null 2>&1 || {{
  echo "uv can't run in this image, since its C library is not glibc; the image's own pip installs instead" >&2"""


def _with_uv(arguments: list[str], for_pip: list[str], runtime: str) -> tuple[tuple[str, ...], ...]:
    install = (UV, "pip", "install", "--compile-bytecode")
    if runtime == "native":
        return ((*install, "--python", VENV_PYTHON, *arguments),)
    there = f'exec {shlex.join(install)} --python "$python" --break-system-packages "$@"'
    return (("/bin/sh", "-c", f"{FIND_PYTHON}\n{NO_UV}\n{_pip_instead(for_pip)}; }}\n{there}", "sh", *arguments),)


def _pip_instead(arguments: list[str]) -> str:
    return f'  exec "$python" -m pip install {BREAK} {shlex.join(arguments)}'


BREAK = '$("$python" -m pip install --help | grep -o -m 1 -e --break-system-packages)'  # pips before 23 don't know it


def _with_pip(arguments: list[str], runtime: str) -> tuple[tuple[str, ...], ...]:
    if runtime == "native":
        return ((VENV_PYTHON, "-m", "pip", "install", "--no-compile", *arguments), _compiled())
    return (("/bin/sh", "-c", f'{FIND_PYTHON}\nexec "$python" -m pip install {BREAK} "$@"', "sh", *arguments),)


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


def _apt(step: AptInstall, runtime: str) -> Recipe:
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
        apt=runtime != "native",  # where /etc is the host's own
        alone="apt",  # its lists are locked while it reads and writes them
    )


def _micromamba(step: MicromambaInstall, files: tuple[FileEntry, ...]) -> Recipe:
    arguments = ["install", "--yes", "--name", "base"]
    for channel in step.channels:
        arguments += ["--channel", channel]
    if step.spec_file is not None:
        arguments += ["--file", step.spec_file.remote]
    script = (
        "command -v micromamba >/dev/null || "
        '{ echo "this image has no micromamba: start from Image.micromamba()" >&2; exit 127; }\n'
        f'exec micromamba {shlex.join(arguments)} "$@"'
    )
    return Recipe(
        commands=(("/bin/sh", "-c", script, "sh", *step.packages),),
        env=(*BASE_ENV, *COMPILED, ("CONDA_PKGS_DIRS", f"{CACHE}/conda"), ("MAMBA_NO_BANNER", "1")),
        files=files,
        build_folder=bool(files),
        caches=("conda",),
    )


def _add_python(step: AddPython) -> Recipe:
    """Copied as it is, then by itself made at home in its new place."""
    version = ".".join(step.version.split(".")[:2])
    script = (
        f"mkdir -p /usr/local && cp -RPp {PYTHON}/. /usr/local/ || exit\n"
        f"/usr/local/bin/python{version} -c pass || "
        '{ echo "the Python of add_python= does not run in this image: it needs glibc, as Debian has" >&2; exit 1; }\n'
        f"exec /usr/local/bin/python{version} -B {FINISH_PYTHON} {PYTHON}"
    )
    return Recipe(commands=(("/bin/sh", "-c", script),), env=(*BASE_ENV, *COMPILED), worker=True, python=step)


# A cache that is not this user's to write to is of no use, and uv would fail for it.
OWN_CACHES = '[ -w "$UV_CACHE_DIR" ] || unset UV_CACHE_DIR PIP_CACHE_DIR; exec "$@"'


def _commands(step: RunCommands, config: ImageConfig, runtime: str) -> Recipe:
    before = () if runtime == "native" else ("/bin/sh", "-c", OWN_CACHES, "sh")
    return Recipe(
        commands=tuple((*before, *config.shell, command) for command in step.commands),
        env=(*BASE_ENV, *UNCOMPILED),
        cwd=config.workdir,
        caches=PACKAGE_CACHES,
        volumes=step.volumes,
        as_user=True,
    )


def _function(step: RunFunction, code: tuple[FileEntry, ...], config: ImageConfig, runtime: str) -> Recipe:
    call = {"module": step.module, "qualname": step.qualname, "payload": step.payload}
    command: tuple[str, ...] = ("python", BUILD_FUNCTION)
    if runtime != "native":
        script = f'{FIND_PYTHON}\nset -- "$python" {BUILD_FUNCTION}; {OWN_CACHES}'
        command = ("/bin/sh", "-c", script)
    return Recipe(
        commands=(command,),
        env=(*BASE_ENV, *UNCOMPILED, IS_REMOTE),
        cwd=config.workdir,
        stdin=json.dumps(call).encode(),
        code=code,
        worker=True,
        caches=PACKAGE_CACHES,
        volumes=step.volumes,
        timeout_ms=step.timeout_ms,
        as_user=True,
    )
