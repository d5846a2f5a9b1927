"""Having the engine carry out a plan, and telling of it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from .output import Line, count, show
from .screen import Screen

if TYPE_CHECKING:
    from slipway.connection import Connection


def apply_last() -> int:
    """`slipway apply` without arguments."""
    from slipway import engine_client

    with engine_client.connect() as link:
        return carry_out(link, last_plan())


def last_plan() -> dict[str, Any]:
    """The plan that was made last in this folder, as a request names it."""
    return {"folder": os.getcwd()}  # noqa: PTH109 - no pathlib for one word


def carry_out(link: Connection, request: dict[str, Any], *, as_json: bool = False) -> int:
    """Apply the plan that a request names; returns the exit code."""
    with Screen(err=as_json) as screen:
        try:
            reply = link.request("apply", request, on_event=screen.on_event)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; finished layers are kept for the next apply") from None
    if as_json:
        sys.stdout.write(json.dumps(reply) + "\n")
    else:
        for failure in screen.failures:
            from .failure import build_failure

            show(build_failure(failure["message"], failure.get("hint", ""), failure.get("log", "")), err=True)
        show(outcome(reply))
    return 1 if reply.get("failed") or reply.get("skipped") else 0


def outcome(reply: dict[str, Any]) -> list[Line]:
    """What an apply did, in one or a few lines."""
    executed, failed, skipped = reply.get("executed", 0), reply.get("failed", ()), reply.get("skipped", ())
    steps = f"{count(executed, 'build step')} run" if executed else "no build step run"
    if not failed and not skipped:
        if not reply.get("done") and not executed:
            return [(("Nothing to do", "good"), f": serial {reply['serial']} is in force.")]
        return [(("Done", "good"), f": {steps}, serial {reply['serial']} is in force.")]
    lines: list[Line] = [
        (("Failed: ", "error"), _names(failed), *([f"; skipped: {_names(skipped)}"] if skipped else []))
    ]
    steps = steps[0].upper() + steps[1:]
    return [*lines, (f"{steps}; what is in force stays as it was. What was built is kept for the next apply.",)]


def _names(nodes: Any) -> str:
    return ", ".join(node if isinstance(node, str) else str(node.get("address", node)) for node in nodes)
