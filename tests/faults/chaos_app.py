"""What `chaos.py` deploys, and the client that it starts: functions that leave a mark for every attempt that begins.

`python chaos_app.py FIRST LAST` spawns a mixed load and prints the id of each call as soon as it has been accepted.
"""

from __future__ import annotations

import os
import sys

import slipway

MARKS = "/marks"
marks = slipway.Volume.from_name("marks", create_if_missing=True)
app = slipway.App("chaos", volumes={MARKS: marks})
FLAKY = slipway.Retries(max_retries=2, initial_delay=1.0, backoff_coefficient=1.0)


def mark() -> int:
    """Leave a mark; return how many this call has left. One write each: a kill leaves it whole or not at all."""
    path = f"{MARKS}/{slipway.current_function_call_id()}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(descriptor, b".")
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


@app.function()
def plain(number: int) -> int:
    mark()
    return number


@app.function(retries=FLAKY)
def flaky(number: int) -> int:
    """Fails at the first attempt, and at every one where the number says so."""
    if mark() == 1 or number % 100 == 1:
        raise ValueError(number)
    return number


@app.function()
async def waits(number: int) -> int:
    import asyncio

    mark()
    await asyncio.sleep(0.02)
    return number


@app.function()
def nested(number: int) -> int:
    mark()
    return int(plain_too.remote(number))


@app.function()
def plain_too(number: int) -> int:
    return number


@app.function()
def dies(number: int) -> int:
    mark()
    os._exit(3)


@app.cls(enable_memory_snapshot=True)
class Model:
    weight: int = slipway.parameter(default=1)

    @slipway.enter(snap=True)
    def load(self) -> None:
        self.ready = self.weight

    @slipway.method()
    def predict(self, number: int) -> int:
        mark()
        return number * self.ready


def spawn(number: int) -> str:
    kind = number % 20
    if number % 500 == 7:
        name = "dies"
    elif kind in {1, 2}:
        name = "flaky"
    elif kind in {3, 4, 5}:
        name = "waits"
    elif kind == 6:
        name = "nested"
    elif kind in {8, 9, 10}:
        return str(model.predict.spawn(number).object_id)
    else:
        name = "plain"
    return str(slipway.Function.from_name("chaos", name).spawn(number).object_id)


if __name__ == "__main__":
    model = slipway.Cls.from_name("chaos", "Model")(weight=1)
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        print(number, spawn(number), flush=True)
