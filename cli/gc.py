"""`slipway gc`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import click

from slipway.executor.config import BINARY, UNITS, bytes_of

from .apply import ask
from .output import Line, count, say, show
from .screen import Screen
from .source import connect, json_option, yes_option

LABELS = {
    "image": ("worker images", "made of layers and bundles; no deployment needs them"),
    "layer": ("layers", "no deployment needs them"),
    "bundle": ("bundles", "no deployment needs them"),
    "blob": ("source files", "nothing reads them any more"),
    "log": ("build logs", "of builds that no deployment needs"),
    "code": ("worker programs", "of other versions of slipway"),
    "cache": ("package caches", "the next build downloads anew"),
}
MOST_NAMED = 5  # of the largest layers
AGES = (("year", 365 * 86_400), ("month", 30 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60))


class Size(click.ParamType[int]):
    """Bytes, written as "20GB"."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = 0 if value.strip() == "0" else bytes_of(value)
        if found is None:
            self.fail(f"{value!r} is not a size. Say it with its unit: 500MB, 20GB or 16GiB.", param, ctx)
        return found


@click.command()
@click.option("--keep", type=Size(), metavar="SIZE", help="Leave so much of what nothing needs, the last used of it.")
@click.option("--caches", is_flag=True, help="Free what builds downloaded, too.")
@click.option("--dry-run", is_flag=True, help="Only show what would be freed.")
@yes_option
@json_option
def gc(keep: int | None, caches: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Free what no deployment needs: layers, source files, logs of builds, code of other versions of slipway.

    It shows first what would be freed, and asks. Needed is what the deployed apps and their last revisions are made of,
    what runs and what is being built. Volumes and secrets are never touched. What is needed again later is built again,
    and the plan says so.

    \b
    Examples:
      slipway gc
      slipway gc --keep 20GB --yes
      slipway gc --caches --dry-run
    """
    with connect() as link:
        request: dict[str, Any] = {"caches": caches} | ({} if keep is None else {"keep": keep})
        offer = link.request("gc", request)
        if not as_json:
            show(offer_lines(offer, now_ms=time.time_ns() // 1_000_000))
        if dry_run or not offer["free"]["number"] or not _agreed(offer, yes, as_json):
            if as_json:
                click.echo(json.dumps(_without_id(offer)))
            elif offer["free"]["number"] and not dry_run:
                say(f"Nothing was freed. To free it: {_command(keep, caches)}")
            return
        with Screen(err=as_json) as screen:
            total = offer["free"]["size"]
            screen.begin("gc", "freeing", total=total)
            reply = link.request(
                "gc.free",
                {"id": offer["id"]},
                on_event=lambda event: screen.advance("gc", done=event["size"], total=total),
            )
            screen.end("gc")
    if as_json:
        click.echo(json.dumps(_without_id(offer) | reply))
    else:
        show(outcome(reply))


def _agreed(offer: dict[str, Any], yes: bool, as_json: bool) -> bool:
    """Whether somebody wants it. Nobody is asked who isn't there to answer."""
    if yes:
        return True
    if as_json or not sys.stdin.isatty():
        return False
    return ask(f"Free {size(offer['free']['size'])}?")


def _without_id(offer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in offer.items() if name != "id"}


def _command(keep: int | None, caches: bool) -> str:
    return "slipway gc --yes" + ("" if keep is None else f" --keep {_exactly(keep)}") + (" --caches" if caches else "")


def _exactly(keep: int) -> str:
    """
    >>> _exactly(20_000_000_000), _exactly(3 << 30), _exactly(0), _exactly(1500)
    ('20GB', '3GiB', '0B', '1500B')
    """
    fitting = [(number, unit) for unit, number in {**UNITS, **BINARY}.items() if keep and keep % number == 0]
    number, unit = max(fitting, default=(1, "B"))
    return f"{keep // number}{unit}"


# --- on the screen ------------------------------------------------------------------------------------


def offer_lines(offer: dict[str, Any], *, now_ms: int) -> Iterator[Line]:
    """What would be freed by kind, with sizes and why; the largest layers by name; what stays."""
    rows = [row for kind in offer["kinds"] for row in _rows(kind, offer, now_ms)]
    if rows:
        head = ("WHAT", "NUMBER", "SIZE", "WHY")
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(3)]
        for number, row in enumerate((head, *rows)):
            text = f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
            yield ((text, "bold"),) if number == 0 else ((text, "dim") if row[0].startswith(" ") else text,)
        yield ("",)
    for skipped in offer["skipped"]:
        yield (("note: ", "note"), f"the {skipped['runtime']} runtime was not looked into: {skipped['why']}")
    yield (_sentence(offer),)


def _rows(kind: dict[str, Any], offer: dict[str, Any], now_ms: int) -> Iterator[tuple[str, str, str, str]]:
    label, why = LABELS[kind["kind"]]
    several = len({other["runtime"] for other in offer["kinds"]} - {""}) > 1
    name = f"{label} of {kind['runtime']}" if several and kind["runtime"] else label
    if kind["kind"] not in {"code", "cache"}:
        why += f"; last used {ages(now_ms, kind['first_used_ms'], kind['last_used_ms'])}"
    yield name, str(kind["number"]), size(kind["size"]), why
    if kind["kind"] in {"layer", "cache"}:
        own = [
            thing for thing in offer["things"] if (thing["kind"], thing["runtime"]) == (kind["kind"], kind["runtime"])
        ]
        largest = sorted(own, key=lambda thing: -thing["size"])[:MOST_NAMED]
        for thing in largest:
            used = thing["used_ms"]
            yield f"  {thing_title(thing)}", "", size(thing["size"]), f"last used {ages(now_ms, used, used)}"
        if len(own) > len(largest):
            yield f"  and {len(own) - len(largest)} more", "", "", ""


def thing_title(thing: dict[str, Any]) -> str:
    """What a thing is called: what its build says, else the beginning of its digest."""
    title = str(thing["title"] or thing["ident"].partition(":")[2][:16] or thing["ident"])
    return title if len(title) <= 40 else title[:39] + "…"


def _sentence(offer: dict[str, Any]) -> str:
    free, spare, needed = offer["free"], offer["spare"], offer["needed"]
    said = [f"{size(free['size'])} to free." if free["number"] else "Nothing to free."]
    if spare["number"]:
        limit = f"at most {size(offer['keep'])} of what nothing needs" if offer["keep"] is not None else "to keep"
        said.append(f"{size(spare['size'])} more stay: {limit} may.")
    if needed["number"]:
        said.append(f"{size(needed['size'])} are needed.")
    return " ".join(said)


def outcome(reply: dict[str, Any]) -> Iterator[Line]:
    """What was freed, and what wasn't."""
    for thing in reply["left"]:
        yield (("not freed: ", "warning"), f"{thing['kind']} {thing_title(thing)}: {thing['why']}")
    freed = reply["freed"]
    yield ((f"Freed {size(freed['size'])}", "good"), f" in {count(freed['number'], 'thing')}.")


def size(number: int) -> str:
    """
    >>> [size(number) for number in (0, 999, 12_300, 3_400_000_000, 999_950, 120_000_000)]
    ['0 B', '999 B', '12 kB', '3.4 GB', '1 MB', '120 MB']
    """
    if number < 1000:
        return f"{number} B"
    value = Decimal(number)
    for unit in UNITS:
        value /= 1000
        if value < Decimal("999.5") or unit == "TB":
            return f"{value:.1f} {unit}".replace(".0 ", " ") if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError("the last unit takes everything")


def ages(now_ms: int, first_ms: int | None, last_ms: int | None) -> str:
    """How long ago the last uses were, the latest first.

    >>> day = 86_400_000
    >>> ages(90 * day, 0, 87 * day), ages(90 * day, 87 * day, 87 * day), ages(day, day, day), ages(0, None, None)
    ('3 days to 3 months ago', '3 days ago', 'just now', 'at an unknown time')
    """
    if first_ms is None or last_ms is None:
        return "at an unknown time"
    latest, earliest = _age(now_ms - last_ms), _age(now_ms - first_ms)
    if not earliest:
        return "just now"
    if latest == earliest:
        return f"{latest} ago"
    return f"{latest} to {earliest} ago" if latest else f"up to {earliest} ago"


def _age(ms: int) -> str:
    for name, seconds in AGES:
        if ms >= seconds * 1000:
            return count(ms // (seconds * 1000), name)
    return ""
