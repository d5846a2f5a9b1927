"""Docker Engine through TCP and TLS: a real one of the test's own, with certificates made here."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import debian
import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from docker_engine import import_base
from dockerd import Dockerd

from slipway.executor.config import Config, DockerSettings
from slipway.executor.ports import ContainerSpec, Exit
from slipway.executor.runtime.docker import home_id
from slipway.executor.runtime.docker_runtime import DockerRuntime

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(debian.refusal()), reason=debian.refusal() or "it can")]

Key = ec.EllipticCurvePrivateKey


def certificate(
    name: str, usage: x509.ObjectIdentifier | None, signer: tuple[str, Key] | None = None
) -> tuple[bytes, Key]:
    """A certificate for 127.0.0.1 signed by `signer`, or by itself; and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, signing = signer or (name, key)
    now = datetime.datetime.now(datetime.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder(subject_name=named(name), issuer_name=named(issuer), public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )
    if usage is not None:
        here = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    signed = builder.sign(signing, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM), key


def keep(folder: Path, *, ca: bytes, cert: bytes, key: Key) -> Path:
    folder.mkdir()
    (folder / "ca.pem").write_bytes(ca)
    (folder / "cert.pem").write_bytes(cert)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder


@frozen
class Engine:
    url: str
    base: str
    client: Path  # the folder of certificates that it takes
    stranger: Path  # … and of some that it doesn't


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="slipway-tls-") as name:
        folder = Path(name)
        ca, ca_key = certificate("the tests", None)
        signer = ("the tests", ca_key)
        cert, key = certificate("engine", ExtendedKeyUsageOID.SERVER_AUTH, signer)
        server = keep(folder / "server", ca=ca, cert=cert, key=key)
        cert, key = certificate("client", ExtendedKeyUsageOID.CLIENT_AUTH, signer)
        client = keep(folder / "client", ca=ca, cert=cert, key=key)
        cert, key = certificate("stranger", ExtendedKeyUsageOID.CLIENT_AUTH)
        stranger = keep(folder / "stranger", ca=ca, cert=cert, key=key)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        dockerd = Dockerd(folder / "engine", debian.environment("docker.io"))
        named = [
            f"--tls{what}={server}/{file}.pem" for what, file in (("cacert", "ca"), ("cert", "cert"), ("key", "key"))
        ]
        try:
            dockerd.start(f"--host={url}", "--tlsverify", *named)
            yield Engine(url, import_base(dockerd.url), client, stranger)
        finally:
            dockerd.remove()


@pytest.fixture(autouse=True)
def environ(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(engine.client))


def runtime(home: Path, engine: Engine) -> DockerRuntime:
    settings = DockerSettings(host=engine.url, bases=(("debian_slim", engine.base),))
    return DockerRuntime(home, lambda: Config(docker=settings))


def test_containers_run_and_layers_are_kept(engine: Engine, tmp_path: Path) -> None:
    """Requests, streams that go both ways, and what an engine sends for long."""

    async def main() -> None:
        docker = runtime(tmp_path, engine)
        await docker.start()
        try:
            assert await docker.trouble() == ""
            assert home_id(tmp_path) and (await docker.ability()).refusals == ()
            base = await docker.resolve("debian_slim", "3.11")
            container = await docker.create(
                ContainerSpec(name="build", base=base, privileged_build=True, network=False)
            )
            came = bytearray()
            data = os.urandom(1 << 20)
            script = ("/bin/sh", "-c", "cat > /kept; wc -c < /kept; cat /kept")
            process = await container.exec(script, stdin=data, output=lambda number, some: came.extend(some))
            assert await process.wait() == Exit(code=0)
            wanted = b"%d\n" % len(data) + data
            assert (len(came), bytes(came)) == (len(wanted), wanted)
            data, came = os.urandom(8 << 20), bytearray()  # it answers while it is told
            process = await container.exec(("cat",), stdin=data, output=lambda number, some: came.extend(some))
            assert await process.wait() == Exit(code=0)
            assert (len(came), bytes(came)) == (len(data), data)
            layer = "sha256:" + "5e" * 32
            await container.commit(layer)
            assert await docker.has(layer)
            container = await docker.create(ContainerSpec(name="one", base=base, layers=(layer,), single=True))
            came.clear()
            process = await container.exec(
                ("/bin/sh", "-c", "wc -c < /kept; echo $SECRET"),
                env=(("SECRET", "x"),),
                output=lambda number, some: came.extend(some),
            )
            assert await process.wait() == Exit(code=0)
            assert bytes(came) == b"1048576\nx\n"
            await container.kill()
            await docker.remove(layer)
        finally:
            await docker.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("who", ["stranger", "nobody", "in the clear"])
def test_a_caller_that_the_engine_does_not_know_is_told(
    who: str, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "ca.pem").write_bytes((engine.client / "ca.pem").read_bytes())
    places = {"stranger": engine.stranger, "nobody": tmp_path / "nobody", "in the clear": engine.client}
    monkeypatch.setenv("DOCKER_CERT_PATH", str(places[who]))
    if who == "in the clear":
        monkeypatch.delenv("DOCKER_TLS_VERIFY")

    async def main() -> str:
        docker = runtime(tmp_path, engine)
        await docker.start()
        try:
            return await docker.trouble()
        finally:
            await docker.close()

    trouble = asyncio.run(asyncio.wait_for(main(), 30))
    assert engine.url in trouble
