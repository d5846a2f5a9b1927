"""A running app as a person watches it: what workers print, how far each map is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from slipway.connection import Connection
from slipway.dsl.session import FunctionRef, Running, Session
from slipway.runner import EphemeralRun, ProgramRunner

from .log_lines import Prefixes, stamp, text_of
from .output import duration, is_terminal
from .screen import Screen

if TYPE_CHECKING:
    from slipway.dsl.app import App

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
MAP_WORTH_TELLING_MS = 1000  # a map that took less is not mentioned where there are no bars


class WatchingRunner(ProgramRunner):
    """The `Runner` of `slipway run`: app.run() goes over the command's own connection and shows on its screen."""

    def __init__(
        self, link: Connection, screen: Screen, *, file: Path, runtime: str | None, quiet: bool, timestamps: bool
    ) -> None:
        super().__init__()
        self._link = link
        self._screen = screen
        self._file = file
        self._runtime = runtime
        self._quiet = quiet
        self._timestamps = timestamps
        self._run: WatchedRun | None = None

    def run(self, app: App, *, name: str | None, detach: bool) -> EphemeralRun:
        self._run = WatchedRun(
            app,
            self._file,
            self._link,
            self._screen,
            runtime=self._runtime,
            quiet=self._quiet,
            timestamps=self._timestamps,
        )
        return self._run

    def interrupted(self) -> str:
        """What became of the app when somebody pressed Ctrl-C."""
        run = self._run
        if run is None or not run.started:
            return "interrupted; finished layers are kept for the next time"
        return f"interrupted; {run.name} {'has ended' if run.ended else 'is being ended'}"


class WatchedRun(EphemeralRun):
    """An ephemeral app whose builds, output and maps are shown."""

    def __init__(
        self,
        app: App,
        file: Path,
        link: Connection,
        screen: Screen,
        *,
        runtime: str | None,
        quiet: bool,
        timestamps: bool,
    ) -> None:
        on_line = None if quiet else self._print
        super().__init__(app, file, connection=link, runtime=runtime, on_event=screen.on_event, on_line=on_line)
        self.name = app.name
        self.started = False
        self._screen = screen
        self._timestamps = timestamps
        # What a program reads is the same from run to run, and workers are called otherwise in each.
        self._prefixes = Prefixes(full=None if is_terminal(sys.stdout) else False)

    def __enter__(self) -> Running:
        running = super().__enter__()
        self.started = True
        return Running(app_id=running.app_id, session=cast("Session", Watched(running.session, self._screen)))

    def _print(self, line: dict[str, Any]) -> None:
        before = (stamp(line.get("at_ms", 0)),) if self._timestamps else ()
        shown = (*before, *self._prefixes.of(line), text_of(line))
        self._screen.line(shown, err=line.get("stream") != "stdout")


class Watched:
    """A session that counts the inputs of its maps. What else is asked of it goes to the session as it is."""

    def __init__(self, session: Session, screen: Screen) -> None:
        self._session = session
        self._screen = screen
        self._maps = count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def map(
        self, function: FunctionRef, inputs: Iterable[Inputs], *, order_outputs: bool, return_exceptions: bool
    ) -> Iterator[Any]:
        with self._progress(function) as progress:
            results = self._session.map(
                function, progress.counted(inputs), order_outputs=order_outputs, return_exceptions=return_exceptions
            )
            for result in results:
                progress.one(result)
                yield result

    async def map_aio(
        self, function: FunctionRef, inputs: AsyncIterator[Inputs], *, order_outputs: bool, return_exceptions: bool
    ) -> AsyncIterator[Any]:
        with self._progress(function) as progress:
            results = self._session.map_aio(
                function, progress.counted_aio(inputs), order_outputs=order_outputs, return_exceptions=return_exceptions
            )
            async for result in results:
                progress.one(result)
                yield result

    @contextmanager
    def _progress(self, function: FunctionRef) -> Iterator[MapProgress]:
        progress = MapProgress(self._screen, f"map {next(self._maps)}", function.name)
        try:
            yield progress
        finally:
            progress.end()


class MapProgress:
    """How far one map is: inputs taken so far, results that came."""

    def __init__(self, screen: Screen, key: str, name: str) -> None:
        self._screen = screen
        self._key = key
        self._name = name
        self._taken = self._done = self._failed = 0
        self._all_taken = False
        screen.begin(key, name)

    def counted(self, inputs: Iterable[Inputs]) -> Iterator[Inputs]:
        for item in inputs:
            self._taken += 1
            yield item
        self._all_taken = True

    async def counted_aio(self, inputs: AsyncIterator[Inputs]) -> AsyncIterator[Inputs]:
        async for item in inputs:
            self._taken += 1
            yield item
        self._all_taken = True

    def one(self, result: Any) -> None:
        self._done += 1
        self._failed += isinstance(result, Exception)
        total = self._taken if self._all_taken else None
        self._screen.advance(self._key, done=self._done, total=total, note=self._counts())

    def _counts(self) -> str:
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} of {self._taken}{'' if self._all_taken else '+'}{failed}"

    def end(self) -> None:
        taken_ms = self._screen.end(self._key)
        if taken_ms is not None and taken_ms >= MAP_WORTH_TELLING_MS:
            self._screen.tell(((f"{self._name}: ", "dim"), f"{self._counts()}, {duration(taken_ms)}"))
