"""What is shown while a command waits: lines as they come, bars for builds and maps where a person watches."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .output import Line, duration, harmless, has_colour, is_terminal, paint

if TYPE_CHECKING:
    from rich.progress import Progress


# What is done to a node of a kind, and what was; anything else is built.
WORDS = {"base": ("pulling   ", "pulled    "), "function": ("starting  ", "started   ")}


class Doing:
    """One thing under way: a layer that is built, a map that runs. `bar` is the number of its bar on screen."""

    def __init__(self, title: str, began: float) -> None:
        self.title = title
        self.began = began
        self.bar = -1


class Screen:
    """A context manager. Everything printed through it appears above the bars; any thread may use it.

    `err`: lines go to stderr, because stdout belongs to the result. `quiet`: nothing but failures is shown.
    """

    def __init__(self, *, err: bool = False, quiet: bool = False) -> None:
        self._stream = sys.stderr if err else sys.stdout
        self._quiet = quiet
        self._lock = threading.RLock()
        self._doing: dict[str, Doing] = {}
        self._live: Progress | None = None
        self.failures: list[dict[str, Any]] = []  # events of nodes that failed: address, message, hint, log
        # Bars move the cursor; were one of the two piped away, the other's lines would land between them.
        self._has_bars = not quiet and is_terminal(sys.stdout) and is_terminal(sys.stderr)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stop_bars()

    # --- lines ----------------------------------------------------------------------------------------

    def line(self, line: Line, *, err: bool | None = None) -> None:
        """Print a line that stays; `err` overrides where."""
        stream = self._stream if err is None else sys.stderr if err else sys.stdout
        with self._lock:
            text = paint(line, colour=has_colour(stream))
            if self._live is not None:
                from rich.text import Text

                self._live.console.print(Text.from_ansi(text), soft_wrap=True)
            else:
                stream.write(text + "\n")
                stream.flush()

    # --- things under way -----------------------------------------------------------------------------

    def begin(self, key: str, title: str, *, total: int | None = None) -> None:
        """Something has begun; `total` where its size is known."""
        with self._lock:
            doing = self._doing[key] = Doing(title, time.monotonic())
            if self._has_bars:
                doing.bar = self._bars().add_task(harmless(title), total=total, note="")

    def advance(self, key: str, *, done: int, total: int | None, note: str = "") -> None:
        """It has come this far."""
        with self._lock:
            doing = self._doing.get(key)
            if doing is not None and self._live is not None:
                self._live.update(doing.bar, completed=done, total=total, note=note)  # type: ignore[arg-type]

    def note(self, key: str, text: str) -> None:
        """The last thing that it said; shown beside its bar, and nowhere without bars."""
        with self._lock:
            doing = self._doing.get(key)
            if doing is not None and self._live is not None:
                self._live.update(doing.bar, note=harmless(text[:60]))  # type: ignore[arg-type]

    def end(self, key: str) -> int | None:
        """It is over: its bar goes. Returns how many milliseconds it took, None for what hadn't begun."""
        with self._lock:
            doing = self._doing.pop(key, None)
            if doing is None:
                return None
            if self._live is not None:
                self._live.remove_task(doing.bar)  # type: ignore[arg-type]
            if not self._doing:
                self._stop_bars()  # the terminal is the user's again: they may ask for input
            return round((time.monotonic() - doing.began) * 1000)

    def tell(self, line: Line) -> None:
        """Print a line about what went on, unless nobody wants to know."""
        if not self._quiet:
            self.line(line)

    def _stop_bars(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _bars(self) -> Progress:
        if self._live is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}", style="dim", markup=False),
                console=Console(no_color=not has_colour(sys.stdout)),
                transient=True,
            )
            self._live.start()
        return self._live

    # --- what the engine says while it builds ---------------------------------------------------------

    def on_event(self, event: dict[str, Any]) -> None:
        """An EVENT frame of `apply` or `run`: a node's state, or a line of its build log."""
        kind = event.get("event")
        if kind == "node":
            self._on_node(event)
        elif kind == "log":
            self.note(event.get("address", ""), event.get("text", ""))

    def _on_node(self, event: dict[str, Any]) -> None:
        address, state = event["address"], event["state"]
        title = event.get("title") or address
        now, then = WORDS.get(event.get("kind", ""), ("building  ", "built     "))
        if state == "running":
            self.begin(address, title)
            if not self._has_bars:
                self.tell(((now, "dim"), title))
            return
        taken_ms = self.end(address)
        if state == "failed":
            self.failures.append(event)
            self.line((("failed    ", "error"), title))
        elif state == "skipped":
            self.line((("skipped   ", "warning"), title))
        elif taken_ms is not None:
            word = then if event.get("executed", True) else "reused    "
            self.tell(((word, "add"), f"{title}  ", (duration(event.get("ms", taken_ms)), "dim")))
