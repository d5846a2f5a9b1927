"""Where Docker Engine is: who is heard first, what Docker's own files say, what is refused and why."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from slipway.dsl.errors import RuntimeUnavailable
from slipway.executor.config import DockerSettings
from slipway.executor.runtime.docker_host import Tls, resolve, sees

NOTHING = DockerSettings()


def context(folder: Path, name: str, endpoint: object, *certificates: str) -> None:
    """A context as Docker's command line keeps it."""
    ident = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / ident
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    for certificate in certificates:
        path = folder / "contexts" / "tls" / ident / "docker" / certificate
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("PEM")


def refusal(settings: DockerSettings, environ: dict[str, str]) -> str:
    with pytest.raises(RuntimeUnavailable) as said:
        resolve(settings, environ)
    assert said.value.hint
    return f"{said.value.message} | {said.value.hint}"


def test_who_is_heard_first(tmp_path: Path) -> None:
    context(tmp_path, "lab", {"Host": "unix:///lab.sock"})
    context(tmp_path, "work", {"Host": "unix:///work.sock"})
    context(tmp_path, "home", {"Host": "unix:///home.sock"})
    (tmp_path / "config.json").write_text('{"currentContext": "home", "auths": {}}')
    environ = {
        "DOCKER_CONFIG": str(tmp_path),
        "DOCKER_HOST": "unix:///variable.sock",
        "DOCKER_CONTEXT": "work",
    }
    assert str(resolve(DockerSettings(host="unix:///said.sock"), environ)) == (
        "unix:///said.sock (host in config.toml)"
    )
    assert str(resolve(DockerSettings(context="lab"), environ)) == "unix:///lab.sock (context lab in config.toml)"
    assert str(resolve(NOTHING, environ)) == "unix:///variable.sock (DOCKER_HOST)"
    assert str(resolve(DockerSettings(context="default"), environ)) == "unix:///variable.sock (DOCKER_HOST)"
    del environ["DOCKER_HOST"]
    assert str(resolve(NOTHING, environ)) == "unix:///work.sock (DOCKER_CONTEXT=work)"
    del environ["DOCKER_CONTEXT"]
    assert str(resolve(NOTHING, environ)) == "unix:///home.sock (Docker's current context, home)"


def test_the_usual_sockets(tmp_path: Path) -> None:
    if Path("/var/run/docker.sock").exists():
        pytest.skip("an engine is where engines usually are")
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert resolve(NOTHING, environ).url == "unix:///var/run/docker.sock"
    (tmp_path / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as podman, socket.socket(socket.AF_UNIX) as docker:
        podman.bind(f"{tmp_path}/podman/podman.sock")
        assert str(resolve(NOTHING, environ)) == f"unix://{tmp_path}/podman/podman.sock (Podman without root)"
        docker.bind(f"{tmp_path}/docker.sock")
        assert str(resolve(NOTHING, environ)) == f"unix://{tmp_path}/docker.sock (Docker without root)"


def test_tls_as_dockers_own_command_line_has_it(tmp_path: Path) -> None:
    url = "tcp://127.0.0.1:2376"
    environ = {"DOCKER_HOST": url, "DOCKER_CERT_PATH": str(tmp_path)}
    assert resolve(NOTHING, environ).tls is None
    environ["DOCKER_TLS_VERIFY"] = "1"
    assert resolve(NOTHING, environ).tls == Tls(verify=True)
    for name in ("ca", "cert"):
        (tmp_path / f"{name}.pem").write_text("PEM")
    assert "has no key.pem" in refusal(NOTHING, environ)
    (tmp_path / "key.pem").write_text("PEM")
    ca, cert, key = (str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key"))
    assert resolve(NOTHING, environ).tls == Tls(verify=True, ca=ca, cert=cert, key=key)
    assert resolve(DockerSettings(host=url), environ).tls == Tls(verify=True, ca=ca, cert=cert, key=key)
    del environ["DOCKER_TLS_VERIFY"]
    environ["DOCKER_TLS"] = "1"
    assert resolve(NOTHING, environ).tls == Tls(verify=False, ca=ca, cert=cert, key=key)


def test_the_certificates_of_a_context(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    context(tmp_path, "lab", {"Host": "tcp://127.0.0.1:2376", "SkipTLSVerify": True}, "ca.pem", "cert.pem", "key.pem")
    context(tmp_path, "bare", {"Host": "tcp://127.0.0.1:2375"})
    tls = resolve(DockerSettings(context="lab"), environ).tls
    assert tls is not None and not tls.verify and tls.key is not None and tls.key.endswith("/docker/key.pem")
    assert resolve(DockerSettings(context="bare"), environ).tls is None


@pytest.mark.skipif(shutil.which("docker") is None, reason="needs Docker's command line")
def test_a_context_that_docker_itself_made(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    for words in (("create", "the-lab", "--docker", "host=tcp://127.0.0.1:2375"), ("use", "the-lab")):
        subprocess.run(["docker", "context", *words], env=environ, check=True, capture_output=True)
    assert str(resolve(NOTHING, environ)) == "tcp://127.0.0.1:2375 (Docker's current context, the-lab)"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "ssh://me@far",
            "is an engine on another machine, reached through ssh | Functions need this machine's folders",
        ),
        ("npipe:////./pipe/docker_engine", "is no address of a Docker Engine that can be used here"),
        ("https://127.0.0.1:2376", "is no address of a Docker Engine that can be used here"),
        ("/var/run/docker.sock", "is no address of a Docker Engine that can be used here"),
        ("unix://docker.sock", "does not name a socket by its whole path | Write unix:///docker.sock"),
        ("tcp://127.0.0.1", "lacks the engine's host or port"),
        ("tcp://:2376", "lacks the engine's host or port"),
        ("tcp://127.0.0.1:99999", "lacks the engine's host or port"),
        ("tcp://[::1", "lacks the engine's host or port"),
    ],
)
def test_an_address_that_is_of_no_use(url: str, words: str, tmp_path: Path) -> None:
    assert f"{words}" in refusal(DockerSettings(host=url), {})
    assert "DOCKER_HOST" in refusal(NOTHING, {"DOCKER_HOST": url})
    context(tmp_path, "far", {"Host": url})
    assert "current context, far" not in refusal(DockerSettings(context="far"), {"DOCKER_CONFIG": str(tmp_path)})


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    context(tmp_path, "laboratory", {"Host": "unix:///lab.sock"})
    context(tmp_path, "empty", {})
    context(tmp_path, "odd", [])
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    assert 'Did you mean "laboratory"?' in refusal(DockerSettings(context="labratory"), environ)
    assert "There are: default, empty, laboratory, odd." in refusal(DockerSettings(context="zzz"), environ)
    for name in ("empty", "odd"):
        assert f"the Docker context {name} names no engine" in refusal(DockerSettings(context=name), environ)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "[" * 20_000, '{"currentContext": 5}', "\xff"])
def test_damaged_files_of_dockers_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    assert str(tmp_path / "config.json") in refusal(NOTHING, {"DOCKER_CONFIG": str(tmp_path)})
    context(tmp_path, "lab", {"Host": "unix:///lab.sock"})
    (meta,) = tmp_path.glob("contexts/meta/*/meta.json")
    meta.write_bytes(text.encode("latin-1"))
    assert "meta.json" in refusal(DockerSettings(context="lab"), {"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("there", "not_there", "verdict"), [(404, 400, True), (400, 400, False), (500, 500, False), (404, 404, None)]
)
def test_whether_an_engine_sees_a_folder(there: int, not_there: int, verdict: bool | None, tmp_path: Path) -> None:
    def create(body: dict[str, Any]) -> tuple[int, str]:
        (mount,) = body["HostConfig"]["Mounts"]
        return (there if Path(mount["Source"]).exists() else not_there), ""

    assert sees(create, tmp_path) is verdict
