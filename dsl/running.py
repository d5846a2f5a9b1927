"""`with app.run():`, the app as an ephemeral one for the length of a block."""

from __future__ import annotations

import sys
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING

from . import context
from .origin import invalid, user_frame
from .session import RunBlock, Running, Session, current_session, the_runner
from .skip import BodyLeftOut, leave_out_body

if TYPE_CHECKING:
    from .app import App


class AppRun:
    """What `app.run()` returns: a block, both `with` and `async with`, in which the app's functions can be called.

    At the top of a file that is only imported, to plan it or in a worker, the block's body is left out.
    """

    def __init__(self, app: App, *, name: str | None, detach: bool) -> None:
        self._app = app
        self._name = name
        self._detach = detach
        self._block: RunBlock | None = None
        self._token: Token[Session | None] | None = None

    def __enter__(self) -> App:
        if not self._leave_out():
            block = self._open()
            self._begin(block, block.__enter__())
        return self._app

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if isinstance(error, BodyLeftOut):
            return True
        block = self._end()
        return block.__exit__(kind, error, traceback)

    async def __aenter__(self) -> App:
        self._refuse_import()
        block = self._open()
        self._begin(block, await block.__aenter__())
        return self._app

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        block = self._end()
        return await block.__aexit__(kind, error, traceback)

    def _open(self) -> RunBlock:
        if self._app.running is not None:
            raise invalid(f"{self._app!r} is running already")
        return the_runner().run(self._app, name=self._name, detach=self._detach)

    def _begin(self, block: RunBlock, running: Running) -> None:
        self._block = block
        self._app._running = running
        self._token = current_session.set(running.session)

    def _end(self) -> RunBlock:
        block, token = self._block, self._token
        assert block is not None and token is not None, "the block was entered"
        self._app._running = self._block = self._token = None
        current_session.reset(token)
        return block

    def _leave_out(self) -> bool:
        if context.is_local() and not context.importing.get():
            return False
        frame = sys._getframe(2)
        if frame.f_code.co_name != "<module>" or frame is not user_frame():
            self._refuse_import()
        leave_out_body(frame)
        return True

    def _refuse_import(self) -> None:
        if context.importing.get() or not context.is_local():
            raise invalid(
                "app.run() is called while the file is being imported",
                hint='Put the call below `if __name__ == "__main__":`, or in a @app.local_entrypoint().',
            )

    def __repr__(self) -> str:
        return f"<run of {self._app!r}>"
