"""What a base's name stands for, with the engine's images and with registries on loopback; their keys."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from docker.errors import APIError
from docker_engine import DockerTestEngine
from docker_rig import Rig, rig, rig_on
from registry import Registry

from slipway.compiler.facts import NOTHING, BaseFact
from slipway.dsl.errors import InvalidError, NotFoundError
from slipway.executor.ports import ContainerSpec
from slipway.executor.runtime.docker_bases import MICROMAMBA, Name, Progress, image_name, name_of
from slipway.executor.runtime.docker_keys import keys_of

__all__ = ["rig"]

TINY = bytes(10240)  # an archive without files
KEYS = (("REGISTRY_USERNAME", "reader"), ("REGISTRY_PASSWORD", "pass word"))


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(main())


def quiet(_stream: int, _data: bytes) -> None: ...


@contextmanager
def tiny(rig: Rig, tag: str = "tiny") -> Iterator[str]:
    """An image with nothing in it, of its own."""
    name = f"slipway-test-{rig.home}"
    rig.client.import_image_from_data(TINY, repository=name, tag=tag, changes=[f"LABEL only={rig.home}-{tag}"])
    try:
        yield f"{name}:{tag}"
    finally:
        rig.client.remove_image(f"{name}:{tag}")


def forget(rig: Rig, *names: str) -> None:
    for name in names:
        with suppress(APIError):  # it isn't there
            rig.client.remove_image(name)


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("python", ("python", ":latest", "")),
        ("python:3.12-slim", ("python", ":3.12-slim", "")),
        ("ghcr.io/owner/a_b--c:V1", ("ghcr.io/owner/a_b--c", ":V1", "")),
        ("127.0.0.1:5000/base", ("127.0.0.1:5000/base", ":latest", "")),
        ("base@sha256:" + "0" * 64, ("base", "", "@sha256:" + "0" * 64)),
        ("base:1@sha256:" + "0" * 64, ("base", ":1", "@sha256:" + "0" * 64)),
    ],
)
def test_a_name_is_taken_apart(text: str, parts: tuple[str, str, str]) -> None:
    repository, tag, digest = parts
    assert name_of(text) == Name(repository=repository, tag=tag, digest=digest)


@pytest.mark.parametrize(
    "text", ["", "Upper/case", "a b", "-x", "x:", "x:../y", "x@sha256:12", "http://x/y", "a" * 256]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(NotFoundError, match="is not the name of an image"):
        name_of(text)


def test_the_settings_say_which_images_bases_are() -> None:
    mapped = (("debian_slim", "any"), ("debian_slim 3.12", "twelve"), ("micromamba", "mamba"))
    assert [image_name("debian_slim", ref, mapped) for ref in ("3.12", "3.13", "")] == ["twelve", "any", "any"]
    assert image_name("debian_slim", "3.13", ()) == "python:3.13-slim-bookworm"
    assert (image_name("micromamba", "", mapped), image_name("micromamba", "", ())) == ("mamba", MICROMAMBA)
    assert image_name("from_registry", "a/b:1", mapped) == "a/b:1"
    with pytest.raises(NotFoundError, match="'from_scratch'"):
        image_name("from_scratch", "", ())


# --- images that are here ---------------------------------------------------------------------------------


def test_an_image_that_was_made_here_is_known_by_its_id(rig: Rig) -> None:
    async def scenario() -> None:
        with tiny(rig) as name:
            ident = rig.client.inspect_image(name)["Id"]
            base = await rig.bases.resolve("from_registry", name, fresh=True)
            assert base.identity == (("image", ident), ("platform", "linux/amd64"))
            assert f"{name} (local image)" in base.says
            assert dict(base.paths)["image"] == ident
            assert (await rig.bases.resolve("from_registry", ident)).identity == base.identity
            assert await rig.bases.has(base)
            await rig.bases.fetch(base, output=quiet)
        assert not await rig.bases.has(base)
        with pytest.raises(NotFoundError, match=r"was only on this machine, and is not here any more"):
            await rig.bases.fetch(base, output=quiet)
        with pytest.raises(NotFoundError, match="is not here"):
            await rig.bases.resolve("from_registry", ident)
        with pytest.raises(NotFoundError, match="is not here"):
            await rig.preparing.image(ContainerSpec(name="one", base=base))

    play(scenario)


def test_a_base_of_another_runtime_is_refused(rig: Rig) -> None:
    async def scenario() -> None:
        for base in (NOTHING, BaseFact(identity=(("os", "debian 12"),), says="this host")):
            with pytest.raises(InvalidError, match="is not one of the docker runtime"):
                await rig.preparing.image(ContainerSpec(name="one", base=base))

    play(scenario)


def test_an_image_for_another_machine_is_refused(rig: Rig) -> None:
    async def scenario() -> None:
        system = (await rig.connection.facts()).system
        rig.connection._facts = evolve(await rig.connection.facts(), system="linux/riscv64")
        with pytest.raises(NotFoundError, match=f"is for {system}, the engine runs linux/riscv64"):
            await rig.bases.resolve("debian_slim", "")

    play(scenario)


# --- registries -------------------------------------------------------------------------------------------


def test_a_registry_is_asked_once_what_a_tag_stands_for(rig: Rig, docker_registry: Registry) -> None:
    said: list[bytes] = []

    async def scenario() -> None:
        with tiny(rig, "one") as one, tiny(rig, "two") as two:
            first = docker_registry.push(rig.engine, one, f"base-{rig.home}:1")
            tag = first.partition("@")[0] + ":1"
            base = await rig.bases.resolve("from_registry", tag)
            assert base.identity == (("manifest", first.partition("@")[2]), ("platform", "linux/amd64"))
            assert dict(base.paths) == {"image": first, "name": tag}
            rig.client.remove_image(one)  # or the engine would find that it has it
            assert not await rig.bases.has(base)
            await rig.bases.fetch(base, output=lambda _, data: said.append(data))
            assert await rig.bases.has(base)
            assert b"Digest: sha256:" in b"".join(said)
            rig.client.tag(tag, *one.split(":"))
            second = docker_registry.push(rig.engine, two, f"base-{rig.home}:1")
            rig.client.tag(one, *tag.rsplit(":", 1))  # as it was, before it moved in the registry
            assert (await rig.bases.resolve("from_registry", tag)).identity == base.identity, "it is here"
            anew = await rig.bases.resolve("from_registry", tag, fresh=True)
            assert dict(anew.paths)["image"] == second
            assert (await rig.bases.resolve("from_registry", first)).identity == base.identity
            forget(rig, tag, first, second)

    play(scenario)


def test_without_a_registry_what_was_known_has_to_do(rig: Rig, docker_registry: Registry) -> None:
    async def scenario() -> None:
        with tiny(rig, "one") as one:
            repository = f"{docker_registry.address}/gone-{rig.home}"
            rig.client.tag(one, repository, "only-here")
            pushed = docker_registry.push(rig.engine, one, f"gone-{rig.home}:1")
            base = await rig.bases.resolve("from_registry", f"{repository}:only-here", fresh=True)
            assert dict(base.paths)["image"] == pushed
            forget(rig, f"{repository}:only-here")

    play(scenario)


def test_a_private_registry_takes_the_keys_of_a_secret(rig: Rig, private_registry: Registry) -> None:
    async def scenario() -> None:
        with tiny(rig) as name:
            pushed = private_registry.push(rig.engine, name, f"base-{rig.home}:1")
            tag = pushed.partition("@")[0] + ":1"
            for wrong in ((), (("REGISTRY_USERNAME", "reader"), ("REGISTRY_PASSWORD", "wrong"))):
                with pytest.raises(NotFoundError, match="does not give out the image") as caught:
                    await rig.bases.resolve("from_registry", tag, auth=wrong)
                assert "secret=" in caught.value.hint
            base = await rig.bases.resolve("from_registry", tag, auth=KEYS)
            assert dict(base.paths)["image"] == pushed
            rig.client.remove_image(name)
            with pytest.raises(NotFoundError, match="does not give out the image"):
                await rig.bases.fetch(base, output=quiet)
            await rig.bases.fetch(base, auth=KEYS, output=quiet)
            assert await rig.bases.has(base)
            rig.client.tag(tag, *name.split(":"))
            forget(rig, tag, pushed)

    play(scenario)


def test_without_keys_those_of_docker_login_count(
    docker_engine: DockerTestEngine, private_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = base64.b64encode(f"{private_registry.user}:{private_registry.password}".encode()).decode()
    text = json.dumps({"auths": {private_registry.address: {"auth": login}}})
    (tmp_path / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with rig_on(docker_engine) as rig, tiny(rig) as name:

        async def scenario() -> None:
            pushed = private_registry.push(rig.engine, name, f"login-{rig.home}:1")
            tag = pushed.partition("@")[0] + ":1"
            base = await rig.bases.resolve("from_registry", tag)
            assert dict(base.paths)["image"] == pushed
            await rig.bases.fetch(base, output=quiet)
            forget(rig, tag, pushed)

        play(scenario)


def test_a_helper_of_docker_login_that_fails_is_said(
    docker_engine: DockerTestEngine, docker_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "of-the-tests"}')
    (tmp_path / "docker-credential-of-the-tests").write_text("#!/bin/sh\necho its keyring is locked\nexit 1\n")
    (tmp_path / "docker-credential-of-the-tests").chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with rig_on(docker_engine) as rig:

        async def scenario() -> None:
            with pytest.raises(NotFoundError, match="its keyring is locked"):
                await rig.bases.resolve("from_registry", f"{docker_registry.address}/helped:1")

        play(scenario)


def test_what_a_registry_does_not_have_is_said(rig: Rig, docker_registry: Registry) -> None:
    async def scenario() -> None:
        for name in ("nothing:1", "nothing@sha256:" + "0" * 64):
            with pytest.raises(NotFoundError, match=f"there is no image {docker_registry.address}/nothing"):
                await rig.bases.resolve("from_registry", f"{docker_registry.address}/{name}")
        with pytest.raises(NotFoundError, match=r"can't be had: .*connection refused") as caught:
            await rig.bases.resolve("from_registry", "127.0.0.1:1/base")
        assert "docker load" in caught.value.hint
        gone = BaseFact(identity=(), paths=(("image", f"{docker_registry.address}/nothing@sha256:" + "0" * 64),))
        with pytest.raises(NotFoundError, match="there is no image"):
            await rig.bases.fetch(gone, output=quiet)

    play(scenario)


# --- progress ---------------------------------------------------------------------------------------------


def test_a_pull_of_many_messages_is_told_in_few_lines() -> None:
    progress = Progress()
    items: list[dict[str, Any]] = [{"status": "Pulling from library/python", "id": "3.12"}]
    items += [{"status": "Pulling fs layer", "id": name, "progressDetail": {}} for name in "ab"]
    for came in range(0, 100_000_001, 100_000):
        detail = {"current": came, "total": 100_000_000}
        items += [{"status": "Downloading", "id": name, "progressDetail": detail} for name in "ab"]
    items += [{"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 2}}] * 100
    items += [{"status": "Pull complete", "id": "a"}, {"status": "Digest: sha256:12"}]
    lines = [line for line in map(progress.line, items) if line]
    assert lines[0] == "20 of 200 MB\n"
    assert lines[-2:] == ["200 of 200 MB\n", "Digest: sha256:12\n"]
    assert len(lines) <= 13
    assert progress.line({"error": " no space\n"}) == ""
    assert progress.error == "no space"


# --- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "reason"),
    [
        ((("TOKEN", "x"),), "has no registry keys: TOKEN"),
        ((*KEYS, ("SERVICE_ACCOUNT_JSON", "{}")), "has more than one kind of registry keys"),
        (KEYS[:1], "lacks REGISTRY_PASSWORD"),
        ((("AWS_ACCESS_KEY_ID", "x"),), "lacks AWS_SECRET_ACCESS_KEY"),
        ((("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")), "lacks AWS_REGION"),
    ],
)
def test_a_secret_that_fits_no_registry_is_refused(auth: tuple[tuple[str, str], ...], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as caught:
        keys_of(auth, "ghcr.io/owner/name:1")
    assert "pass word" not in str(caught.value)


def test_googles_keys_are_one() -> None:
    found = keys_of((("SERVICE_ACCOUNT_JSON", '{"type": "service_account"}'),), "gcr.io/owner/name:1")
    assert found == {"username": "_json_key", "password": '{"type": "service_account"}'}


AMAZON = (("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hush"), ("AWS_SESSION_TOKEN", "session"))
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/base:1"


def test_amazons_keys_are_changed_for_its_password_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("botocore")
    asked: list[tuple[str, str]] = []

    class Amazon(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.headers["X-Amz-Target"], self.headers["Authorization"]))
            token = base64.b64encode(b"AWS:of the day").decode()
            body = json.dumps({"authorizationData": [{"authorizationToken": token}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Amazon) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_ECR", f"http://127.0.0.1:{server.server_port}")
        try:
            assert keys_of(AMAZON, ECR) == {"username": "AWS", "password": "of the day"}
        finally:
            server.shutdown()
            thread.join()
    ((target, authorization),) = asked
    assert target.endswith("GetAuthorizationToken")
    assert "AKID" in authorization
    assert "/eu-west-1/ecr/" in authorization


def test_amazons_keys_without_the_package_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "botocore.exceptions", None)
    with pytest.raises(InvalidError, match=r"pip install 'slipway\[aws\]'"):
        keys_of(AMAZON, ECR)
