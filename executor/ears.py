"""Who hears what happens to inputs and workers."""

from __future__ import annotations

import socket
from collections.abc import Callable

from attrs import frozen

from .inputs import Input
from .pool import PoolSpec
from .ports import CallRow
from .worker.frames import Outcome
from .worker.logs import Line


@frozen(kw_only=True)
class Ears:
    """Who hears what happens: `on_records` gets finished inputs in batches; `on_client` a connection that code in a
    worker has opened to call other functions.

    `on_attempt` hears of the attempts of durable inputs before they begin (`attempts` counts this one already, and
    `worker_name` is set); the input is sent when it calls what it got, once. `on_attempt_over` hears that an attempt of
    any input is over and another one follows: its outcome and the reason, while `attempts` and `worker_name` are those
    of the one that is over; `losses` counts it where it was lost. The end of the last attempt is the outcome, which
    `Input.send` gets. Durable inputs are in no record.
    """

    on_records: Callable[[list[CallRow]], None]
    on_line: Callable[[PoolSpec, str, Line], None]
    on_client: Callable[[PoolSpec, str, socket.socket], None]
    on_attempt: Callable[[Input, Callable[[], None]], None] = lambda _given, go: go()
    on_attempt_over: Callable[[Input, Outcome, str], None] = lambda _given, _outcome, _reason: None
