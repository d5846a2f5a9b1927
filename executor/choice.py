"""Which runtime an app gets, and why. Nothing here waits, sleeps, opens or spawns."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import evolve, field, frozen

from slipway.compiler.facts import BaseNeed, Missing
from slipway.compiler.faults import did_you_mean
from slipway.compiler.world import base_need
from slipway.dsl.declaration import AddLocal, AppDecl, Fault, Origin, PipInstall, Step
from slipway.dsl.errors import InvalidError

from .config import Reading

NATIVE = "native"
DOCKER = "docker"
NOWHERE = Origin()


@frozen(kw_only=True)
class Choice:
    """A runtime; `because` says who chose it, "" where that needs no word.

    `place` is the line of the user's that decided. `other` says why the other one would not do, where this one is only
    what is left.
    """

    runtime: str
    because: str = ""
    place: Origin = NOWHERE
    other: str = ""


@frozen(kw_only=True)
class Wishes:
    """What was said of an app's runtime, the first that says something counts: the command line, the caller's
    SLIPWAY_RUNTIME, the settings, what is deployed."""

    app: str
    option: str | None = None
    variable: str | None = None
    settings: Reading = field(factory=Reading)
    deployed: str | None = None


def wished(wishes: Wishes, known: Collection[str]) -> Choice | None:
    """The runtime that somebody said; None where nobody did. Raises `InvalidError` for one that there isn't.

    >>> wished(Wishes(app="shop", variable="docker", deployed="native"), ("native", "docker")).because
    'SLIPWAY_RUNTIME says so'
    >>> wished(Wishes(app="shop"), ("native", "docker"))
    """
    config = wishes.settings.config
    own = dict(config.apps).get(wishes.app)
    candidates = (
        (wishes.option, "--runtime", ""),
        (wishes.variable, "SLIPWAY_RUNTIME", "SLIPWAY_RUNTIME says so"),
        (own and own.runtime, "config.toml", f"{wishes.settings.place('apps', wishes.app, 'runtime')} says so"),
        (config.runtime, "config.toml", f"{wishes.settings.place('runtime')} says so"),
        (wishes.deployed, "the deployment", "as deployed"),
    )
    for runtime, who, because in candidates:
        if not runtime:
            continue
        if runtime not in known:
            hint = did_you_mean(runtime, known, f"There is: {', '.join(known)}.")
            raise InvalidError(f"there is no runtime {runtime!r:.80} ({who})", hint=hint)
        return Choice(runtime=runtime, because=because)
    return None


@frozen(kw_only=True)
class Obstacle:
    """What keeps a runtime from serving an app: `native can't do from_registry (image base)`."""

    words: str
    place: Origin


def obstacles(
    decl: AppDecl, runtime: str, refusals: Mapping[str, str], missing: Mapping[BaseNeed, Missing]
) -> tuple[Obstacle, ...]:
    """All that a runtime can't do for a declaration: steps and bases that it refuses here, bases that it lacks."""
    found: list[Obstacle] = []

    def refused(kind: str, said: str, image: str, place: Origin) -> bool:
        if kind in refusals:
            found.append(Obstacle(words=f"{runtime} can't do {said} here ({image})", place=place))
        return kind in refusals

    for image in decl.images:
        name = f"image {image.name}"
        place = image.base.origin if image.base.origin.line else image.origin
        need = base_need(image.base, decl.python)
        lacks = missing.get(need) if need is not None else None
        if not refused(image.base.KIND, image.base.KIND, name, place) and lacks is not None:
            found.append(Obstacle(words=f"not {runtime}: {lacks.summary} ({name})", place=place))
        for step in image.steps:
            place = step.origin if step.origin.line else image.origin
            if not refused(step.KIND, _name(step), name, place) and step.options.gpu is not None:
                refused("gpu", f"gpu={step.options.gpu!r} in a build step", name, place)
    return tuple(found)


def bases_to_look_for(decl: AppDecl, refusals: Mapping[str, str]) -> tuple[BaseNeed, ...]:
    """The bases that a runtime, which doesn't refuse them outright, may or may not have."""
    needs = (base_need(image.base, decl.python) for image in decl.images if image.base.KIND not in refusals)
    return tuple(dict.fromkeys(need for need in needs if need is not None))


def default(found: tuple[Obstacle, ...], trouble: str) -> Choice:
    """Native where it can serve the app, else docker where it is to be had.

    >>> found = (Obstacle(words="native can't do from_registry here (image base)", place=Origin()),)
    >>> default(found, "").because, default(found, "no engine answers").other
    ("native can't do from_registry here (image base)", 'no engine answers')
    """
    if not found:
        return Choice(runtime=NATIVE)
    first = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    if trouble:
        return Choice(runtime=NATIVE, other=trouble)
    return Choice(runtime=DOCKER, because=first.words + more, place=first.place, other=first.words + more)


def notes(choice: Choice, deployed: str | None) -> tuple[Fault, ...]:
    """What the plan says of its runtime: nothing where it was asked for in so many words, or is the usual one.

    >>> [note.summary for note in notes(Choice(runtime="docker", because="as deployed"), "docker")]
    ['as deployed']
    """
    note = Fault(severity="note", address=f"runtime {choice.runtime}", summary="", origin=choice.place)
    if deployed is not None and deployed != choice.runtime:
        why = f" ({choice.because})" if choice.because else ""
        moved = f"in place of {deployed}{why}, with images of its own"
        summary = f"{moved}; workers on {deployed} finish what they do, and go"
        return (evolve(note, summary=summary),)
    if choice.because and choice.runtime != NATIVE:
        return (evolve(note, summary=choice.because, hint=_way(choice)),)
    return ()


def _way(choice: Choice) -> str:
    return "" if choice.other else "To have it otherwise: --runtime native"


def beside(choice: Choice) -> tuple[Fault, ...]:
    """What to say with the errors of a plan on a runtime that is only what is left: why not the other one."""
    if not choice.other:
        return ()
    other = DOCKER if choice.runtime == NATIVE else NATIVE
    hint = "See what works here: slipway doctor"
    fault = Fault(severity="error", address=f"runtime {other}", summary=choice.other, hint=hint, origin=choice.place)
    return (fault,)


def _name(step: Step) -> str:
    return step.method if isinstance(step, PipInstall | AddLocal) else step.KIND
