"""What can be wrong with one image.

Nothing here waits, sleeps, opens or spawns.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial

from slipway.dsl.declaration import (
    AddLocal,
    AptInstall,
    Base,
    DebianSlim,
    DockerfileCommands,
    FromDockerfile,
    FromRegistry,
    ImageDecl,
    LocalSource,
    Micromamba,
    MicromambaInstall,
    Origin,
    PipInstall,
    RunCommands,
    RunFunction,
    SecretDecl,
    Setting,
    Step,
)

from .check_dockerfile import problems_of
from .check_function import check_gpu, check_volume, plain_path
from .faults import Faults, Say, place
from .titles import step_title

PYTHON = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?t?")
OLDEST = 10  # the minor version of Python from which on a worker runs
URL = re.compile(r"(https?|file|git\+[a-z]+)://\S+", re.IGNORECASE)
SETTINGS = ("env", "workdir", "entrypoint", "shell", "cmd")


def check_image(image: ImageDecl, faults: Faults) -> None:
    _check_base(image, faults)
    laid_over: AddLocal | None = None
    for position, step in enumerate(image.steps, start=1):
        address = f"image {image.name}, step {position}"
        origin = place(step.origin, image.origin)
        if isinstance(step, AddLocal) and not step.copy:
            laid_over = laid_over or step
        elif laid_over is not None:
            _say_build_after(laid_over, step, address, origin, faults)
            laid_over = None  # once is enough: every later step has the same cause
        check_step(step, address, origin, faults)


def _say_build_after(earlier: AddLocal, step: Step, address: str, origin: Origin, faults: Faults) -> None:
    faults.error(
        address,
        f"a build step follows {earlier.method}, whose files are only there when a container starts",
        found=f"{step_title(step)} after {step_title(earlier)} ({earlier.origin})",
        hint=f"Move {earlier.method}(…) to the end of the image, or write {earlier.method}(…, copy=True).",
        origin=origin,
    )


def _check_base(image: ImageDecl, faults: Faults) -> None:
    base, address = image.base, f"image {image.name}"
    origin = place(base.origin, image.origin)
    say: Say = partial(faults.error, address, origin=origin)
    version = _python_of(base)
    if version is not None and not PYTHON.fullmatch(version):
        say("this is not a version of Python", found=f"{version!r:.40}", hint=_python_hint(version))
    elif version is not None and int(version.split(".")[1].rstrip("t")) < OLDEST:
        say("this Python is too old to run functions", found=f"{version!r:.40}", hint=f"Take 3.{OLDEST} or later.")
    if isinstance(base, FromRegistry) and not re.fullmatch(r"[A-Za-z0-9][\w.\-/:@+]*", base.tag):
        say("this is not the name of an image", found=f"{base.tag!r:.80}", hint='Write it as "python:3.12-slim".')
    if isinstance(base, FromRegistry) and base.setup_commands:
        _check_lines(DockerfileCommands(commands=base.setup_commands), say)
    if isinstance(base, FromDockerfile):
        for name, _ in base.build_args:
            faults.env_key(name, address, origin)
        for problem in problems_of(base.text, dict(base.build_args), whole=True) if base.text else ():
            at = Origin(file=base.path, line=problem.line)  # whichever image it is for, the file is wrong once
            faults.error("", problem.summary, found=problem.found, hint=problem.hint, origin=at)
        _check_build_api("from_dockerfile", base.secrets, base.gpu, say)


def _check_lines(step: DockerfileCommands, say: Say) -> None:
    for problem in problems_of("\n".join(step.commands), dict(step.build_args), whole=False):
        say(problem.summary, found=problem.found, hint=problem.hint)


def _check_build_api(method: str, secrets: tuple[SecretDecl, ...], gpu: str | None, say: Say) -> None:
    """What Docker's build API can't give to the instructions of a Dockerfile."""
    if secrets:
        names = ", ".join(key for secret in secrets for key in secret.keys) or "secrets=[…]"
        hint = "Leave secrets= and env= out, and do what needs them in run_commands(…, secrets=[…]) on top."
        say(f"{method} can't have secrets: Docker would keep them in the image's history", found=names, hint=hint)
    if gpu is not None:
        hint = "Leave gpu= out, and do what needs one in run_commands(…, gpu=…) on top."
        say(f"{method} can't have a GPU: Docker builds without", found=f"gpu={gpu!r}", hint=hint)


def _python_of(base: Base) -> str | None:
    match base:
        case DebianSlim(python_version=version) | Micromamba(python_version=version):
            return version
        case FromRegistry(add_python=version) | FromDockerfile(add_python=version):
            return version


def _python_hint(version: str) -> str:
    digits = re.fullmatch(r"(?:python)?\s*v?3\.?([0-9]{1,2})", version.strip().lower())
    better = f"3.{digits[1]}" if digits else "3.11"
    return f'Write major and minor, as text: python_version="{better}"'


def check_step(step: Step, address: str, origin: Origin, faults: Faults) -> None:
    say: Say = partial(faults.error, address, origin=origin)
    match step:
        case PipInstall():
            _check_pip(step, say)
        case AptInstall(packages=packages) | MicromambaInstall(packages=packages):
            _check_packages(packages, step.KIND, say)
        case DockerfileCommands():
            _check_lines(step, say)
            _check_build_api(step.KIND, step.options.secrets, step.options.gpu, say)
        case RunCommands(commands=commands):
            for command in commands:
                if not command.strip() or "\0" in command:
                    say("a command is empty", found=repr(command)[:60], hint="Leave it out.")
        case Setting():
            _check_setting(step, address, origin, faults)
        case AddLocal(sources=sources):
            for source in sources:
                _check_remote(source, step.method, say)
        case _:
            pass
    if isinstance(step, AptInstall) and not step.packages:
        say("apt_install names no package", hint='For example: apt_install("git")')
    if isinstance(step, RunCommands | RunFunction):
        _check_step_volumes(step, say)
    if step.options.gpu is not None:
        check_gpu(step.options.gpu, say)


def _check_packages(packages: tuple[str, ...], name: str, say: Say) -> None:
    for package in packages:
        if not package.strip():
            say("a package has no name", found=repr(package), hint=f'For example: {name}("git")')
        elif package.startswith("-"):
            say("an option stands among the packages", found=package, hint=_option_hint(package, name))
        elif "\n" in package or "\0" in package:
            hint = f'Give each package as an argument of its own: {name}("a", "b")'
            say("a package's name goes over several lines", found=repr(package)[:80], hint=hint)
        elif name == "apt_install" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+.\-:=~_*/]*", package):
            better = re.split(r"[<>=!,; ]", package)[0]
            hint = f'Write the name, or name=version: apt_install("{better}")'
            say("this is not the name of a Debian package", found=package[:80], hint=hint)


def _option_hint(package: str, name: str) -> str:
    if name == "apt_install" or name == "micromamba_install":
        return f'Options have no place here; use run_commands("… {package} …") for what {name} cannot do.'
    if package.split()[0] in ("-r", "--requirement"):
        return 'Use pip_install_from_requirements("requirements.txt").'
    if package.split()[0] == "--pre":
        return "Write pip_install(…, pre=True)."
    return f'Write pip_install(…, extra_options="{package}").'


def _check_pip(step: PipInstall, say: Say) -> None:
    _check_packages(step.packages, "pip_install", say)
    for package in step.packages:
        if re.fullmatch(r"\S+\.txt", package.strip()) and not step.requirements:
            hint = f'Use pip_install_from_requirements("{package}").'
            say("a file stands among the packages", found=package, hint=hint)
    for name in ("index_url", "extra_index_url", "find_links"):
        url: str | None = getattr(step, name)
        if url is not None and (not url.strip() or url.startswith("-")):
            say(f"{name} is not an address", found=repr(url)[:80], hint=f'Write {name}="https://…".')
        elif url is not None and name != "find_links" and not all(URL.fullmatch(one) for one in url.split()):
            hint = f'Write {name}="https://{url.split()[0].lstrip("/")}".'
            say(f"{name} is not an address", found=repr(url)[:80], hint=hint)
    for extra in step.optional_dependencies:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9\-_.]*[A-Za-z0-9])?", extra):
            say("this is not the name of optional dependencies", found=repr(extra)[:60], hint='For example ["dev"].')


def _check_setting(step: Setting, address: str, origin: Origin, faults: Faults) -> None:
    say: Say = partial(faults.error, address, origin=origin)
    if step.what not in SETTINGS:
        say("there is no such setting", found=step.what, hint=f"There are {', '.join(SETTINGS)}.")
    for key, value in step.env:
        faults.env_key(key, address, origin)
        if "\0" in value:
            say(f"the value of {key} holds a NUL", hint="Environment values are text without NUL characters.")
    if step.what == "workdir":
        path = step.values[0] if step.values else ""
        if not path.strip("/") or ".." in path.split("/") or "\0" in path:
            better = plain_path(path) if path.strip("/") else "/root"
            say("this is not a folder to work in", found=f"{path!r:.80}", hint=f'Write .workdir("{better}").')
    if step.what in ("entrypoint", "shell") and any("\0" in value for value in step.values):
        say(f"{step.what} holds a NUL", hint="Words of a command are text without NUL characters.")


def _check_remote(source: LocalSource, method: str, say: Say) -> None:
    remote = source.remote
    if not remote.startswith("/"):
        hint = f'Say where from the root: {method}(…, "{posixpath.normpath("/root/" + remote)}")'
        say("the remote path is relative", found=f"{remote!r:.80}", hint=hint)
    elif ".." in remote.split("/") or "\0" in remote or posixpath.normpath(remote) != (remote.rstrip("/") or "/"):
        hint = f'Write it plainly: {method}(…, "{plain_path(remote)}")'
        say("the remote path is not written plainly", found=f"{remote!r:.80}", hint=hint)
    elif any(remote == top or remote.startswith(top + "/") for top in ("/proc", "/sys", "/dev", "/.slipway")):
        say("nothing can be added there", found=remote, hint="Those paths belong to the container itself.")
    elif not source.is_dir and remote == "/":
        say("a file can't take the place of /", found=remote, hint=f'{method}(…, "/root/") keeps its name.')


def _check_step_volumes(step: RunCommands | RunFunction, say: Say) -> None:
    for path, volume in step.volumes:
        check_volume(path, volume, say)
