"""Images: a base and the steps on top, as an immutable chain. Building one is left to `slipway apply`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import evolve, field, frozen

from . import declaration as decl
from . import inside
from .inside import Imports
from .items import (
    BUILD_FOLDER,
    PIP_ONLY,
    Ignore,
    Item,
    PipArguments,
    StepArguments,
    build_function,
    checked_ignore,
    checked_python,
    known_only,
    local,
    make_item,
    packages,
    remote_path,
    step_name,
    strings,
)
from .later import Later
from .origin import here, invalid, text_argument
from .patterns import NON_PYTHON_FILES
from .resources import checked_gpu, checked_seconds
from .secret import Secret, checked_env, checked_secret, checked_secrets, env_secret
from .volume import Volume, checked_volumes

if TYPE_CHECKING:
    from .items import Packages, Unpack


@frozen(kw_only=True, eq=False, repr=False)
class Image(Imports):
    """What a container starts from. Each method returns a new image with one more step.

    >>> image = Image.debian_slim("3.11").pip_install("numpy", "scipy").env({"HF_HOME": "/cache"})
    >>> image
    <Image debian_slim, pip_install, env>
    """

    base: decl.Base
    items: tuple[Item, ...] = ()
    secrets: tuple[Secret, ...] = ()  # of the base
    registry_secret: Secret | None = None  # of the registry that the base comes from
    ignore: Ignore | None = None  # of the base; None: .dockerignore decides
    ignored: tuple[str, ...] = ()  # parameters of the base that have no effect
    force: bool = False  # a step so far is forced, so all that follow are
    failures: list[Exception] = field(factory=list, init=False)  # of its `with imports():` blocks, in this process

    from_scratch = Later("Image.from_scratch")
    from_id = Later("Image.from_id")
    from_name = Later("Image.from_name")
    from_gcp_artifact_registry = Later("Image.from_gcp_artifact_registry", "Use Image.from_registry.")
    from_aws_ecr = Later("Image.from_aws_ecr", "Use Image.from_registry.")
    pip_install_private_repos = Later("Image.pip_install_private_repos", "Use pip_install with a git URL and secrets=.")
    poetry_install_from_file = Later("Image.poetry_install_from_file", "Use pip_install_from_pyproject or uv_sync.")
    build = Later("Image.build", "slipway apply builds the images of an app.")
    publish = Later("Image.publish")

    # --- bases ----------------------------------------------------------------------------------------

    @staticmethod
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """Debian with a Python; without a version, with the same as here.

        >>> Image.debian_slim(3.1)
        Traceback (most recent call last):
        ...
        TypeError: ...: python_version must be a string, not a number: write "3.1" (3.1 and 3.10 are the same number)
        """
        version = checked_python("python_version", python_version)
        return _based(decl.DebianSlim(python_version=version, force_build=force_build, origin=here()))

    @staticmethod
    def from_registry(
        tag: str,
        secret: Secret | None = None,
        *,
        setup_dockerfile_commands: Iterable[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> Image:
        """An image of a registry. The docker runtime can use it.

        >>> Image.from_registry("nvidia/cuda:12.4.0-devel-ubuntu22.04", add_python="3.12")
        <Image from_registry>
        """
        base = decl.FromRegistry(
            tag=text_argument(tag, "the tag of an image").strip(),
            setup_commands=strings("from_registry", setup_dockerfile_commands),
            add_python=checked_python("add_python", add_python),
            force_build=force_build,
            origin=here(),
        )
        return _based(base, registry_secret=checked_secret(secret), ignored=tuple(kwargs))

    @staticmethod
    def from_dockerfile(
        path: str | Path,
        *,
        context_dir: str | Path | None = None,
        ignore: Any = None,
        build_args: Mapping[str, str] | None = None,
        registry_secret: Secret | None = None,
        add_python: str | None = None,
        **options: Unpack[StepArguments],
    ) -> Image:
        """An image made by a Dockerfile. The docker runtime can build it.

        >>> Image.from_dockerfile("Dockerfile", ignore=["**/*.md"]).apt_install("git")
        <Image from_dockerfile, apt_install>
        """
        known_only(options, StepArguments.__annotations__, "Image.from_dockerfile")
        gpus = checked_gpu(options.get("gpu"))
        if ignore is not None:
            ignore = checked_ignore(ignore, "from_dockerfile")
        base = decl.FromDockerfile(
            path=str(path),
            context_dir=None if context_dir is None else str(context_dir),
            build_args=checked_env(build_args or {}, "build_args"),
            gpu=gpus[0] if gpus else None,
            add_python=checked_python("add_python", add_python),
            force_build=bool(options.get("force_build")),
            origin=here(),
        )
        env, secrets = options.get("env"), checked_secrets(options.get("secrets"))
        secrets = (*secrets, env_secret(env)) if env else secrets
        return _based(base, secrets=secrets, registry_secret=checked_secret(registry_secret), ignore=ignore)

    @staticmethod
    def micromamba(python_version: str | None = None, force_build: bool = False) -> Image:
        """Debian with micromamba and a Python of conda-forge. The docker runtime can build it.

        >>> Image.micromamba("3.11").micromamba_install("pymc", channels=["conda-forge"])
        <Image micromamba, micromamba_install>
        """
        version = checked_python("python_version", python_version)
        return _based(decl.Micromamba(python_version=version, force_build=force_build, origin=here()))

    # --- Python packages ------------------------------------------------------------------------------

    def pip_install(self, *packages: Packages, **options: Unpack[PipArguments]) -> Image:
        """Install Python packages.

        >>> Image.debian_slim().pip_install("torch==2.5", ["numpy<2", "pandas"], extra_index_url="https://example.org")
        <Image debian_slim, pip_install>
        """
        return self._pip("pip_install", packages, options)

    def uv_pip_install(
        self,
        *packages: Packages,
        requirements: Iterable[str | Path] | None = None,
        uv_version: str | None = None,
        **options: Unpack[PipArguments],
    ) -> Image:
        """Install Python packages with uv.

        >>> Image.debian_slim().uv_pip_install("numpy", requirements=["requirements.txt"])
        <Image debian_slim, uv_pip_install>
        """
        files = tuple(
            local(path, f"{BUILD_FOLDER}/requirements-{i}.txt", "uv_pip_install")
            for i, path in enumerate([requirements] if isinstance(requirements, str | Path) else requirements or ())
        )
        ignored = ("uv_version",) if uv_version else ()
        return self._pip("uv_pip_install", packages, options, ignored, requirements=files)

    def pip_install_from_requirements(
        self, requirements_txt: str | Path, *links: str | None, **options: Unpack[PipArguments]
    ) -> Image:
        """Install the Python packages that a local file lists.

        >>> Image.debian_slim().pip_install_from_requirements("requirements.txt")
        <Image debian_slim, pip_install_from_requirements>
        """
        name = "pip_install_from_requirements"
        if links:  # find_links= by position
            options["find_links"] = links[0]
        file = local(requirements_txt, f"{BUILD_FOLDER}/requirements-0.txt", name)
        return self._pip(name, (), options, requirements=(file,))

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str | Path,
        optional_dependencies: Iterable[str] = (),
        **options: Unpack[PipArguments],
    ) -> Image:
        """Install the dependencies that a local pyproject.toml lists, and those of the named extras.

        >>> Image.debian_slim().pip_install_from_pyproject("pyproject.toml", ["dev"])
        <Image debian_slim, pip_install_from_pyproject>
        """
        name = "pip_install_from_pyproject"
        file = local(pyproject_toml, f"{BUILD_FOLDER}/pyproject.toml", name)
        extras = strings(name, optional_dependencies)
        return self._pip(name, (), options, pyproject=file, optional_dependencies=extras)

    def uv_sync(
        self,
        uv_project_dir: str | Path = "./",
        *,
        groups: Iterable[str] | None = None,
        extras: Iterable[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        **options: Unpack[StepArguments],
    ) -> Image:
        """Install the dependencies of a uv project: what its pyproject.toml and uv.lock say.

        >>> Image.debian_slim().uv_sync(groups=["server"])
        <Image debian_slim, uv_sync>
        """
        only = ("pyproject.toml", "uv.lock")
        step = decl.UvSync(
            project=local(uv_project_dir, f"{BUILD_FOLDER}/project", "uv_sync", is_dir=True, only=only),
            groups=strings("uv_sync", groups or ()),
            extras=strings("uv_sync", extras or ()),
            frozen=frozen,
            extra_options=extra_options,
        )
        return self._add(step, options, ignored=("uv_version",) if uv_version else ())

    def micromamba_install(
        self,
        *packages: Packages,
        spec_file: str | Path | None = None,
        channels: Iterable[str] = (),
        **options: Unpack[StepArguments],
    ) -> Image:
        """Install conda packages. The docker runtime can build it.

        >>> Image.micromamba().micromamba_install("numpy", spec_file="environment.yml")
        <Image micromamba, micromamba_install>
        """
        name = "micromamba_install"
        file = None if spec_file is None else local(spec_file, f"{BUILD_FOLDER}/environment.yml", name)
        if not (found := strings(name, packages)) and file is None:
            return self
        step = decl.MicromambaInstall(packages=found, spec_file=file, channels=strings(name, channels))
        return self._add(step, options)

    # --- the system -----------------------------------------------------------------------------------

    def apt_install(self, *packages: Packages, **options: Unpack[StepArguments]) -> Image:
        """Install Debian packages.

        >>> Image.debian_slim().apt_install("ffmpeg", "git")
        <Image debian_slim, apt_install>
        """
        found = strings("apt_install", packages)
        return self._add(decl.AptInstall(packages=found), options) if found else self

    def run_commands(
        self,
        *commands: Packages,
        volumes: Mapping[str, Volume] | None = None,
        **options: Unpack[StepArguments],
    ) -> Image:
        """Run shell commands, one after the other.

        >>> Image.debian_slim().run_commands("mkdir /data", "echo 1 > /data/version")
        <Image debian_slim, run_commands>
        """
        found = strings("run_commands", commands)
        mounts = tuple(sorted((path, volume.decl) for path, volume in checked_volumes(volumes)))
        return self._add(decl.RunCommands(commands=found, volumes=mounts), options) if found else self

    def dockerfile_commands(
        self,
        *dockerfile_commands: Packages,
        context_files: Mapping[str, str | Path] | None = None,
        context_dir: str | Path | None = None,
        ignore: Any = None,
        build_args: Mapping[str, str] | None = None,
        **options: Unpack[StepArguments],
    ) -> Image:
        """Carry out lines of a Dockerfile on top. The docker runtime can build it.

        >>> Image.debian_slim().dockerfile_commands("RUN echo hello", "ENV A=1")
        <Image debian_slim, dockerfile_commands>
        """
        name = "dockerfile_commands"
        found = strings(name, dockerfile_commands)
        if not found:
            return self
        files = tuple(local(path, f"/{at.lstrip('/')}", name) for at, path in (context_files or {}).items())
        folder = () if context_dir is None else (local(context_dir, "/", name, is_dir=True),)
        args = checked_env(build_args or {}, "build_args")
        step = decl.DockerfileCommands(commands=found, context=(*folder, *files), build_args=args)
        return self._add(step, options, ignore=None if ignore is None else checked_ignore(ignore, name))

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        volumes: Mapping[str, Volume] | None = None,
        timeout: float | None = 3600,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        include_source: bool = True,
        cpu: object = None,
        memory: object = None,
        cloud: object = None,
        region: object = None,
        network_file_systems: object = None,
        **options: Unpack[StepArguments],
    ) -> Image:
        """Run a Python function and keep what it writes: to download a model, say.

        >>> def fetch(name): ...
        >>> Image.debian_slim().run_function(fetch, args=("small",))
        <Image debian_slim, run_function>
        """
        nfs = {"network_file_systems": network_file_systems}
        given = {"cpu": cpu, "memory": memory, "cloud": cloud, "region": region, **nfs}
        step = decl.RunFunction(
            module=build_function(raw_f).__module__,
            qualname=raw_f.__qualname__,
            source="",
            volumes=tuple(sorted((path, volume.decl) for path, volume in checked_volumes(volumes))),
            timeout_ms=checked_seconds("timeout", timeout, 1, 86_400),
        )
        return self._add(
            step,
            options,
            function=raw_f,
            args=tuple(args),
            kwargs=dict(kwargs or {}),
            include_source=include_source,
            ignored=tuple(name for name, value in given.items() if value),
        )

    # --- how processes start --------------------------------------------------------------------------

    def env(self, vars: Mapping[str, str]) -> Image:
        """Set environment variables.

        >>> Image.debian_slim().env({"PORT": 80})
        Traceback (most recent call last):
        ...
        slipway.dsl.errors.InvalidError: ...: the value of PORT must be a string, not int
        Write str(...).
        """
        return self._add(decl.Setting(what="env", env=checked_env(vars, "Image.env")), {})

    def workdir(self, path: str | PurePosixPath) -> Image:
        """Set the folder in which processes start.

        >>> Image.debian_slim().workdir("/srv").items[0].step.values
        ('/srv',)
        """
        return self._add(decl.Setting(what="workdir", values=strings("workdir", [str(path)])), {})

    def entrypoint(self, entrypoint_commands: list[str]) -> Image:
        """Set the program that every process is started through; it must end in `exec "$@"`.

        >>> Image.debian_slim().entrypoint(["/usr/bin/nice"])
        <Image debian_slim, entrypoint>
        """
        return self._argv("entrypoint", entrypoint_commands)

    def shell(self, shell_commands: list[str]) -> Image:
        """Set the shell that runs the commands that follow.

        >>> Image.debian_slim().shell(["/bin/bash", "-c"])
        <Image debian_slim, shell>
        """
        return self._argv("shell", shell_commands)

    def cmd(self, cmd: list[str]) -> Image:
        """Set the command that a sandbox runs when it is given none.

        >>> Image.debian_slim().cmd(["sleep", "60"])
        <Image debian_slim, cmd>
        """
        return self._argv("cmd", cmd)

    # --- local files ----------------------------------------------------------------------------------

    def add_local_file(self, local_path: str | Path, remote_path: str | PurePosixPath, *, copy: bool = False) -> Image:
        """Add a local file: laid over at the start of a container, or with `copy=True` as a layer.

        >>> Image.debian_slim().add_local_file("model.yaml", "/etc/app/").items[0].step.sources[0].remote
        '/etc/app/model.yaml'
        """
        name = "add_local_file"
        remote = _remote(remote_path, name)
        if remote.endswith("/"):
            remote += Path(local_path).name
        return self._add(decl.AddLocal(sources=(local(local_path, remote, name),), copy=copy, method=name), {})

    def add_local_dir(
        self, local_path: str | Path, remote_path: str | PurePosixPath, *, copy: bool = False, ignore: Any = ()
    ) -> Image:
        """Add a local folder, without what `ignore` matches (see `FilePatternMatcher`).

        >>> Image.debian_slim().add_local_dir("assets", "/assets", ignore=["*.tmp"])
        <Image debian_slim, add_local_dir>
        """
        name = "add_local_dir"
        remote = _remote(remote_path, name).rstrip("/") or "/"
        step = decl.AddLocal(sources=(local(local_path, remote, name, is_dir=True),), copy=copy, method=name)
        return self._add(step, {}, ignore=checked_ignore(ignore, name))

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Any = NON_PYTHON_FILES) -> Image:
        """Add Python modules of yours by name, so that they can be imported in the container.

        >>> Image.debian_slim().add_local_python_source("mylib", "helpers")
        <Image debian_slim, add_local_python_source>
        """
        name = "add_local_python_source"
        found = strings(name, modules)
        for module in found:
            if not all(part.isidentifier() for part in module.split(".")):
                raise invalid(
                    f"Image.{name} takes names of modules, and {module!r} is none",
                    hint="For a path use add_local_file or add_local_dir.",
                )
        step = decl.AddLocal(sources=(), copy=copy, method=name)
        return self._add(step, {}, modules=found, ignore=checked_ignore(ignore, name)) if found else self

    # --- the rest -------------------------------------------------------------------------------------

    def pipe(self, func: Callable[..., Image], *args: Any, **kwargs: Any) -> Image:
        """Apply a function that adds steps.

        >>> def with_git(image, *more): return image.apt_install("git", *more)
        >>> Image.debian_slim().pipe(with_git, "curl").items[0].step.packages
        ('git', 'curl')
        """
        image = func(self, *args, **kwargs)
        if not isinstance(image, Image):
            raise invalid(f"the function given to Image.pipe returned {type(image).__name__}, not an Image")
        return image

    def _pip(
        self,
        method: str,
        names: Iterable[Packages],
        options: PipArguments,
        ignored: tuple[str, ...] = (),
        **fields: Any,
    ) -> Image:
        known_only(options, PipArguments.__annotations__, f"Image.{method}")
        found = packages(method, names)
        if not (found or fields.get("requirements") or fields.get("pyproject")):
            return self
        index = {name: options[name] for name in PIP_ONLY if options.get(name)}  # type: ignore[literal-required]
        common: StepArguments = {k: v for k, v in options.items() if k not in PIP_ONLY}  # type: ignore[assignment]
        step = decl.PipInstall(packages=found, method=method, **index, **fields)
        return self._add(step, common, ignored=ignored)

    def _argv(self, what: str, values: Any) -> Image:
        if isinstance(values, str):
            raise invalid(f"Image.{what} takes a list of strings", hint=f"Write {what}([{values!r}]).")
        return self._add(decl.Setting(what=what, values=strings(what, values)), {})

    def _add(self, step: decl.Step, options: StepArguments, **more: Any) -> Image:
        item = make_item(step, options, force=self.force, **more)
        return evolve(self, items=(*self.items, item), force=self.force or item.step.options.force_build)

    def __reduce__(self) -> tuple[Any, ...]:
        return inside.Image, ()  # in a worker it is what the worker is in, and there is no more to say of it

    def __repr__(self) -> str:
        return f"<Image {', '.join((self.base.KIND, *(step_name(item.step) for item in self.items)))}>"


_remote = remote_path  # methods have a parameter of that name


def _based(base: decl.Base, **more: Any) -> Image:
    return Image(base=base, force=base.force_build, **more)
