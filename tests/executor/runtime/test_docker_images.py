"""Layers, Dockerfiles and prepared images on a real engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError
from docker_engine import DockerTestEngine
from docker_rig import Rig, rig, rig_on

from slipway.dsl.errors import ImageBuildError, InvalidError, NotFoundError
from slipway.executor.ports import DockerfileBuild, Prepared
from slipway.executor.runtime import docker_commit
from slipway.executor.runtime.docker_prepare import UNDIVIDED, Preparing
from slipway.executor.runtime.docker_store import Store

__all__ = ["rig"]


def layer(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(main())


def bind(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target}


def tree(folder: Path, **files: str) -> str:
    """A tree with files named by words: `root__app` is `root/app`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def quiet(_stream: int, _data: bytes) -> None: ...


# --- layers -----------------------------------------------------------------------------------------------


CONTENT = "mkdir -p /data/deep; echo 1 >/data/a; ln /data/a /data/b; ln -s a /data/c; mkfifo /data/p; "
CAPABLE = 'import os; os.setxattr("/data/a", "security.capability", bytes([1, 0, 0, 2, 0, 4, *14 * [0]]))'
SOCKET = 'import socket; socket.socket(socket.AF_UNIX).bind("/data/s")'
ODD = "echo 1 >'/data/a b\\c'; echo 1 >/data/-x; echo 1 >\"$(printf '/data/new\\nline')\"; echo 1 >>/etc/issue; "


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        "echo 2 >/data/a",
        "chmod 600 /data/a",
        "chown 7 /data/a",
        "chgrp 7 /data/deep",
        "ln -sf b /data/c",
        "rm /etc/issue",
        "rmdir /data/deep",
        f"python3 -c '{CAPABLE}'",
    ],
)
def test_the_digest_is_over_all_content(rig: Rig, script: str) -> None:
    async def scenario() -> None:
        container = rig.keeper(rig.engine.base_image)
        rig.sh(container, f"{CONTENT} mkdir /data/__pycache__; echo 1 >/var/log/x")
        first = await rig.commit(container, layer("a"), ())
        rig.sh(container, "touch -d 2001-01-01 /data/a /data; echo 2 >/var/log/x; echo 2 >/data/__pycache__/x")
        assert await rig.commit(container, layer("b"), ()) == first
        rig.sh(container, script)
        assert await rig.commit(container, layer("c"), ()) != first

    play(scenario)


def test_the_digest_is_over_what_is_below_too(rig: Rig) -> None:
    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        lower = await rig.built(rig.engine.base_image, layer("b"), "echo 1 >/opt/b")
        assert await rig.built(rig.store.reference(layer("a")), layer("c"), "echo 1 >/opt/b") != lower

    play(scenario)


@pytest.mark.slow
def test_an_image_without_tar_gives_the_same_digest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        container = rig.keeper(rig.engine.base_image)
        rig.sh(container, f"{CONTENT} {ODD} mkdir /opt/empty; chmod 1777 /opt; python3 -c '{SOCKET}'")
        told = await rig.commit(container, layer("a"), ())
        monkeypatch.setattr(docker_commit, "TAR", ("/no/such/tar",))
        assert await rig.commit(container, layer("b"), ()) == told
        rig.sh(container, "echo 2 >/data/deep/x")
        assert await rig.commit(container, layer("c"), ()) != told

    play(scenario)


@pytest.mark.slow
def test_mounts_are_no_part_of_the_content(rig: Rig, tmp_path: Path) -> None:
    mounts = [bind(tmp_path, target) for target in ("/root/.cache/uv", "/srv/deep/out", "/home", "/.slipway/cache")]

    async def scenario() -> None:
        base = rig.engine.base_image
        plain = await rig.built(base, layer("a"), "echo 1 >/opt/a")
        script = "echo 1 >/opt/a; echo 1 >/srv/deep/out/x; echo 2 >/home/y"
        assert await rig.built(base, layer("b"), script, mounts) == plain
        assert await rig.built(base, layer("c"), script + "; chmod 711 /root", mounts) != plain
        assert await rig.built(base, layer("d"), script + "; echo 1 >/srv/deep/other", mounts) != plain
        assert (tmp_path / "y").read_text() == "2\n"

    play(scenario)


def test_the_config_of_the_image_below_is_kept_and_nothing_of_the_step_gets_in(rig: Rig) -> None:
    below = rig.engine.image(
        "configured",
        "ENV A=1 PATH=/opt/bin:/usr/bin:/bin",
        "WORKDIR /srv/here",
        'ENTRYPOINT ["/bin/sh", "-c"]',
        'CMD ["echo hello"]',
        "EXPOSE 80",
        "LABEL its=own",
        "USER nobody",
    )

    async def scenario() -> None:
        container = rig.keeper(below, user="0", environment={})
        rig.sh(container, ": hush-argv; echo 1 >/opt/a", environment={"TOKEN": "hush-env"})
        await rig.commit(container, layer("a"), ())
        rig.client.remove_container(container, force=True)
        was, now = (rig.client.inspect_image(image) for image in (below, rig.store.reference(layer("a"))))
        labels = {name: value for name, value in now["Config"].pop("Labels").items() if "slipway" not in name}
        assert labels == was["Config"].pop("Labels") == {"its": "own"}
        same = ("Env", "WorkingDir", "Entrypoint", "Cmd", "ExposedPorts", "User", "Volumes", "OnBuild")
        assert {name: now["Config"].get(name) for name in same} == {name: was["Config"].get(name) for name in same}
        history = rig.client.history(rig.store.reference(layer("a")))
        assert history[0]["CreatedBy"] == ""
        assert "hush" not in json.dumps([now, history])
        assert "the-keeper" not in json.dumps([now["Config"], history])

    play(scenario)


def test_an_image_without_a_command_gets_none(rig: Rig) -> None:
    async def scenario() -> None:
        made = rig.client.import_image_from_data(exported(rig), repository=f"slipway-{rig.home}", tag="bare")
        assert "error" not in made
        bare = f"slipway-{rig.home}:bare"
        try:
            await rig.built(bare, layer("a"), "echo 1 >/opt-a")
            config = rig.client.inspect_image(rig.store.reference(layer("a")))["Config"]
            assert not config["Cmd"]
            assert not config["Entrypoint"]
        finally:
            rig.clean_image(bare)

    play(scenario)


def exported(rig: Rig) -> bytes:
    """The little of the base that a shell needs."""
    container = rig.keeper(rig.engine.base_image)
    programs = "/bin/sh /bin/sleep /bin/tar"
    script = f"tar -ch {programs} $(ldd {programs} | grep -o '/lib[^ ]*so[^ ]*' | sort -u) 2>/dev/null"
    begun = rig.client.exec_create(container, ["/bin/sh", "-c", script], stderr=False)
    try:
        return bytes(rig.client.exec_start(begun["Id"]))
    finally:
        rig.client.remove_container(container, force=True)


def test_layers_are_found_named_again_and_removed(rig: Rig) -> None:
    async def scenario() -> None:
        assert not await rig.has(layer("a"))
        with pytest.raises(NotFoundError, match="layer sha256:"):
            await rig.store.alias(layer("b"), layer("a"))
        with pytest.raises(NotFoundError, match=r"layer sha256:\w+ is not among the engine's images"):
            await rig.preparing.image(await rig.spec(layer("a")))
        output = await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        assert await rig.built(rig.engine.base_image, layer("a"), "echo 2 >/opt/a") == output, "it was there"
        await rig.store.alias(layer("b"), layer("a"))
        await rig.store.alias(layer("b"), layer("a"))
        assert {name async for name in rig.store.layers()} == {layer("a"), layer("b")}
        await rig.store.remove(layer("a"))
        assert {name async for name in rig.store.layers()} == {layer("b")}
        container = rig.keeper(rig.store.reference(layer("b")))
        with pytest.raises(InvalidError, match=r"in use by container keeper"):
            await rig.store.remove(layer("b"))
        rig.client.remove_container(container, force=True)
        await rig.store.remove(layer("b"))
        await rig.store.remove(layer("b"))
        assert rig.tags() == set()

    play(scenario)


def test_a_layer_below_one_that_a_container_stands_on_is_in_use(rig: Rig) -> None:
    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        await rig.built(rig.store.reference(layer("a")), layer("b"), "echo 1 >/opt/b")
        container = rig.keeper(rig.store.reference(layer("b")))
        with pytest.raises(InvalidError, match="in use by container keeper"):
            await rig.store.remove(layer("a"))
        rig.client.remove_container(container, force=True)
        await rig.store.remove(layer("a"))
        assert rig.said(rig.store.reference(layer("b")), "sh", "-c", "cat /opt/a /opt/b") == "1\n1\n"

    play(scenario)


def test_what_is_stored_says_what_each_takes_alone(rig: Rig, tmp_path: Path) -> None:
    code = tree(tmp_path, root__app="x" * 50_000)

    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "head -c 300000 /dev/zero >/opt/a")
        await rig.built(rig.store.reference(layer("a")), layer("b"), "head -c 20000 /dev/zero >/opt/b")
        await rig.store.alias(layer("c"), layer("b"))
        image = await rig.preparing.image(await rig.spec(layer("b"), trees=(code,)))
        stored = {one.ident: one for one in await rig.store.stored()}
        assert stored[layer("a")].size == 300_000
        assert sorted((stored[layer(name)].size for name in "bc"), reverse=True) == [20_000, 0]
        assert stored[layer("b")].content == stored[layer("c")].content != stored[layer("a")].content
        (trees,) = [one for one in stored.values() if one.trees]
        assert (trees.layer, trees.trees, trees.size) == (layer("b"), (code,), 50_000)
        assert trees.ident not in {layer("a"), layer("b"), layer("c")}
        await rig.store.remove(layer("b"))
        assert trees.ident in {one.ident for one in await rig.store.stored()}, "its layer has a name still"
        await rig.store.remove(trees.ident)
        with pytest.raises(APIError):
            rig.client.inspect_image(image.id)
        await rig.preparing.image(await rig.spec(layer("c"), trees=(code,)))
        await rig.store.remove(layer("c"))
        assert [one.ident for one in await rig.store.stored()] == [layer("a")]

    play(scenario)


def test_what_a_crash_left_half_made_is_swept_away_and_nothing_else(rig: Rig) -> None:
    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        await rig.built(rig.store.reference(layer("a")), layer("b"), "echo 1 >/opt/b")
        await rig.store.remove(layer("a"))  # b stands on it: it stays, without a name
        container = rig.keeper(rig.engine.base_image)
        ours, foreign = (
            rig.client.commit(container, conf={"Labels": {"slipway.home": home}})["Id"]
            for home in (rig.home, f"{rig.home}x")
        )
        rig.client.remove_container(container, force=True)
        try:
            await rig.store.sweep()
            with pytest.raises(APIError):
                rig.client.inspect_image(ours)
            assert rig.client.inspect_image(foreign)
            assert {name async for name in rig.store.layers()} == {layer("b")}
        finally:
            rig.client.remove_image(foreign)

    play(scenario)


@pytest.mark.parametrize("way", ["commit", "dockerfile", "sweep"])
def test_what_is_not_ours_stays_below_a_layer_that_goes_though_it_has_no_name(
    rig: Rig, tmp_path: Path, way: str
) -> None:
    """A user's image loses its name when the next one is built; its `from_registry` may name it by its id, too."""

    async def scenario() -> None:
        container = rig.keeper(rig.engine.base_image)
        its = {"slipway.home": "", "slipway.name": ""}
        foreign = rig.client.commit(container, conf={"Labels": its})["Id"]
        rig.client.remove_container(container, force=True)
        try:
            before = {image["Id"] for image in rig.client.images(all=True)}
            if way == "dockerfile":
                text = f"FROM {foreign} AS a\nRUN echo 1 >/opt/a\nRUN echo {tmp_path} >/opt/b\nFROM a\nENV A=1"
                await rig.build_dockerfile(DockerfileBuild(text=text, context=str(tmp_path)), layer("a"), quiet)
            else:
                await rig.built(foreign, layer("a"), "echo 1 >/opt/a")
            await rig.built(rig.store.reference(layer("a")), layer("b"), "echo 1 >/opt/b")
            if way == "sweep":
                for name in "ab":  # what is left where an engine of ours was killed while it removed them
                    rig.client.tag(rig.store.reference(layer(name)), "slipway-test-other", name)
                    rig.client.remove_image(rig.store.reference(layer(name)), noprune=True)
                    rig.client.remove_image(f"slipway-test-other:{name}", noprune=True)
                await rig.store.sweep()
            else:
                await rig.store.remove(layer("a"))
                await rig.store.remove(layer("b"))
            assert {image["Id"] for image in rig.client.images(all=True)} - before == set()
            assert rig.client.inspect_image(foreign)
        finally:
            rig.client.remove_image(foreign)

    play(scenario)


# --- Dockerfiles ------------------------------------------------------------------------------------------


def test_a_dockerfile_becomes_a_layer_from_exactly_its_context(rig: Rig, tmp_path: Path) -> None:
    context = tree(tmp_path, one="1", deep__two="2")
    (tmp_path / "one").chmod(0o755)
    said: list[bytes] = []

    async def scenario() -> None:
        lines = ("ARG WHO=x", "COPY . /ctx", "RUN echo hello $WHO >/who; ls -A /ctx", "USER nobody")
        text = "\n".join((f"FROM {rig.engine.base_image}", *lines))
        build = DockerfileBuild(text=text, context=context, args=(("WHO", "you"),))
        output = await rig.build_dockerfile(build, layer("a"), lambda _, data: said.append(data))
        assert output.startswith("sha256:")
        assert await rig.build_dockerfile(build, layer("a"), quiet) == output
        assert b"\ndeep\none\n" in b"".join(said)
        reference = rig.store.reference(layer("a"))
        assert rig.said(reference, "sh", "-c", "cat /who; id -un") == "hello you\nnobody\n"
        look = "cd /ctx; stat -c '%n %a %u %Y' one deep/two"
        assert rig.said(reference, "sh", "-c", look) == "one 755 0 315532800\ndeep/two 644 0 315532800\n"
        assert await rig.built(reference, layer("b"), "echo 1 >/opt/b") != output
        assert {name async for name in rig.store.layers()} == {layer("a"), layer("b")}

    play(scenario)


def test_lines_of_a_dockerfile_stand_on_an_image_of_ours(rig: Rig, tmp_path: Path) -> None:
    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        lines = "RUN cat /opt/a >/opt/b\nENV B=2"
        build = DockerfileBuild(text=lines, context=str(tmp_path), onto=await rig.spec(layer("a")))
        output = await rig.build_dockerfile(build, layer("b"), quiet)
        assert rig.said(rig.store.reference(layer("b")), "sh", "-c", "cat /opt/b; echo $B") == "1\n2\n"
        stored = {one.ident: one.size for one in await rig.store.stored()}
        assert stored == {layer("a"): 2, layer("b"): 2}
        again = await rig.build_dockerfile(build, layer("c"), quiet)
        assert again == output, "the engine remembers the lines"
        said: list[bytes] = []
        fresh = DockerfileBuild(text=build.text, context=build.context, onto=build.onto, fresh=True)
        await rig.build_dockerfile(fresh, layer("d"), lambda _, data: said.append(data))
        assert b"Using cache" not in b"".join(said)

    play(scenario)


FAILING = (
    ("RUN true\nRUN echo broken; exit 3", r"step 3/\d of the Dockerfile, RUN echo broken; exit 3: .* code: 3"),
    ("NONSENSE x", "unknown instruction: NONSENSE"),
    ("COPY nothing /x", r"step 2/\d of the Dockerfile, COPY nothing /x: .*not"),
)


def test_a_dockerfile_that_fails_says_where(rig: Rig, tmp_path: Path) -> None:
    async def scenario() -> None:
        await rig.built(rig.engine.base_image, layer("a"), "echo 1 >/opt/a")
        onto = await rig.spec(layer("a"))
        for text, reason in FAILING:
            build = DockerfileBuild(text=text, context=str(tmp_path), onto=onto)
            with pytest.raises(ImageBuildError, match=reason) as caught:
                await rig.build_dockerfile(build, layer("b"), quiet)
            assert ("broken" in text) == ("broken\n" in caught.value.log)
        assert {name async for name in rig.store.layers()} == {layer("a")}
        await rig.store.sweep()  # what the lines before the failure gave
        assert {image["Id"] for image in rig.ours()} == {(await rig.store.top(onto)).id}

    play(scenario)


def test_a_dockerfile_that_is_given_up_in_a_silent_line_leaves_no_container(rig: Rig, tmp_path: Path) -> None:
    text = f"FROM {rig.engine.base_image}\nRUN echo begun; sleep 1234"
    build = DockerfileBuild(text=text, context=str(tmp_path))

    async def scenario() -> None:
        begun = asyncio.Event()

        def hear(_: int, data: bytes) -> None:
            if data == b"begun\n":
                begun.set()

        with rig.engine.client() as client:
            gone = client.events(decode=True, filters={"type": "container", "event": "destroy"})
            building = asyncio.create_task(rig.build_dockerfile(build, layer("a"), hear))
            await begun.wait()
            there = client.containers.list(all=True)
            (container,) = (one.id for one in there if "sleep 1234" in str(one.attrs["Config"]["Cmd"]))
            building.cancel()
            async with asyncio.timeout(30):
                await asyncio.to_thread(lambda: next(event for event in gone if event["id"] == container))
            gone.close()

    play(scenario)


# --- prepared images --------------------------------------------------------------------------------------


def test_an_image_with_trees_is_the_image_with_files_in_it(docker_engine: DockerTestEngine, tmp_path: Path) -> None:
    first = tree(tmp_path / "1", root__app="1", root__pkg__a="1", tmp__x="1", bin__our="1", new__deep__y="1")
    second = tree(tmp_path / "2", root__app="2")
    (tmp_path / "1/root/pkg/a").chmod(0o755)
    (tmp_path / "1/root/link").symlink_to("pkg/a")
    lines = ("RUN chmod 700 /root", "USER nobody", "WORKDIR /srv", "ENV A=1", 'CMD ["true"]')
    below = docker_engine.image("with-a-user", *lines)
    with rig_on(docker_engine, bases=(("debian_slim", below),)) as rig:

        async def scenario() -> None:
            spec = await rig.spec(trees=(first, second))
            assert await rig.preparing.prepare(spec) == Prepared(python="python3", undivided=UNDIVIDED)
            made = await asyncio.gather(*(rig.preparing.image(spec) for _ in range(5)))
            assert len({image.id for image in made}) == len(rig.tags()) == 1
            look = "cat /root/app /root/pkg/a /root/link /new/deep/y /bin/our; test -L /bin; id -un; pwd; echo $A"
            assert rig.said(made[0].id, "sh", "-ec", look) == "21111nobody\n/srv\n1\n"
            look = "stat -c '%n %a %u' / /root /root/pkg/a /tmp /new /new/deep"
            modes = "/ 755 0 /root 755 0 /root/pkg/a 755 0 /tmp 1777 0 /new 755 0 /new/deep 755 0"
            assert rig.said(made[0].id, "sh", "-c", look).split() == modes.split()
            was, now = (rig.client.inspect_image(image)["Config"] for image in (below, made[0].id))
            same = ("User", "WorkingDir", "Env", "Cmd", "Entrypoint")
            assert {name: now[name] or None for name in same} == {name: was[name] or None for name in same}
            assert (await rig.preparing.image(await rig.spec())).id == rig.client.inspect_image(below)["Id"]

        play(scenario)


def test_what_python_an_image_has_is_asked_once(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tree(tmp_path, root__app="1")

    async def scenario() -> None:
        spec = await rig.spec(trees=(code,))
        assert (await asyncio.gather(*(rig.preparing.prepare(spec) for _ in range(4)))) == [
            Prepared(python="python3", undivided=UNDIVIDED)
        ] * 4
        with rig_on(rig.engine) as later:  # an engine that has been started anew
            preparing = Preparing(later.connection, Store(later.connection, rig.home), lambda _: later.settings)
            monkeypatch.setattr("slipway.executor.runtime.docker_prepare.Preparing._run", None)
            assert await preparing.prepare(spec) == Prepared(python="python3", undivided=UNDIVIDED)

    play(scenario)


PLACE = "/usr/local/bin/{name} && chmod 755 /usr/local/bin/{name}"
FAKE = 'RUN printf "#!/bin/sh\\necho slipway-python {version}\\n" >' + PLACE
ENTRYPOINT = 'RUN printf "#!/bin/sh\\necho banner\\nexec \\"\\$@\\"\\n" >/entry && chmod 755 /entry'
NO_SHELL = 'RUN {python} -c "import os; [os.remove(path) for path in {paths}]"'
SHELLS = ("/bin/sh", "/bin/dash")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("two-pythons", (FAKE.format(version="2.7.18", name="python"),)),
        ("no-shell", (NO_SHELL.format(python="python3", paths=SHELLS),)),
        ("entrypoint", (ENTRYPOINT, 'ENTRYPOINT ["/entry"]')),
    ],
)
def test_a_python_is_found(docker_engine: DockerTestEngine, name: str, lines: tuple[str, ...]) -> None:
    with rig_on(docker_engine, bases=(("debian_slim", docker_engine.image(name, *lines)),)) as rig:

        async def scenario() -> None:
            assert await rig.preparing.prepare(await rig.spec()) == Prepared(python="python3", undivided=UNDIVIDED)

        play(scenario)


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("no-python-here", ("RUN rm /usr/bin/python3*",), "has no Python .*\n.*add_python="),
        ("old-python", ("RUN rm /usr/bin/python3*", FAKE.format(version="3.8.2", name="python3")), "is 3.8.2: too old"),
        ("bad-entrypoint", ('ENTRYPOINT ["/bin/echo", "served"]',), r'its ENTRYPOINT .* does not run it\n.*exec "\$@"'),
        (
            "nothing",
            ("RUN mv /usr/bin/python3.11 /p", NO_SHELL.format(python="/p", paths=(*SHELLS, "/usr/bin/python3"))),
            "has no Python",
        ),
    ],
)
def test_why_no_worker_can_run_is_said(
    docker_engine: DockerTestEngine, name: str, lines: list[str], reason: str
) -> None:
    with rig_on(docker_engine, bases=(("debian_slim", docker_engine.image(name, *lines)),)) as rig:

        async def scenario() -> None:
            with pytest.raises(InvalidError, match=reason):
                await rig.preparing.prepare(await rig.spec())
            assert rig.client.containers(all=True, filters={"label": f"slipway.home={rig.home}"}) == []

        play(scenario)


def test_a_home_of_root_that_is_elsewhere_stays_there(docker_engine: DockerTestEngine, tmp_path: Path) -> None:
    below = docker_engine.image("moved-home", "RUN mv /root /home/root && ln -s home/root /root")
    with rig_on(docker_engine, bases=(("debian_slim", below),)) as rig:

        async def scenario() -> None:
            image = await rig.preparing.image(await rig.spec(trees=(tree(tmp_path, root__app="1"),)))
            assert rig.said(image.id, "sh", "-c", "readlink /root; cat /home/root/app") == "home/root\n1"

        play(scenario)


def test_a_tree_that_is_gone_is_said(rig: Rig, tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidError, match="nowhere can't be read"):
            await rig.preparing.image(await rig.spec(trees=(str(tmp_path / "nowhere"),)))

    play(scenario)


def test_a_look_that_is_given_up_while_its_container_is_made_leaves_none(rig: Rig) -> None:
    begun, go = threading.Event(), threading.Event()

    def create(client: Any) -> Any:
        begun.set()
        go.wait()
        return client.create_container(rig.engine.base_image, entrypoint=["/x"], labels={"slipway.home": rig.home})

    async def look() -> None:
        async with docker_commit.passing(rig.connection, create):
            raise AssertionError("given up before that")

    async def scenario() -> None:
        task = asyncio.create_task(look())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        asyncio.get_running_loop().call_soon(go.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.client.containers(all=True, filters={"label": f"slipway.home={rig.home}"}) == []

    play(scenario)
