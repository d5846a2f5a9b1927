"""The Docker Engine that tests run on: one that is there, else one of their own (`dockerd.py`), gone with the session.

A test that needs one asks for `docker_engine`. Where none can be had it is skipped with the reason; where CI is set,
it fails.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import debian
import docker
import pytest
from attrs import field, frozen
from docker.errors import DockerException, ImageNotFound
from dockerd import Dockerd, EngineFailedError

DEFAULT = "unix:///var/run/docker.sock"
ELSEWHERE = "python:3.11-slim-bookworm"  # the base where none can be made here
OLD = ("attrs==21.4.0", "cloudpickle==2.0.0")  # older than what Slipway itself asks for


@frozen
class DockerTestEngine:
    """An engine's address, and the name of an image in it with Python 3.11 as `python3` (there is no `python`)."""

    url: str
    base_image: str
    made: list[str] = field(factory=list)

    @contextlib.contextmanager
    def client(self) -> Iterator[docker.DockerClient]:
        client = docker.DockerClient(base_url=self.url, timeout=300)
        try:
            yield client
        finally:
            client.close()

    def image(self, name: str, *instructions: str, files: Iterable[tuple[Path, str]] = ()) -> str:
        """An image on top of the base, gone with the session. `files` are (path here, path below `files/`)."""
        tag = f"slipway-test-{name}:{os.getpid()}"
        if tag in self.made:
            return tag
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            text = "\n".join([f"FROM {self.base_image}", *instructions]).encode()
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
            for source, target in files:
                tar.add(source, f"files/{target}", filter=_wanted)
        context.seek(0)
        with self.client() as client:
            client.images.build(
                fileobj=context, custom_context=True, tag=tag, network_mode="none", forcerm=True, rm=True
            )
        self.made.append(tag)
        return tag

    def python_image(self, version: str) -> str:
        """An image whose `python` is this version: an interpreter of this machine's, at the place that it has here."""
        if version == "3.11":
            return self.image("python-3.11", "RUN ln -s python3 /usr/bin/python")
        for python in interpreters(version):
            with contextlib.suppress(DockerException):  # it may need a newer C library than the base has
                return self.interpreter_image(python)
        pytest.skip(f"no Python {version} on this machine that runs in {self.base_image}")

    def interpreter_image(self, python: Path) -> str:
        """An image with an interpreter of this machine that has a prefix of its own, and the libraries for it."""
        prefix, name = python.parents[1], python.name
        library = prefix / "lib" / name
        linked = " && ".join(f"ln -sf {python} /usr/local/bin/{link}" for link in ("python", "python3", name))
        parts = (python, *prefix.glob("lib/libpython3*"), library)
        return self.image(
            f"{name}-{hashlib.sha256(str(prefix).encode()).hexdigest()[:8]}",
            f"COPY files/prefix/ {prefix}/",
            "COPY files/libraries/ /opt/libraries/",
            f"RUN cp -n /opt/libraries/* /usr/lib/ && ldconfig && {linked} && {name} -c 'import ssl, sqlite3, ctypes'",
            files=[
                *((path, f"prefix/{path.relative_to(prefix)}") for path in parts),
                *((path.resolve(), f"libraries/{path.name}") for path in libraries(library)),
            ],
        )

    def image_without_python(self) -> str:
        return self.image("no-python", "RUN rm -rf /usr/bin/python3* /usr/lib/python3*")

    def image_with_old_packages(self) -> str:
        """Its own Python has versions of attrs and cloudpickle that are older than ours."""
        wheels = debian.cache() / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), *OLD]
        if len(list(wheels.glob("*.whl"))) < len(OLD):
            subprocess.run(pip, check=True)
        return self.image(
            "old-packages",
            "COPY files/ /tmp/wheels/",
            f"RUN python3 -m pip install --break-system-packages --no-index --find-links /tmp/wheels {' '.join(OLD)}",
            files=[(path, path.name) for path in wheels.glob("*.whl")],
        )

    def write_config(self, home: Path, text: str = "", *, base: str | None = None) -> None:
        """Set a home up for this engine: debian_slim is `base`; `text` is what else goes under [docker]."""
        home.mkdir(mode=0o700, exist_ok=True)
        lines = ["[docker]", f'host = "{self.url}"', text, "[docker.bases]"]
        lines.append(f'debian_slim = "{base or self.base_image}"')
        (home / "config.toml").write_text("\n".join(lines) + "\n")


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What of an interpreter goes into an image: no tests, static libraries, or packages other than pip."""
    path = Path(info.name)
    parts = set(path.parts)
    if parts & {"test", "tests", "idlelib", "turtledemo"}:
        return None
    if any(part.startswith("config-") for part in parts) or info.name.endswith((".opt-1.pyc", ".opt-2.pyc")):
        return None
    if path.parent.name == "site-packages" and not path.name.startswith("pip"):
        return None
    info.uid = info.gid = 0
    return info


@functools.cache
def interpreters(version: str) -> tuple[Path, ...]:
    """The interpreters of a version on this machine, each with a prefix of its own; uv's first, made to be moved."""
    from uv import find_uv_bin

    listed = subprocess.run(
        [find_uv_bin(), "python", "list", "--offline", "--only-installed", version],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    found = [Path(word).resolve() for word in listed if word.startswith("/")]
    found += sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python{version}"))
    return tuple(dict.fromkeys(path for path in found if path.is_file() and path.parents[1] != Path("/usr")))


def libraries(folder: Path) -> tuple[Path, ...]:
    """The shared libraries of this machine that modules in a folder need, but for the C library's own."""
    modules = [str(path) for path in folder.glob("lib-dynload/*.so")]
    said = subprocess.run(["ldd", *modules], capture_output=True, text=True, check=False).stdout
    found = {line.partition(" => ")[2].partition(" (")[0] for line in said.splitlines() if " => /" in line}
    own = ("libc.", "libm.", "libpthread", "libdl.", "librt.", "libresolv.", "libutil.", "libpython")
    return tuple(path for path in map(Path, sorted(found)) if not path.name.startswith(own))


@pytest.fixture(scope="session")
def docker_engine(request: pytest.FixtureRequest) -> Iterator[DockerTestEngine]:
    show = request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled
    with contextlib.ExitStack() as stack:
        try:
            url = reachable()
            if url is None:
                with show():
                    url = stack.enter_context(own_engine()).url
            with show():
                engine = DockerTestEngine(url, import_base(url))
        except (debian.UnobtainableError, EngineFailedError) as why:
            if os.environ.get("CI"):
                pytest.fail(f"no Docker Engine: {why}", pytrace=False)
            pytest.skip(f"no Docker Engine: {why}")
        stack.callback(remove_made, engine)
        yield engine


def reachable() -> str | None:
    """An engine of this machine's that answers."""
    url = os.environ.get("DOCKER_HOST") or DEFAULT
    if not url.startswith("unix://") or not os.access(url.removeprefix("unix://"), os.R_OK | os.W_OK):
        return None
    try:
        client = docker.DockerClient(base_url=url, timeout=10)
    except DockerException:
        return None
    try:
        return url if client.ping() else None
    except DockerException:
        return None
    finally:
        client.close()


@contextlib.contextmanager
def own_engine() -> Iterator[Dockerd]:
    """An engine that nobody else uses; nothing of it stays."""
    if why := debian.refusal():
        raise debian.UnobtainableError(f"none answers at {os.environ.get('DOCKER_HOST') or DEFAULT}, and {why}")
    packages = ["docker.io", *(["runsc"] if debian.offers("runsc") else [])]
    engine = Dockerd(Path(tempfile.mkdtemp(prefix="slipway-")), debian.environment(*packages))
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()


def import_base(url: str) -> str:
    """The base image's name, which the engine has after this. It stays: another run may be using it."""
    name = debian.base_name()
    with DockerTestEngine(url, name).client() as client:
        try:
            client.images.get(name)
        except ImageNotFound:
            if debian.refusal():
                return pull_base(client)
            repository, _, tag = name.partition(":")
            client.api.import_image(
                src=str(debian.base_tarball()), repository=repository, tag=tag, changes=['CMD ["/bin/bash"]']
            )
    return name


def pull_base(client: docker.DockerClient) -> str:
    try:
        client.images.get(ELSEWHERE)
    except ImageNotFound:
        try:
            client.images.pull(ELSEWHERE)
        except DockerException as error:
            raise debian.UnobtainableError(f"no base image: {debian.refusal()}, and {error}") from None
    return ELSEWHERE


def remove_made(engine: DockerTestEngine) -> None:
    with engine.client() as client:
        for name in engine.made:
            client.images.remove(name, force=True)
