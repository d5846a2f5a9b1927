"""What sets a variant apart: what shares workers, what doesn't, and what can't be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import slipway
from slipway.compiler.nodes import FunctionSpec
from slipway.compiler.variants import base, vary
from slipway.dsl.declaration import (
    Autoscaling,
    Batching,
    Concurrency,
    MethodDecl,
    ParameterDecl,
    Resources,
    Retries,
    VolumeDecl,
)
from slipway.dsl.errors import InvalidError
from slipway.dsl.variant import Variant, with_batching, with_concurrency, with_options, with_parameters

PLAIN = FunctionSpec(name="f", module="app", qualname="f", autoscaling=Autoscaling(min_containers=2))
MODEL = FunctionSpec(
    name="Model",
    module="app",
    qualname="Model",
    methods=(MethodDecl(name="embed"),),
    parameters=(
        ParameterDecl(name="key", type="bytes", default="b'k'"),
        ParameterDecl(name="level", type="int", default="3"),
        ParameterDecl(name="quick", type="bool", default="True"),
        ParameterDecl(name="size", type="str", default="small"),
    ),
    autoscaling=Autoscaling(min_containers=1),
)
NEEDS = FunctionSpec(
    name="Needs", module="app", qualname="Needs", methods=(MethodDecl(name="embed"),),
    parameters=(ParameterDecl(name="size", type="str"),),
)  # fmt: skip
DEFAULTS: dict[str, Any] = {"key": b"k", "level": 3, "quick": True, "size": "small"}


def mac(values: Mapping[str, str]) -> str:
    return repr(sorted(values.items()))


def opened(variant: Variant | None) -> dict[str, Any]:
    return {} if variant is None else variant.opening()


# --- parameters ---------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(sorted(DEFAULTS))))
def test_defaults_that_are_given_are_the_defaults(named: set[str]) -> None:
    given_ones = {name: DEFAULTS[name] for name in named}
    assert vary(MODEL, opened(with_parameters(None, given_ones))) == base(MODEL)


@given(
    st.fixed_dictionaries(
        {}, optional={"key": st.binary(), "level": st.integers(), "quick": st.booleans(), "size": st.text()}
    )
)
def test_parameters_come_as_they_were_given(parameters: dict[str, Any]) -> None:
    varied = vary(MODEL, opened(with_parameters(None, parameters)))
    assert dict(varied.parameters) == {**DEFAULTS, **parameters}
    assert [(n, type(v)) for n, v in varied.parameters] == [(n, type(DEFAULTS[n])) for n in sorted(DEFAULTS)]
    assert varied.function.autoscaling.min_containers == (1 if varied == base(MODEL) else 0)


@given(st.data())
def test_equal_parameters_share_and_others_do_not(data: st.DataObject) -> None:
    sets = st.fixed_dictionaries({}, optional={"level": st.integers(2, 4), "size": st.sampled_from(["small", "3"])})
    one, other = data.draw(sets), data.draw(sets)
    same = {**DEFAULTS, **one} == {**DEFAULTS, **other}
    digests = {vary(MODEL, {"parameters": given}).digest(mac) for given in (one, other)}
    assert (len(digests) == 1) is same


@pytest.mark.parametrize(
    ("function", "parameters", "said"),
    [
        (MODEL, {"sise": "x"}, r"Model\(\) has no parameter 'sise'\nDid you mean 'size'"),
        (MODEL, {"zzz": "x"}, "It has: key: bytes, level: int"),
        (MODEL, {"level": True}, "is of type int, this is of type bool"),
        (MODEL, {"level": 1.5}, "of type float"),
        (MODEL, {"key": "text"}, "is of type bytes, this is of type str"),
        (MODEL, {"key": {"base64": "*"}}, "this is of type dict"),
        (MODEL, {"size": "x" * 16_384}, "take 164.. bytes, and at most 16384"),
        (MODEL, [1], "'parameters' is no object"),
        (NEEDS, {}, r"Needs\(\) lacks size\nWrite Needs\(size=...\)."),
        (PLAIN, {"size": "x"}, "f is a function, and takes no parameters"),
    ],
)
def test_parameters_that_can_not_be(function: FunctionSpec, parameters: Any, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        vary(function, {"parameters": parameters})


def test_a_class_that_must_be_given_something_has_no_base() -> None:
    assert base(NEEDS) is None and vary(NEEDS, {"parameters": {"size": "x"}}).parameters == (("size", "x"),)


# --- options ------------------------------------------------------------------------------------------


def test_every_option() -> None:
    variant = with_options(
        None,
        cpu=(1, 2),
        memory=512,
        gpu=["h100:2", "A100"],
        retries=slipway.Retries(max_retries=3, initial_delay=0.5),
        max_containers=4,
        buffer_containers=1,
        scaledown_window=30,
        timeout=90,
        volumes={"/b": slipway.Volume.from_name("b", create_if_missing=True), "/a": slipway.Volume.from_name("a")},
    )
    varied = vary(PLAIN, opened(with_concurrency(variant, max_inputs=8, target_inputs=4)))
    spec = varied.function
    assert spec.resources == Resources(
        cpu_milli=1000, cpu_limit_milli=2000, memory_mib=512, gpus=("H100:2", "A100")
    )  # fmt: skip
    assert spec.retries == Retries(max_retries=3, initial_delay_ms=500)
    assert spec.autoscaling == Autoscaling(max_containers=4, buffer_containers=1, scaledown_window_ms=30_000)
    assert spec.timeout_ms == 90_000 and spec.concurrency == Concurrency(max_inputs=8, target_inputs=4)
    assert spec.volumes == (("/a", "a", False, None), ("/b", "b", False, None))
    assert varied.volumes == (VolumeDecl(name="a"), VolumeDecl(name="b", create_if_missing=True))
    batched = vary(PLAIN, opened(with_batching(None, max_batch_size=8, wait_ms=5))).function
    assert batched.batching == Batching(max_batch_size=8, wait_ms=5)


def test_what_is_stacked_merges_and_none_leaves_it_as_it_is() -> None:
    first = with_options(None, cpu=(1, 2), timeout=60, env={"A": "1", "B": "1"}, gpu="T4")
    both = with_options(first, cpu=3, timeout=None, env={"B": "2", "C": None})
    together = with_options(None, cpu=3, timeout=60, env={"A": "1", "B": "2"}, gpu="T4")
    assert both == together
    assert vary(PLAIN, opened(both)).digest(mac) == vary(PLAIN, opened(together)).digest(mac)


def test_secrets_replace_and_values_set_apart() -> None:
    one = slipway.Secret.from_dict({"TOKEN": "1"})
    two = slipway.Secret.from_dict({"TOKEN": "2"})
    variant = with_options(with_options(None, secrets=[one]), secrets=[two])
    varied = vary(PLAIN, opened(variant))
    assert varied.secrets == ((("TOKEN", "2"),),) and "'2'" not in repr(varied) and "'2'" not in repr(variant)
    digests = {vary(PLAIN, opened(with_options(None, secrets=[s]))).digest(mac) for s in (one, two)}
    again = vary(PLAIN, opened(with_options(None, secrets=(slipway.Secret.from_dict({"TOKEN": "1"}),)))).digest(mac)
    assert len(digests) == 2 and again in digests
    assert vary(PLAIN, opened(with_options(None, secrets=[]))) != base(PLAIN), "none at all is not: as declared"


def test_what_is_as_declared_is_the_function_itself() -> None:
    assert vary(PLAIN, {"options": {"timeout_ms": 300_000, "max_retries": 0}}) == base(PLAIN)
    other = vary(PLAIN, {"options": {"timeout_ms": 299_000}}).function.autoscaling
    assert other.min_containers == 0, "a variant has no workers before it is called"


def test_retries_can_be_taken_back() -> None:
    tried = FunctionSpec(name="f", module="app", qualname="f", retries=Retries(max_retries=2))
    assert vary(tried, opened(with_options(None, retries=0))).function.retries is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_containers": 1}, "there is no option 'min_containers'"),
        ({"timeout_ms": "60"}, "the option timeout_ms can't be '60'"),
        ({"timeout_ms": None}, "the option timeout_ms can't be None"),
        ({"timeout_ms": True}, "can't be True"),
        ({"timeout_ms": 5}, "f: timeout is out of range"),
        ({"gpus": ["H100:0"]}, "f: this is not a GPU"),
        ({"gpus": "H100"}, "'gpus' is no list"),
        ({"gpus": [1]}, "the option gpus can't be"),
        ({"cpu_milli": 2000, "cpu_limit_milli": 1000}, "f: the limit of cpu is below the request"),
        ({"max_containers": 0}, "f: max_containers is less than 1"),
        ({"scaledown_window_ms": 1}, "f: scaledown_window is out of range"),
        ({"max_inputs": 2, "max_batch_size": 2, "wait_ms": 1}, "concurrent and batched"),
        ({"volumes": [["/tmp", "v", False, None, False]]}, "f: a volume can't be mounted there"),
        ({"volumes": [["/a", "v", False, None, False], ["/b", "v", False, None, False]]}, "is mounted twice"),
        ({"volumes": [["/a", "v"]]}, "this is no volume"),
        ([1], "'options' is no object"),
    ],
)
def test_options_that_can_not_be(options: Any, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        vary(PLAIN, {"options": options})


def test_a_generator_is_not_tried_again() -> None:
    items = FunctionSpec(name="f", module="app", qualname="f", is_generator=True)
    with pytest.raises(InvalidError, match="a generator can't be retried"):
        vary(items, opened(with_options(None, retries=2)))


@pytest.mark.parametrize("values", [{"A": 1}, {"A": "\0"}, {"1A": "x"}, {"A": "x" * 32_769}, "text", {"A": "\ud800"}])
def test_values_that_can_not_be(values: Any) -> None:
    for options in ({"env": "a"}, {"secrets": ["a"]}):
        with pytest.raises(InvalidError, match=r"function\.open"):
            vary(PLAIN, {"options": options, "secrets": {"a": values}})
    with pytest.raises(InvalidError, match="'secrets' is no list"):
        vary(PLAIN, {"options": {"secrets": "a"}, "secrets": {"a": {"A": "1"}}})
    with pytest.raises(InvalidError, match="the values of a secret are no object"):
        vary(PLAIN, {"options": {"secrets": ["b"]}})


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
NAMES = st.sampled_from(
    ["timeout_ms", "gpus", "volumes", "max_inputs", "cpu_milli", "max_retries", "wait_ms", "env", "secrets"]
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "options": st.dictionaries(NAMES, json) | json,
            "parameters": st.dictionaries(st.sampled_from(sorted(DEFAULTS)), json) | json,
            "secrets": json,
        },
    )
)
def test_whatever_comes_in_is_refused_in_words_or_makes_sense(opening: dict[str, Any]) -> None:
    try:
        varied = vary(MODEL, opening)
    except InvalidError as error:
        assert str(error)
        return
    varied.digest(mac)
    assert vary(MODEL, opening) == varied
