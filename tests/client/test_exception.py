"""`slipway.exception`, from where programs import what they catch."""

from __future__ import annotations

import slipway
from slipway import exception
from slipway.dsl import errors


def test_it_has_all_errors_and_they_are_the_same() -> None:
    here = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}
    public = {name for name in here if not name.startswith("_")}
    assert {name for name in vars(exception) if not name.startswith("_")} - {"annotations"} == public
    assert all(getattr(exception, name) is getattr(errors, name) for name in public)
    assert slipway.exception is exception
