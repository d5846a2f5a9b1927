"""Every fault of a declaration at once, each with its place and the way out.

Nothing here waits, sleeps, opens or spawns. What can be known from the declaration alone is said here, without asking
the world; `check_facts` says the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from slipway.dsl.declaration import AppDecl, Fault, FunctionDecl, SecretDecl

from .check_facts import check_facts
from .check_function import check_function
from .check_image import check_image
from .faults import Faults
from .titles import function_address
from .world import base_secrets

__all__ = ["check", "check_facts"]

NAME = re.compile(r"[a-zA-Z0-9\-_.]{1,64}")
APP_ID = re.compile(r"ap-[a-zA-Z0-9]{22}")


def check(decl: AppDecl) -> tuple[Fault, ...]:
    """All that is wrong with the declaration, and what was collected while it was made.

    >>> from slipway.dsl.declaration import Origin
    >>> for fault in check(AppDecl(name="my app", origin=Origin(file="app.py", line=3))):
    ...     print(f"{fault.origin}: {fault.severity}: {fault.summary}")
    app.py:3: error: the app's name is not one that can be used
    app.py:3: warning: the app has no functions
    """
    faults = Faults(decl=decl)
    for fault in decl.faults:
        faults.add(fault)
    _check_app(decl, faults)
    _check_names(decl, faults)
    for image in decl.images:
        check_image(image, faults)
    for function in decl.functions:
        address = function_address(function)
        _check_name(function.name, address, address.partition(" ")[0], function, faults)
        check_function(function, len(decl.images), faults)
    for secret, address in _secrets(decl):
        _check_secret(secret, address, faults)
    return faults.all()


def _check_app(decl: AppDecl, faults: Faults) -> None:
    _check_name(decl.name, f"app {decl.name}", "app", decl, faults)
    if APP_ID.fullmatch(decl.name):
        hint = "Give it another name: those of this form are the ids of apps."
        faults.error(f"app {decl.name}", "the app's name looks like an app's id", found=decl.name, hint=hint)
    if not decl.functions:
        hint = "Decorate a function with @app.function(), or name the right app: slipway plan FILE::APP"
        faults.warning(f"app {decl.name}", "the app has no functions", hint=hint)


def _check_name(name: str, address: str, what: str, said: AppDecl | FunctionDecl, faults: Faults) -> None:
    if NAME.fullmatch(name):
        return
    better = re.sub(r"[^a-zA-Z0-9\-_.]+", "-", name).strip("-")[:64]
    parameter = f'name="{better or "my-" + what}"'
    faults.error(
        address,
        f"the {what}'s name is not one that can be used",
        found=f"{name!r:.90}",
        hint=f"Names are 1 to 64 letters, digits, '-', '_' and '.'. For example: {parameter}",
        origin=said.origin,
    )


def _check_names(decl: AppDecl, faults: Faults) -> None:
    """Functions and images that share a name."""
    first: dict[str, FunctionDecl] = {}
    for function in decl.functions:
        other = first.setdefault(function.name, function)
        if other is not function:
            what = "functions" if not (other.methods or function.methods) else "functions or classes"
            faults.error(
                function_address(function),
                f"two {what} are called {function.name!r}",
                found=f"the first at {other.origin}, the second at {function.origin}",
                hint=f'Rename one, or give it another name: @app.function(name="{function.name}-2")',
                origin=function.origin,
            )
    images: set[str] = set()
    for image in decl.images:
        if image.name in images:
            faults.error(
                f"image {image.name}",
                f"two images are called {image.name!r}",
                hint="Hold each of them in a variable of its own.",
                origin=image.origin,
            )
        images.add(image.name)


def _secrets(decl: AppDecl) -> Iterator[tuple[SecretDecl, str]]:
    """Every secret once, with who uses it first."""
    seen: set[str] = set()
    for image in decl.images:
        for secret in base_secrets(image.base):
            if secret.slot not in seen:
                seen.add(secret.slot)
                yield secret, f"image {image.name}"
        for position, step in enumerate(image.steps, start=1):
            for secret in step.options.secrets:
                if secret.slot not in seen:
                    seen.add(secret.slot)
                    yield secret, f"image {image.name}, step {position}"
    for function in decl.functions:
        for secret in function.secrets:
            if secret.slot not in seen:
                seen.add(secret.slot)
                yield secret, function_address(function)


def _check_secret(secret: SecretDecl, address: str, faults: Faults) -> None:
    if secret.named:
        faults.error(
            address,
            "secrets by name come with a later release",
            found=f"Secret.from_name, {secret.slot}",
            hint="Use Secret.from_dotenv() or Secret.from_local_environ([…]): the values stay out of plan and log.",
            origin=secret.origin,
        )
    for key in secret.keys:
        faults.env_key(key, address, secret.origin)
