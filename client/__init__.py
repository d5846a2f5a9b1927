"""Slipway: Modal's programming model on machines that you own.

    import slipway

    app = slipway.App("example")

    @app.function(image=slipway.Image.debian_slim().pip_install("numpy"))
    def norm(xs): ...

Names are imported when they are first used, so that `import slipway` itself costs next to nothing. This module
also runs in user containers, with nothing but `slipway.dsl` beside it.
"""

from __future__ import annotations

from slipway.dsl.version import VERSION

TYPE_CHECKING = False  # as `typing` has it, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from slipway import exception as exception
    from slipway.dsl.app import App as App
    from slipway.dsl.cls import Cls as Cls
    from slipway.dsl.context import current_function_call_id as current_function_call_id
    from slipway.dsl.context import current_input_id as current_input_id
    from slipway.dsl.context import enable_output as enable_output
    from slipway.dsl.context import is_local as is_local
    from slipway.dsl.errors import Error as Error
    from slipway.dsl.function import Function as Function
    from slipway.dsl.function_call import FunctionCall as FunctionCall
    from slipway.dsl.image import Image as Image
    from slipway.dsl.partial import batched as batched
    from slipway.dsl.partial import concurrent as concurrent
    from slipway.dsl.partial import enter as enter
    from slipway.dsl.partial import exit as exit
    from slipway.dsl.partial import method as method
    from slipway.dsl.partial import parameter as parameter
    from slipway.dsl.patterns import FilePatternMatcher as FilePatternMatcher
    from slipway.dsl.retries import Retries as Retries
    from slipway.dsl.schedule import Cron as Cron
    from slipway.dsl.schedule import Period as Period
    from slipway.dsl.secret import Secret as Secret
    from slipway.dsl.session import Runner
    from slipway.dsl.volume import Volume as Volume
    from slipway.dsl.web import asgi_app as asgi_app
    from slipway.dsl.web import fastapi_endpoint as fastapi_endpoint
    from slipway.dsl.web import web_endpoint as web_endpoint
    from slipway.dsl.web import web_server as web_server
    from slipway.dsl.web import wsgi_app as wsgi_app

__version__ = VERSION

__all__ = [
    "App",
    "Cls",
    "Cron",
    "Error",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "Period",
    "Retries",
    "Secret",
    "Volume",
    "asgi_app",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "fastapi_endpoint",
    "is_local",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]

_HOMES = {
    "app": ("App",),
    "cls": ("Cls",),
    "context": ("current_function_call_id", "current_input_id", "enable_output", "is_local"),
    "errors": ("Error",),
    "function": ("Function",),
    "function_call": ("FunctionCall",),
    "image": ("Image",),
    "partial": ("batched", "concurrent", "enter", "exit", "method", "parameter"),
    "patterns": ("FilePatternMatcher",),
    "retries": ("Retries",),
    "schedule": ("Cron", "Period"),
    "secret": ("Secret",),
    "volume": ("Volume",),
    "web": ("asgi_app", "fastapi_endpoint", "web_endpoint", "web_server", "wsgi_app"),
}
_HOME = {name: f"slipway.dsl.{module}" for module, names in _HOMES.items() for name in names}
_INSIDE = {  # what in a worker is only a name, or says less
    *("Cron", "Image", "Period", "Retries", "Secret", "Volume"),
    *("batched", "concurrent", "enter", "exit", "method", "parameter"),
}

# What the programming model has and this release doesn't, with what to use instead.
_LATER = {
    "Dict": "Keep the values in files of a Volume.",
    "Queue": "Pass the items to .map.",
    "Sandbox": "",
    "NetworkFileSystem": "Use slipway.Volume.",
    "CloudBucketMount": "Use slipway.Volume.",
    "Tunnel": "",
    "forward": "",
    "Proxy": "",
    "Server": "",
    "Environment": "Use another home: SLIPWAY_HOME.",
    "Workspace": "",
    "Client": "",
    "Cluster": "",
    "clustered": "",
    "sessioned": "",
    "interact": "",
    "experimental": "",
    "Stub": "It has long been called App.",
    "Mount": "Use Image.add_local_dir.",
    "gpu": 'Write gpu="A100" as a string.',
    "build": "Use Image.run_function.",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "exception":
        found: Any = import_module("slipway.exception")
    elif name in _HOME:
        import_module("slipway.dsl.session").set_runner(_make_runner)
        inside = name in _INSIDE and import_module("slipway.dsl.context").is_inside()
        found = getattr(import_module("slipway.dsl.inside" if inside else _HOME[name]), name)
    elif name in _LATER:
        raise AttributeError(f"slipway.{name} is not in this release of Slipway. {_LATER[name]}".rstrip())
    else:
        raise AttributeError(f"module 'slipway' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _make_runner() -> Runner:
    """The user's end of the wire; imported when the first thing is run, never in a worker that runs nothing."""
    from .runner import ProgramRunner

    return ProgramRunner()
