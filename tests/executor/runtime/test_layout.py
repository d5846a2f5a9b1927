"""What a container is to be built of, decided without touching anything."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from slipway.compiler.facts import BaseFact
from slipway.executor.ports import ContainerSpec, Mount
from slipway.executor.runtime import kernel
from slipway.executor.runtime.layout import OPTION_PAGE, Host, Overlay, TooManyLayers, capabilities, layout

SPEC = ContainerSpec(name="one", base=BaseFact(identity=()))
HOST = Host(nested=False, resolv_conf="/run/resolv.conf")


def laid_out(spec: ContainerSpec = SPEC, host: Host = HOST, prefix: str | None = None) -> dict[str, object]:
    found = layout(
        spec, host=host, folder="/h/layers", root="../c/root", overlays=(), prefix=prefix, hosts_file="/h/hosts"
    )
    assert json.loads(json.dumps(found)) is not None
    return found


def binds(found: dict[str, object]) -> dict[str, dict[str, object]]:
    entries = found["binds"]
    assert isinstance(entries, list)
    return {entry["to"]: entry for entry in entries}


def test_the_last_lower_is_the_topmost() -> None:
    options = Overlay(target="", lowers=("a", "b", "c"), upper="u", work="w").options()
    assert options == "volatile,userxattr,lowerdir=c:b:a,upperdir=u,workdir=w"


@given(st.text(alphabet="ab:,\\", min_size=1))
def test_any_path_can_be_read_back_from_the_options(path: str) -> None:
    options = Overlay(target="", lowers=(path, "z"), upper="u", work="w").options()
    escaped = options.removeprefix("volatile,userxattr,lowerdir=z:").removesuffix(",upperdir=u,workdir=w")
    plain, rest = "", escaped
    while rest:
        assert rest[0] not in ":,"
        rest = rest[1:] if rest[0] == "\\" else rest
        plain, rest = plain + rest[0], rest[1:]
    assert plain == path


def test_a_hundred_layers_fit_into_the_page_and_two_hundred_do_not() -> None:
    lowers = tuple(f"{n:016x}/fs/usr" for n in range(100))
    assert len(Overlay(target="usr", lowers=lowers, upper="u", work="w").options()) < OPTION_PAGE
    with pytest.raises(TooManyLayers, match="200 layers"):
        Overlay(target="usr", lowers=lowers * 2, upper="u", work="w").options()


def test_blocking_the_network_is_a_namespace_and_no_resolver() -> None:
    blocked = laid_out(evolve(SPEC, network=False))
    shared = laid_out()
    assert isinstance(blocked["namespaces"], int)
    assert blocked["namespaces"] == int(str(shared["namespaces"])) | kernel.CLONE_NEWNET
    assert "/etc/resolv.conf" not in binds(blocked)
    assert binds(shared)["/etc/resolv.conf"]["from"] == "/run/resolv.conf"


def test_gpus_come_only_when_asked_for() -> None:
    assert not [path for path in binds(laid_out()) if "nvidia" in path]
    with_gpu = binds(laid_out(host=evolve(HOST, gpu_devices=("/dev/nvidia0",))))
    assert with_gpu["/dev/nvidia0"]["devices"] is True
    assert with_gpu["/dev/null"]["devices"] is True


def test_mounts_come_last_and_the_prefix_is_read_only() -> None:
    spec = evolve(SPEC, mounts=(Mount(source="/s", target="/t", read_only=True), Mount(source="/v", target="/w")))
    found = binds(laid_out(spec, prefix="/home/u/python"))
    assert list(found)[-3:] == ["/home/u/python", "/t", "/w"]
    assert [found[path]["read_only"] for path in ("/home/u/python", "/t", "/w")] == [True, True, False]


def test_in_a_nested_user_namespace_folders_come_with_what_is_mounted_below_them() -> None:
    assert binds(laid_out())["/sys"]["recursive"] is False
    nested = binds(laid_out(host=evolve(HOST, nested=True)))
    assert nested["/sys"]["recursive"] is True
    assert "/proc/sys" not in nested


def test_a_build_may_do_more_than_a_worker_and_neither_may_mount() -> None:
    build, worker = capabilities(build=True), capabilities(build=False)
    assert worker & ~build == 0
    assert build & ~worker == (1 << 27) | (1 << 29) | (1 << 31)
    assert not build & (1 << 21)  # SYS_ADMIN
