"""Gathering facts: trees that cost a stat where nothing changed, and what can't be met named with a way out."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from fakes import BASE, FakeRuntime, digest_of_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.compiler.facts import (
    BaseFact,
    BaseNeed,
    FileEntry,
    Missing,
    PythonFact,
    PythonNeed,
    SecretFact,
    SecretNeed,
    TextFact,
    TextNeed,
    TreeFact,
    TreeNeed,
    VolumeFact,
    VolumeNeed,
)
from slipway.dsl.declaration import LocalSource
from slipway.dsl.errors import InvalidError, RuntimeUnavailable
from slipway.executor import trees
from slipway.executor.facts import gather
from slipway.executor.ports import Ability
from slipway.executor.store.seal import Seal
from slipway.executor.store.state import State
from slipway.executor.trees import read_text, read_tree


def source(local: Path, **more: object) -> LocalSource:
    return LocalSource(local=str(local), remote="/root/x", is_dir=local.is_dir(), **more)  # type: ignore[arg-type]


def files_of(local: Path, **more: object) -> list[tuple[str, int, str]]:
    fact = read_tree(source(local, **more), {}).fact
    assert isinstance(fact, TreeFact)
    return [(entry.path, entry.mode, entry.digest) for entry in fact.files]


def missing_of(given: LocalSource) -> Missing:
    fact = read_tree(given, {}).fact
    assert isinstance(fact, Missing)
    return fact


# --- trees --------------------------------------------------------------------------------------------


def test_a_tree_is_its_files_sorted_with_modes_and_contents(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.sh").write_bytes(b"#!")
    (tmp_path / "b" / "run.sh").chmod(0o775)
    (tmp_path / "a.py").write_bytes(b"x")
    (tmp_path / "a.py").chmod(0o600)
    (tmp_path / "empty").mkdir()
    expected = [("a.py", 0o644, digest_of_bytes(b"x")), ("b/run.sh", 0o755, digest_of_bytes(b"#!"))]
    assert expected == files_of(tmp_path)


def test_one_file_has_no_path_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x")
    assert [("", 0o644, digest_of_bytes(b"x"))] == files_of(tmp_path / "a.py")


def test_what_patterns_ignore_is_left_out_and_not_walked(tmp_path: Path) -> None:
    for name in ("keep.py", "a.pyc", "__pycache__/x.py", ".git/objects/1", "data/1.csv", "data/keep.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".git").chmod(0o000)  # walking it would fail, for whoever isn't root
    ignore = ("data/*", "!data/keep.csv", "**/__pycache__", "**/*.pyc", "**/.*/**")
    try:
        assert [path for path, _, _ in files_of(tmp_path, ignore=ignore)] == ["data/keep.csv", "keep.py"]
    finally:
        (tmp_path / ".git").chmod(0o755)


def test_where_files_were_chosen_only_those_are_there(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "setup.py"):
        (tmp_path / name).write_bytes(b"")
    assert [p for p, _, _ in files_of(tmp_path, only=("uv.lock", "pyproject.toml", "no/such"))] == ["pyproject.toml"]


def test_links_inside_of_the_tree_stay_links(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (top / "a").write_bytes(b"x")
    (top / "sub" / "up").symlink_to("../a")
    (top / "whole").symlink_to(top / "sub")
    (top / "nowhere").symlink_to("not-there")
    assert [
        ("a", digest_of_bytes(b"x")),
        ("nowhere", "link:not-there"),
        ("sub/up", "link:../a"),
        ("whole", "link:sub"),
    ] == [(path, digest) for path, _, digest in files_of(top)]


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "sub/../../secret"])
def test_links_out_of_the_tree_are_refused(tmp_path: Path, target: str) -> None:
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s")
    (top / "link").symlink_to(target)
    missing = missing_of(source(top))
    assert "symbolic link that leads out" in missing.summary
    assert target in missing.summary
    assert "ignore=" in missing.hint


def test_a_chain_of_links_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "deep" / "er").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"s")
    (top / "down").symlink_to("deep/er")
    (top / "link").symlink_to("down/../../../secret")  # by its letters inside of nothing
    assert "leads out" in missing_of(source(top)).summary


def test_a_folder_that_is_itself_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert [path for path, _, _ in files_of(tmp_path / "link")] == ["a"]


def test_what_is_neither_file_nor_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in missing_of(source(tmp_path)).summary
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        missing = missing_of(source(tmp_path))
    assert "a socket" in missing.summary
    assert 'ignore=["s"]' in missing.hint


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.py")).write_bytes(b"")
    assert "not UTF-8" in missing_of(source(tmp_path)).summary


def test_a_missing_path_says_what_may_have_been_meant(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"")
    missing = missing_of(LocalSource(local=str(tmp_path / "requirement.txt"), remote="/x"))
    assert f"Did you mean {tmp_path}/requirements.txt?" == missing.hint
    missing = missing_of(LocalSource(local=str(tmp_path / "no" / "such" / "x"), remote="/x"))
    assert f"{tmp_path} exists" in missing.hint


def test_a_file_for_a_folder_and_a_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert "is a file" in missing_of(LocalSource(local=str(tmp_path / "a"), remote="/x", is_dir=True)).summary
    assert "is a folder" in missing_of(LocalSource(local=str(tmp_path), remote="/x")).summary


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a").chmod(0)
    assert f"{tmp_path}/a" in missing_of(source(tmp_path)).summary


def aged(path: Path, *, seconds: int = 100) -> None:
    """As if it had been written a while ago."""
    os.utime(path, ns=(0, time.time_ns() - seconds * 1_000_000_000 + 1))


def test_what_is_known_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "TICK_NS", -(10**18))  # nothing is too young
    (tmp_path / "a").write_bytes(b"one")
    first = read_tree(source(tmp_path), {})
    known = {stat.path: stat for stat in first.hashed}
    assert {str(tmp_path / "a")} == set(known)
    again = read_tree(source(tmp_path), known)
    assert again.hashed == ()
    assert first.fact == again.fact


@pytest.mark.parametrize("change", ["content", "same size and time", "another inode"])
def test_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    monkeypatch.setattr(trees, "TICK_NS", -(10**18))
    path = tmp_path / "a"
    path.write_bytes(b"one")
    known = {stat.path: stat for stat in read_tree(source(tmp_path), {}).hashed}
    before = path.stat()
    if change == "another inode":
        (tmp_path / "new").write_bytes(b"two")
        (tmp_path / "new").replace(path)
    else:
        path.write_bytes(b"two" if change == "same size and time" else b"longer")
    if change != "content":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    fact = read_tree(source(tmp_path), known).fact
    assert isinstance(fact, TreeFact)
    assert digest_of_bytes(path.read_bytes()) == fact.files[0].digest


def test_what_was_written_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "TICK_NS", 10**18)
    (tmp_path / "a").write_bytes(b"one")
    assert read_tree(source(tmp_path), {}).hashed == ()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)


@settings(max_examples=25, deadline=None)
@given(content=st.dictionaries(NAMES, st.binary(max_size=40), max_size=6))
def test_any_tree_gives_what_was_put_in(tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]) -> None:
    top = tmp_path_factory.mktemp("tree")
    for name, data in content.items():
        (top / name).write_bytes(data)
    expected = sorted((name, 0o644, digest_of_bytes(data)) for name, data in content.items())
    assert expected == files_of(top)


# --- texts --------------------------------------------------------------------------------------------


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes("\ufeffnumpy\nü\n".encode())
    assert TextFact(text="numpy\nü\n") == read_text(str(path))
    path.write_bytes(b"\xff\xfe")
    fact = read_text(str(path))
    assert isinstance(fact, Missing)
    assert "not UTF-8" in fact.summary
    fact = read_text(str(tmp_path / "no"))
    assert isinstance(fact, Missing)
    assert "does not exist" in fact.summary


# --- all together -------------------------------------------------------------------------------------


def with_state(tmp_path: Path, act: Callable[[State, Seal], Awaitable[None]]) -> None:
    async def main() -> None:
        state = State.open(tmp_path / "state.db", version="0.1.0")
        try:
            await act(state, Seal(b"k" * 32))
        finally:
            await state.close()

    asyncio.run(main())


def test_keys_of_no_registry_are_said_of_the_image_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(*_: object, auth: object, fresh: bool) -> BaseFact:
        raise InvalidError(f"no keys are {auth}", hint="Take others.")

    runtime = FakeRuntime()
    monkeypatch.setattr(runtime, "resolve", resolve)
    need = BaseNeed(kind="from_registry", ref="x/y:1", secret="dict:A#0")

    async def act(state: State, seal: Seal) -> None:
        secrets = {"dict:A#0": {"A": "1"}}
        facts = await gather((need,), runtime=runtime, state=state, seal=seal, app="app", secrets=secrets)
        assert facts.found == ((need, Missing(summary="no keys are (('A', '1'),)", hint="Take others.")),)

    with_state(tmp_path, act)


def test_every_need_is_met_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"x")
    ability = Ability(refusals=(("apt_install", "needs root"),), notes=(("memory", "not enforced"),))
    runtime = FakeRuntime(ability=ability)
    needs = (
        BaseNeed(kind="debian_slim", ref="3.11"),
        BaseNeed(kind="debian_slim", ref="2.7"),
        TreeNeed(source=source(tmp_path / "a.py")),
        TextNeed(path=str(tmp_path / "a.py")),
        SecretNeed(slot="dict:TOKEN#0"),
        SecretNeed(slot="dict:OTHER#0"),
        VolumeNeed(name="models"),
    )

    async def act(state: State, seal: Seal) -> None:
        facts = await gather(
            needs,
            runtime=runtime,
            state=state,
            seal=seal,
            app="app",
            secrets={"dict:TOKEN#0": {"TOKEN": "t0p"}},
            notes=(("region", "no effect here"),),
        )
        assert needs == tuple(need for need, _ in facts.found)
        base, no_base, tree, text, secret, no_secret, volume = (fact for _, fact in facts.found)
        assert base == BASE
        assert isinstance(no_base, Missing) and "2.7" in no_base.summary and no_base.hint
        entry = FileEntry(path="", mode=0o644, digest=digest_of_bytes(b"x"))
        assert TreeFact(files=(entry,)) == tree
        assert TextFact(text="x") == text
        assert SecretFact(version=1) == secret
        assert isinstance(no_secret, Missing)
        assert VolumeFact(exists=False) == volume
        assert facts.notes == (("memory", "not enforced"), ("region", "no effect here"))
        assert facts.refusals == (("apt_install", "needs root"),)
        assert seal.unseal(await state.sealed("app", "dict:TOKEN#0", 1)) == {"TOKEN": "t0p"}

    with_state(tmp_path, act)


def test_a_registrys_keys_go_to_the_runtime_and_nowhere_else(tmp_path: Path) -> None:
    asked: list[object] = []

    class Registries(FakeRuntime):
        async def resolve(
            self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
        ) -> BaseFact:
            asked.append((kind, ref, auth, fresh))
            return BASE

    async def act(state: State, seal: Seal) -> None:
        needs = [BaseNeed(kind="from_registry", ref="a:1", secret="s", fresh=True), BaseNeed(kind="micromamba", ref="")]
        values = {"s": {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "t0p"}}
        facts = await gather(needs, runtime=Registries(), state=state, seal=seal, app="app", secrets=values)
        assert "t0p" not in repr(facts)

    with_state(tmp_path, act)
    keys = (("REGISTRY_PASSWORD", "t0p"), ("REGISTRY_USERNAME", "me"))
    assert asked == [("from_registry", "a:1", keys, True), ("micromamba", "", (), False)]


def test_which_python_would_be_added_is_known_without_a_network(tmp_path: Path) -> None:
    async def act(state: State, seal: Seal) -> None:
        needs = [PythonNeed(version=version) for version in ("3.12", "3.99")]
        facts = await gather(needs, runtime=FakeRuntime(), state=state, seal=seal, app="app")
        (_, found), (_, missing) = facts.found
        assert isinstance(found, PythonFact) and found.resolved.startswith("cpython-3.12.")
        assert isinstance(missing, Missing) and "no Python 3.99" in missing.summary and "3.12" in missing.hint

    with_state(tmp_path, act)


def test_a_runtime_out_of_reach_is_raised_as_itself(tmp_path: Path) -> None:
    class Unreachable(FakeRuntime):
        async def resolve(
            self, kind: str, ref: str, *, auth: tuple[tuple[str, str], ...] = (), fresh: bool = False
        ) -> BaseFact:
            raise RuntimeUnavailable("no docker at /run/docker.sock")

    async def act(state: State, seal: Seal) -> None:
        needs = [BaseNeed(kind="debian_slim", ref=str(i)) for i in range(3)]
        with pytest.raises(RuntimeUnavailable, match=r"docker\.sock"):
            await gather(needs, runtime=Unreachable(), state=state, seal=seal, app="app")

    with_state(tmp_path, act)


@pytest.mark.slow
def test_ten_thousand_unchanged_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "TICK_NS", -(10**18))
    for folder in range(100):
        (tmp_path / "tree" / f"f{folder}").mkdir(parents=True)
        for number in range(100):
            (tmp_path / "tree" / f"f{folder}" / f"{number}.py").write_bytes(b"%d" % number)
    need = TreeNeed(source=source(tmp_path / "tree"))
    read: list[object] = []

    def digest_of_file(path: object) -> str:
        read.append(path)
        return "sha256:" + "0" * 64

    monkeypatch.setattr(trees, "digest_of_file", digest_of_file)

    async def act(state: State, seal: Seal) -> None:
        for count in (10_000, 10_000):
            facts = await gather([need], runtime=FakeRuntime(), state=state, seal=seal, app="app")
            ((_, fact),) = facts.found
            assert isinstance(fact, TreeFact)
            assert len(fact.files) == 10_000
            assert count == len(read)

    with_state(tmp_path, act)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    fact = read_tree(LocalSource(local=str(tmp_path / "pipe"), remote="/root/x"), {}).fact
    assert isinstance(fact, Missing)
    assert "is neither a file nor a folder but a pipe" in fact.summary
    assert isinstance(read_text(str(tmp_path / "pipe")), Missing)
