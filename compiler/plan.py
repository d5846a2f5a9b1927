"""A plan: what is desired, what is in force, and one change per node with its because."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from attrs import field, frozen

from slipway.dsl.declaration import Fault

from .nodes import Graph

PLAN_FORMAT = 1


class Verb(Enum):
    """What will happen to a node; the value is the sign on screen."""

    CREATE = "+"
    UPDATE = "~"
    REPLACE = "±"
    REMOVE = "-"
    KEEP = "="


@frozen(kw_only=True)
class Change:
    """`because` says the field with both values, or the file that changed; empty for KEEP and for a plain CREATE.
    For a layer, `build` tells whether a step will run (False: cached, or found under another key).
    Addresses are unique within a plan. `was` is the node's address in the deployment's graph where that is another:
    an image renamed, steps that moved, or a removed layer whose address a new one took ("image search/2 (removed)")."""

    KIND: ClassVar[str] = "change"
    address: str
    verb: Verb
    because: tuple[str, ...] = ()
    build: bool = False
    last_ms: int | None = field(default=None, eq=False)  # how long it took the last time it was built
    was: str = ""
    before: str = field(default="", eq=False)  # the node's digest in the deployment; "" for CREATE
    kind: str = field(default="", eq=False)  # KIND of the node's spec: "layer", "function", …
    title: str = field(default="", eq=False)  # what to call it on screen: "pip_install scikit-learn"


@frozen(kw_only=True)
class Plan:
    """`lineage` and `serial` name the deployment that this plan was made against ("" and 0: none yet)."""

    KIND: ClassVar[str] = "plan"
    format: int = PLAN_FORMAT
    engine_version: str
    lineage: str
    serial: int
    graph: Graph
    changes: tuple[Change, ...]
    faults: tuple[Fault, ...] = ()  # warnings and notes only: a plan with errors is not made
    app_file: str = field(default="", eq=False)
    folder: str = field(default="", eq=False)  # where the user stood

    @property
    def is_empty(self) -> bool:
        """True when applying it would change nothing."""
        return all(change.verb is Verb.KEEP and not change.build for change in self.changes)
