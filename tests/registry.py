"""Registries on loopback for images: one for everybody, one that asks for a name and a password."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import debian
import pytest
from attrs import frozen
from docker_engine import DockerTestEngine

USER, PASSWORD = "reader", "pass word"
HASH = "$2y$05$abcdefghijklmnopqrstuuIt/9/tGzLcigNq/.RWIDjeEVR30RSf."  # of PASSWORD
CONFIG = """\
version: 0.1
log: {{accesslog: {{disabled: true}}}}
http: {{addr: "127.0.0.1:0"}}
storage: {{filesystem: {{rootdirectory: {folder}/images}}, delete: {{enabled: true}}}}
"""
AUTH = 'auth: {{htpasswd: {{realm: tests, path: "{folder}/users"}}}}\n'


@frozen
class Registry:
    """Where it is ("127.0.0.1:41000"), and what it asks for."""

    address: str
    user: str = ""
    password: str = ""

    def push(self, engine: DockerTestEngine, image: str, name: str) -> str:
        """Put an image of the engine's there under `name`; its whole name with the digest of its manifest."""
        repository, _, tag = f"{self.address}/{name}".rpartition(":")
        keys = {"username": self.user, "password": self.password} if self.user else None
        with engine.client() as client:
            client.images.get(image).tag(repository, tag)
            digest = ""
            for line in client.api.push(repository, tag, stream=True, decode=True, auth_config=keys):
                assert "error" not in line, line["error"]
                digest = line.get("aux", {}).get("Digest", digest)
            client.images.remove(f"{repository}:{tag}", noprune=True)
        return f"{repository}@{digest}"


@contextmanager
def serve(folder: Path, *, private: bool) -> Iterator[Registry]:
    if not debian.offers("docker-registry"):
        pytest.skip("no docker-registry here")
    (folder / "users").write_text(f"{USER}:{HASH}\n")
    (folder / "config.yml").write_text((CONFIG + (AUTH if private else "")).format(folder=folder))
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")],
        env=debian.environment("docker-registry"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        try:
            said = ""
            for said in process.stderr:
                if "listening on " in said:
                    break
            assert "listening on " in said, said
            address = said.partition("listening on ")[2].partition('"')[0].strip()
            rest = threading.Thread(target=process.stderr.read)  # so that its pipe never fills
            rest.start()
            yield Registry(address, *((USER, PASSWORD) if private else ()))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        rest.join()


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve(tmp_path_factory.mktemp("registry"), private=False) as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve(tmp_path_factory.mktemp("private"), private=True) as registry:
        yield registry
