"""Transport: everything comes back as it was, and what is off is refused by name."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import strategies as my
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.compiler.encode import digest_of, dumps, from_wire, loads, to_wire
from slipway.compiler.plan import Change, Verb
from slipway.compiler.wire import BY_KIND, CLASSES
from slipway.dsl.declaration import AddLocal, AppDecl, FunctionDecl, Origin, RunCommands, StepOptions
from slipway.dsl.errors import InvalidError, PlanFormatError


def everything(value: object) -> object:
    """All fields and all types of a value: equality leaves out `eq=False`, and holds 1 for True."""
    if isinstance(value, tuple):
        return [everything(item) for item in value]
    cls: Any = type(value)
    if attrs.has(cls):
        return (cls, [everything(getattr(value, a.name)) for a in attrs.fields(cls)])
    return (cls, value)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_comes_back_with_all_its_fields(cls: type[Any]) -> None:
    @given(my.of(cls))
    @settings(max_examples=15, suppress_health_check=list(HealthCheck), database=None)
    def there_and_back(value: Any) -> None:
        assert everything(loads(dumps(value), cls)) == everything(value)
        assert everything(loads(dumps(value))) == everything(value)

    there_and_back()


def test_every_class_has_a_kind_of_its_own() -> None:
    assert len(BY_KIND) == len(CLASSES)


@given(my.plain_values)
def test_plain_values_come_back(value: object) -> None:
    assert everything(loads(dumps(value))) == everything(value)


def test_a_field_that_is_no_identity_travels_though_the_value_equals_the_default() -> None:
    step = RunCommands(commands=("x",), options=StepOptions(force_build=True))
    assert loads(dumps(step), RunCommands).options.force_build


@pytest.mark.slow
@given(my.declarations(), st.randoms())
def test_the_order_of_keys_means_nothing(decl: AppDecl, random: Any) -> None:
    def shuffled(plain: Any) -> Any:
        if isinstance(plain, list):
            return [shuffled(item) for item in plain]
        if not isinstance(plain, dict):
            return plain
        keys = list(plain)
        random.shuffle(keys)
        return {key: shuffled(plain[key]) for key in keys}

    back = from_wire(AppDecl, shuffled(to_wire(decl)))
    assert back == decl
    assert digest_of(back) == digest_of(decl)


FUNCTION = {"": "function_decl", "name": "f", "module": "app", "qualname": "f", "image": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "0"}, r"app.functions\[1\].image is text, expected a whole number"),
        ({"image": True}, r"image is true or false, expected a whole number"),
        ({"image": 0.5}, r"image is a float"),
        ({"name": None}, r"name is null, expected text"),
        ({"colour": 1}, r"functions\[1\] has a field 'colour' that a 'function_decl' has not"),
        ({"": "cls"}, r"functions\[1\] is a 'cls', expected a 'function_decl'"),
        ({"": 7}, r"expected a 'function_decl'"),
        ({"secrets": {}}, r"secrets is an object, expected a list"),
        ({"secrets": [{"": "volume_decl", "name": "x"}]}, r"secrets\[0\] is a 'volume_decl', expected a 'secret_decl'"),
        ({"schedule": {"": "origin"}}, r"schedule is a 'origin', expected null or 'cron' or 'period'"),
        ({"schedule": []}, r"schedule is a list"),
        ({"volumes": [["/x"]]}, r"volumes\[0\] is a list, expected a list of 2"),
        ({"volumes": [["/x", "y"]]}, r"volumes\[0\]\[1\] is text"),
        ({"origin": {"": "origin", "line": "3"}}, r"functions\[1\].origin.line is text"),
    ],
)
def test_what_is_off_is_refused_with_its_place(change: dict[str, Any], said: str) -> None:
    plain = {"": "app", "name": "a", "functions": [FUNCTION, FUNCTION | change]}
    with pytest.raises(PlanFormatError, match=said) as caught:
        from_wire(AppDecl, plain)
    assert caught.value.hint


def test_a_field_that_is_needed_and_not_there_is_named() -> None:
    with pytest.raises(PlanFormatError, match="function_decl lacks image, module, qualname"):
        from_wire(FunctionDecl, {"": "function_decl", "name": "f"})


@pytest.mark.parametrize(
    "plain", [{"": "nonsense"}, {}, {"": []}, 1.5, {"": "verb", "is": "?"}, {"": "verb"}, {"": "origin", "line": 1.0}]
)
def test_of_unknown_kind(plain: object) -> None:
    with pytest.raises(PlanFormatError):
        from_wire(None, plain)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"NaN", b"[1,Infinity]", b'"\\ud83d"', b'["\\ud83d\\u0041"]', b"[" * 100_000, b"1" * 5000],
    ids=lambda data: repr(data[:12]),
)
def test_bytes_that_are_no_value(data: bytes) -> None:
    with pytest.raises(PlanFormatError):
        loads(data)


def test_a_value_nested_too_deeply_is_refused() -> None:
    plain: Any = 1
    for _ in range(50_000):
        plain = [plain]
    with pytest.raises(PlanFormatError, match="nested too deeply"):
        from_wire(None, plain)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["", "name", "functions", "image"]), x | st.sampled_from(["app", "function_decl"])
            )
        ),
        max_leaves=10,
    )
)
def test_anything_at_all_is_a_value_or_a_plan_format_error(plain: object) -> None:
    data = json.dumps(plain).encode()
    assert is_value_or_refused(data, AppDecl)
    assert is_value_or_refused(data, None)


def is_value_or_refused(data: bytes, cls: Any) -> bool:
    try:
        value = loads(data, cls)
    except PlanFormatError:
        return True
    return everything(loads(dumps(value))) == everything(value)


def test_what_a_plan_cannot_hold_is_refused_before_it_travels() -> None:
    with pytest.raises(InvalidError, match=r"value.sources\[0\] is a dict, which a plan cannot hold"):
        to_wire(AddLocal(sources=({},)))  # type: ignore[arg-type]  # that is the point


def test_an_enum_travels_by_its_sign() -> None:
    change = Change(address="x", verb=Verb.REPLACE)
    assert to_wire(change) == {"": "change", "address": "x", "verb": {"": "verb", "is": "±"}}
    assert loads(dumps(Verb.KEEP)) is Verb.KEEP


def test_origins_travel() -> None:
    assert loads(dumps(Origin(file="a.py", line=3)), Origin).line == 3
