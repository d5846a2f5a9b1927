"""Freeing what a home holds and nobody needs: looked at and shown first, then removed one by one.

What is removed can be made again: layers, what runtimes made of them, source files, logs of builds, copies of our own
code, caches of packages. Volumes, secrets, logs of apps and the state are never touched.

The files are the truth: whoever uses a layer asks its runtime whether it is there. Its row stays when it is freed, so
that the next plan can tell how long building it took; so a kill at any point leaves nothing that disagrees. A folder
gets another name before its content goes, and an engine that starts removes what is left under such names.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from slipway.compiler.encode import loads
from slipway.compiler.nodes import Graph
from slipway.dsl.errors import Error, InvalidError, NotFoundError

from .config_file import ConfigFile
from .engine import Emit, Engine
from .inventory import GONE, take
from .keep import KINDS, Choice, Thing, decide, needed_by, needed_by_container, with_what_is_below
from .points import point
from .ports import Deployment
from .runtime.layers import remove_tree
from .tasks import to_its_end

OFFERS = 8  # that are remembered
AT_ONCE = 200  # files that are removed before somebody else may begin to use them
NEEDED = "it is needed by now"
BUILDING = "a build or a shell may be using it"


@frozen(kw_only=True)
class Offer:
    """What would be freed; `skipped` are the runtimes that were not looked into, each with why."""

    ident: str
    began_ms: int
    choice: Choice
    keep: int | None
    skipped: tuple[tuple[str, str], ...] = ()


@define(eq=False)
class Freeing:
    """How far one removal has come. `left`: what could not be freed, with why; `stuck`: what that stands on."""

    on: dict[str, tuple[str, ...]]
    there: frozenset[str]
    came: list[Graph]  # grows when somebody begins to use something
    needed: frozenset[str] = frozenset()
    looked: int = 0  # how many of `came` are in `needed`
    freed: list[Thing] = field(factory=list)
    left: list[tuple[Thing, str]] = field(factory=list)
    stuck: set[str] = field(factory=set)

    @property
    def size(self) -> int:
        """What the disk got back."""
        return sum(thing.size for thing in self.freed)


def _nobody(event: dict[str, Any], *descriptors: int) -> None: ...


class Collector:
    """Frees what an engine's home doesn't need."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._offers: dict[str, Offer] = {}

    async def look(self, *, keep: int | None = None, caches: bool = False) -> Offer:
        """What could be freed so that at most `keep` bytes of what nobody needs stay.

        None: as many as `keep` in the home's config.toml says, else nothing of it.
        """
        engine = self._engine
        began = engine.clock.now_ms()
        if keep is None:
            config = (await asyncio.to_thread(ConfigFile(engine.home.config).read)).config
            keep = None if config.keep_mib is None else config.keep_mib << 20
        uses = await engine.state.uses()
        found = await take(engine.home, engine.runtimes, uses, code=engine.code, caches=caches)
        needed = await self._needed({thing.key for thing in found.things})
        choice = await asyncio.to_thread(decide, found.things, needed, keep=keep)
        ident = secrets.token_hex(8)
        # A machine without Docker is nobody's concern who never used it.
        skipped = tuple([skip for skip in found.skipped if await engine.state.has_used(skip[0])])
        offer = Offer(ident=ident, began_ms=began, choice=choice, keep=keep, skipped=skipped)
        self._offers[ident] = offer
        while len(self._offers) > OFFERS:
            del self._offers[next(iter(self._offers))]
        return offer

    async def free(self, ident: str, emit: Emit = _nobody) -> Freeing:
        """Free what an offer named, but for what is needed by now. Raises `NotFoundError` for an offer that is over."""
        offer = self._offers.pop(ident, None)
        if offer is None:
            raise NotFoundError("what was to be freed is not known any more", hint="Look again: slipway gc")
        choice = offer.choice
        things = (*choice.free, *choice.spare, *choice.needed)
        # From here on every graph that somebody begins to use comes in; those before are asked for after that.
        with self._engine.uses.watch() as came:
            there = frozenset(thing.key for thing in things)
            freeing = Freeing(on={thing.key: thing.on for thing in things}, there=there, came=came)
            freeing.needed = with_what_is_below(await self._needed(freeing.there), freeing.on)
            for batch in _batches(choice.free):
                await to_its_end(self._remove_unless_needed(freeing, batch))
                emit({"event": "freed", "number": len(freeing.freed), "size": freeing.size})
        await self._forget_uses(offer, freeing)
        return freeing

    # --- what is needed -------------------------------------------------------------------------------

    async def _needed(self, there: Collection[str]) -> frozenset[str]:
        """The keys of what is in force, was before that, runs, is being built, or stands in a container.

        What is held and what runs is read first: what is let go of after that is in force by then, or over.
        """
        engine = self._engine
        held = engine.uses.held
        live = {app.id: app for app in engine.live.values()}
        containers = [
            (name, pool.spec.worker.container)
            for name, dispatcher in engine.dispatchers.items()
            for pool in dispatcher.all_pools()
        ]
        deployed = await engine.state.deployments()
        before = [await engine.state.previous(deployment) for deployment in deployed]
        unknown = [d for d in deployed if d.app not in live or live[d.app].serial != d.serial]

        def union() -> frozenset[str]:
            graphs = [app.graph for app in live.values()]
            graphs += [_graph(deployment) for deployment in unknown]
            graphs += _readable(deployment for deployment in before if deployment is not None)
            keys = [needed_by(graph, there=there) for graph in graphs]
            keys += [needed_by(graph, building=True) for graph in held]
            keys += [needed_by_container(runtime, spec) for runtime, spec in containers]
            return frozenset().union(*keys)

        return await asyncio.to_thread(union)

    # --- removing -------------------------------------------------------------------------------------

    async def _remove_unless_needed(self, freeing: Freeing, batch: tuple[Thing, ...]) -> None:
        """Look and remove while nobody begins to use anything."""
        uses = self._engine.uses
        async with uses.lock:
            new = freeing.came[freeing.looked :]
            if new:
                keys = await asyncio.to_thread(lambda: [needed_by(graph, building=True) for graph in new])
                freeing.needed = with_what_is_below(freeing.needed.union(*keys), freeing.on)
                freeing.looked += len(new)
            for thing in batch:
                why = self._why_not(freeing, thing) or await self._remove(thing)
                if why:
                    freeing.left.append((thing, why))
                    freeing.stuck |= with_what_is_below({thing.key}, freeing.on)
                else:
                    freeing.freed.append(thing)

    def _why_not(self, freeing: Freeing, thing: Thing) -> str:
        if thing.key in freeing.needed:
            return NEEDED
        if thing.key in freeing.stuck:
            return "what stands on it could not be freed"
        # A layer that no graph ever named is one that a build anew has made under a name of its own (force_build).
        is_passing = thing.kind == "cache" or (thing.kind == "layer" and thing.used_ms is None)
        return BUILDING if is_passing and self._engine.uses.held else ""

    async def _remove(self, thing: Thing) -> str:
        """Remove one thing; why it can't be, or "". One that has gone already is removed."""
        home = self._engine.home
        try:
            match thing.kind:
                case "layer" | "image":
                    await self._engine.runtimes[thing.runtime].remove(thing.ident)
                case "blob":
                    await asyncio.to_thread(self._engine.blobs.remove, thing.ident)
                case "log":
                    await asyncio.to_thread((home.layer_logs / thing.ident).unlink, missing_ok=True)
                case "bundle":
                    await asyncio.to_thread(_remove_folder, home.bundles / thing.ident)
                case "code":
                    await asyncio.to_thread(_remove_folder, home.codes / thing.ident)
                case "cache":
                    await asyncio.to_thread(_remove_folder, home.caches / thing.ident)
        except Error as error:
            return error.message
        except OSError as error:
            return f"{error.strerror} ({error.filename})" if error.filename else str(error)
        point("gc-removed")
        return ""

    async def _forget_uses(self, offer: Offer, freeing: Freeing) -> None:
        """Forget when that was last used which is not there any more, whoever removed it, and was not used since."""
        stays = freeing.there - {thing.key for thing in freeing.freed}
        there = {key.rpartition(" ")[2] for key in stays}
        stale = [
            (use.kind, use.ident)
            for use in await self._engine.state.uses()
            if use.ident not in there
            and use.used_ms < offer.began_ms
            and not (offer.skipped and use.kind == "layer")  # it may be in a runtime that was not looked into
        ]
        await self._engine.state.forget_uses(stale)


def _graph(deployment: Deployment) -> Graph:
    try:
        return loads(deployment.graph, Graph)
    except Error as error:
        raise InvalidError(
            f"what {deployment.app}, serial {deployment.serial}, needs can't be read, so nothing is freed: "
            f"{error.message}",
            hint=f"Deploy it again (slipway apply app.py), or let go of it: slipway destroy {deployment.app}",
        ) from error


def _readable(deployments: Iterable[Deployment]) -> Iterator[Graph]:
    """What was in force before. Nobody can go back to what can't be read, so that needs nothing."""
    for deployment in deployments:
        with suppress(Error):
            yield loads(deployment.graph, Graph)


def _remove_folder(path: Path) -> None:
    """Remove a folder, or a file: first its name, so that nobody meets half of it."""
    if not path.name.startswith(GONE):
        gone = path.with_name(f"{GONE}{secrets.token_hex(8)}")
        try:
            path.rename(gone)
        except FileNotFoundError:
            return
        point("gc-renamed")
        path = gone
    remove_tree(path)


def _batches(things: Iterable[Thing]) -> Iterator[tuple[Thing, ...]]:
    """In order: many small files at a time, anything else alone."""
    for is_small, group in groupby(things, lambda thing: thing.kind in {"blob", "log"}):
        waiting = tuple(group)
        size = AT_ONCE if is_small else 1
        for start in range(0, len(waiting), size):
            yield waiting[start : start + size]


# --- as it goes over the wire -------------------------------------------------------------------------


def offer_reply(offer: Offer) -> dict[str, Any]:
    """Files are many: of them only sums are told."""
    choice = offer.choice
    return {
        "id": offer.ident,
        "keep": offer.keep,
        "kinds": [_sums(kind, runtime, things) for (kind, runtime), things in _by_kind(choice.free)],
        "things": [_plain(thing) for thing in choice.free if thing.kind not in {"blob", "log"}],
        "free": _total(choice.free),
        "spare": _total(choice.spare),
        "needed": _total(choice.needed),
        "skipped": [{"runtime": name, "why": why} for name, why in offer.skipped],
    }


def freeing_reply(freeing: Freeing) -> dict[str, Any]:
    return {
        "freed": _total(freeing.freed),
        "left": [_plain(thing) | {"why": why} for thing, why in freeing.left],
    }


def _by_kind(things: Iterable[Thing]) -> list[tuple[tuple[str, str], list[Thing]]]:
    found: dict[tuple[str, str], list[Thing]] = {}
    for thing in sorted(things, key=lambda thing: KINDS.index(thing.kind)):
        found.setdefault((thing.kind, thing.runtime), []).append(thing)
    return list(found.items())


def _sums(kind: str, runtime: str, things: list[Thing]) -> dict[str, Any]:
    times = [thing.used_ms for thing in things if thing.used_ms is not None]
    ends = {"first_used_ms": min(times, default=None), "last_used_ms": max(times, default=None)}
    return {"kind": kind, "runtime": runtime, **_total(things), **ends}


def _total(things: Collection[Thing]) -> dict[str, int]:
    return {"number": len(things), "size": sum(thing.size for thing in things)}


def _plain(thing: Thing) -> dict[str, Any]:
    """A thing without what only the engine has a use for."""
    return {name: getattr(thing, name) for name in ("kind", "runtime", "ident", "title", "size", "used_ms")}
