"""Decorators that put a function behind HTTP."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from .declaration import EndpointDecl
from .hooks import Partial
from .origin import here, invalid, text_argument
from .partial import Target, needs_parentheses, with_role
from .resources import checked_count, checked_seconds

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def fastapi_endpoint(
    *wrong: object,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Callable[[Target], Partial]:
    """Answer one kind of HTTP request with a plain function, its parameters read by FastAPI.

    >>> @fastapi_endpoint(method="POST")
    ... def generate(request: dict): ...
    >>> generate.endpoint.method
    'POST'
    """
    needs_parentheses(wrong, "fastapi_endpoint")
    if text_argument(method, "method=").upper() not in METHODS:
        raise invalid(f"method={method!r} isn't an HTTP method", hint=f"One of {', '.join(METHODS)}.")
    decl = _endpoint("fastapi", label, custom_domains, requires_proxy_auth, method=method.upper(), docs=docs)
    return lambda target: with_role(target, "fastapi_endpoint", "endpoint", endpoint=decl)


def web_endpoint(*wrong: object, **options: Any) -> Callable[[Target], Partial]:
    """The older name of `fastapi_endpoint`.

    >>> @web_endpoint(method="POST")
    ... def generate(request: dict): ...
    >>> generate.hints
    ('@slipway.web_endpoint is called fastapi_endpoint now',)
    """
    needs_parentheses(wrong, "web_endpoint")
    decorate = fastapi_endpoint(**options)
    hint = "@slipway.web_endpoint is called fastapi_endpoint now"
    return lambda target: decorate(target).but(hints=(hint,))


def asgi_app(
    *wrong: object,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Target], Partial]:
    """Serve the ASGI app that the function returns; it is called once, when a worker starts.

    >>> @asgi_app(label="api")
    ... def api(): ...
    >>> api.endpoint.style
    'asgi'
    """
    needs_parentheses(wrong, "asgi_app")
    decl = _endpoint("asgi", label, custom_domains, requires_proxy_auth)
    return lambda target: with_role(_factory(target, "asgi_app"), "asgi_app", "endpoint", endpoint=decl)


def wsgi_app(
    *wrong: object,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Target], Partial]:
    """Serve the WSGI app that the function returns; it is called once, when a worker starts.

    >>> @wsgi_app()
    ... async def site(): ...
    Traceback (most recent call last):
    ...
    slipway.dsl.errors.InvalidError: ...: site is a @slipway.wsgi_app, so it can't be async
    It is called once and returns the app.
    """
    needs_parentheses(wrong, "wsgi_app")
    decl = _endpoint("wsgi", label, custom_domains, requires_proxy_auth)
    return lambda target: with_role(_factory(target, "wsgi_app"), "wsgi_app", "endpoint", endpoint=decl)


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Target], Partial]:
    """Serve what listens on a port of the container once the function has been called.

    >>> @web_server(8000, startup_timeout=30)
    ... def notebook(): ...
    >>> notebook.endpoint.port
    8000
    """
    if callable(port):
        needs_parentheses((port,), "web_server")
    checked_count("port", port, 1, 65_535)
    timeout_ms = checked_seconds("startup_timeout", startup_timeout, 0.1, 86_400)
    decl = _endpoint("web_server", label, custom_domains, requires_proxy_auth, port=port, startup_timeout_ms=timeout_ms)
    return lambda target: with_role(target, "web_server", "endpoint", endpoint=decl)


def _endpoint(style: str, label: Any, domains: Any, auth: bool, **more: Any) -> EndpointDecl:
    if label is not None and (not isinstance(label, str) or not re.fullmatch(LABEL, label)):
        raise invalid(f"label={label!r} can't be part of a URL", hint="Use small letters, digits and -, at most 63.")
    if isinstance(domains, str):
        raise invalid("custom_domains= takes a list", hint=f"Write custom_domains=[{domains!r}].")
    return EndpointDecl(
        style=style,
        label=label,
        custom_domains=tuple(domains or ()),
        requires_proxy_auth=bool(auth),
        origin=here(),
        **more,
    )


def _factory(target: Target, decorator: str) -> Target:
    raw = target.target if isinstance(target, Partial) else target
    if inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw):
        raise invalid(
            f"{raw.__name__} is a @slipway.{decorator}, so it can't be async",
            hint="It is called once and returns the app.",
        )
    return target
