"""Variants as a program says them; what the engine makes of them is in tests/compiler/test_variants.py."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import slipway
from slipway.dsl import context, inside
from slipway.dsl.errors import ExecutionError, InvalidError
from slipway.dsl.session import Running
from slipway.dsl.variant import Variant, said_by, with_batching, with_concurrency, with_options
from slipway.values import values_of


def test_options_are_checked_as_in_the_decorator() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"timeout": 0}, "timeout=0: it takes seconds"),
        ({"scaledown_window": 1}, "scaledown_window=1"),
        ({"max_containers": 0}, "max_containers=0"),
        ({"gpu": "?"}, "isn't a GPU"),
        ({"memory": (512, 256)}, "the limit is below the request"),
        ({"volumes": {"/a": "x"}}, "must be a slipway.Volume"),
        ({"secrets": ["x"]}, "takes slipway.Secret objects"),
        ({"secrets": slipway.Secret.from_dict({})}, "secrets= takes a list"),
        ({"secrets": [slipway.Secret.from_name("x")]}, "secrets by name come with a later release"),
        ({"env": {"1A": "x"}}, "can't be the name of an environment value"),
        ({"retries": -1}, "retries=-1"),
        ({"min_containers": 1}, "can't set min_containers="),
        ({"image": None}, "can't set image="),
    ]
    for options, said in refused:
        with pytest.raises(InvalidError, match=said):
            with_options(None, **options)
    with pytest.raises(TypeError, match=r"with_options\(\) has no parameter 'memroy'. Did you mean 'memory'"):
        with_options(None, memroy=3)
    with pytest.raises(InvalidError, match="target_inputs=3 is above max_inputs=2"):
        with_concurrency(None, max_inputs=2, target_inputs=3)
    with pytest.raises(InvalidError, match="max_batch_size=0"):
        with_batching(None, max_batch_size=0, wait_ms=0)


def test_where_machines_are_has_no_effect_and_is_said() -> None:
    with pytest.warns(UserWarning, match="cloud=, region= has no effect here") as caught:
        assert with_options(None, region="eu", cloud="aws", routing_region=None) == Variant()
    assert caught[0].filename == __file__


def test_values_of_secrets_are_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = with_options(None, secrets=[slipway.Secret.from_local_environ(["A_TOKEN"])])
    with pytest.raises(ExecutionError, match="nothing here can read"):
        variant.opening()
    monkeypatch.setenv("A_TOKEN", "t0p")
    assert variant.opening(values_of) == {"options": {"secrets": ["0"]}, "secrets": {"0": {"A_TOKEN": "t0p"}}}
    monkeypatch.setattr(context, "_worker_pid", os.getpid())
    assert variant.opening(values_of)["secrets"] == {"0": {}}, "a worker's environment is not the one that was meant"
    assert said_by({"options": {"secrets": ["0"]}, "secrets": {"0": {}}}).secrets is not None


def test_code_in_a_worker_can_say_all_of_it(in_worker: Callable[[Running], None]) -> None:
    told: dict[str, Any] = {
        "secrets": [inside.Secret.from_dict({"A": "1"})],
        "volumes": {"/data": inside.Volume.from_name("data", create_if_missing=True).read_only()},
        "retries": inside.Retries(max_retries=2, initial_delay=0.5),
    }
    real: dict[str, Any] = {
        "secrets": [slipway.Secret.from_dict({"A": "1"})],
        "volumes": {"/data": slipway.Volume.from_name("data", create_if_missing=True).read_only()},
        "retries": slipway.Retries(max_retries=2, initial_delay=0.5),
    }
    expected = with_options(None, **real).opening()
    in_worker(Running(app_id="ap-1", session=None))  # type: ignore[arg-type] # nothing is called
    assert with_options(None, **told).opening() == expected
    with pytest.raises(InvalidError, match="secrets by name"):
        with_options(None, secrets=[inside.Secret.from_name("x")])


def test_a_variant_travels() -> None:
    variant = with_options(None, cpu=2, gpu=["A100", "T4"], env={"B": "2"})
    assert pickle.loads(pickle.dumps(variant)) == variant and hash(variant) == hash(pickle.loads(pickle.dumps(variant)))
