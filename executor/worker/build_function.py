"""Runs the function of an `Image.run_function` step, in the step's container: `python build_function.py < call`.

The call is JSON: `module`, `qualname`, and `payload`, a base64 pickle of (args, kwargs) or "". As the worker program,
it needs Python 3.10 or later and nothing installed.
"""

import sys


def run(module: str, qualname: str, payload: str) -> None:
    """Import the function, as the worker would, and call it."""
    import base64
    import importlib
    import inspect
    import pickle  # the arguments come from the user's own program
    from operator import attrgetter

    from slipway.dsl import context
    from slipway.dsl.function import raw_of

    context.enter_worker()  # before the user's file asks whether it is at home
    function = raw_of(attrgetter(qualname)(importlib.import_module(module)))
    args, kwargs = pickle.loads(base64.b64decode(payload)) if payload else ((), {})  # noqa: S301 - see above
    result = function(*args, **kwargs)
    if inspect.iscoroutine(result):
        import asyncio

        asyncio.run(result)


def main() -> int:
    import json
    import traceback

    call = json.load(sys.stdin)
    try:
        run(call["module"], call["qualname"], call["payload"])
    except BaseException as error:  # noqa: BLE001 - whatever the user's function raises is shown, without our own frames
        if isinstance(error, SystemExit) and not error.code:
            return 0
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace or error.__traceback__)
        return 1
    return 0


if __name__ == "__main__":
    sys.path[:1] = ["/.slipway/code", "/root"]  # the user's code, then what the image has of it, instead of ours
    sys.path.insert(0, "/.slipway/lib")
    import slipway  # noqa: F401 - ours, even where the image has another one

    sys.path.remove("/.slipway/lib")
    sys.path.append("/.slipway/lib")
    sys.exit(main())
