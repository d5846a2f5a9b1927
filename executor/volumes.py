"""Volumes of a home: named folders that outlive workers and deployments."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path

from slipway.dsl.errors import AlreadyExistsError, InvalidError, NotFoundError

from .points import point
from .store.state import State


class Volumes:
    """The folders lie below `folder` under names of their own, so that a volume's name can be anything."""

    def __init__(self, folder: Path, state: State) -> None:
        self._folder = folder
        self._state = state

    async def ensure(self, name: str, sub_paths: tuple[str, ...] = ()) -> bool:
        """Make the volume where it isn't there, and these folders in it. True where it was not there."""
        made = await self._state.volume(name) is None
        if made:
            folder = f"vo-{secrets.token_hex(8)}"
            await asyncio.to_thread((self._folder / folder).mkdir, parents=True)
            point("volume-made")
            try:
                await self._state.create_volume(name, folder)
            except AlreadyExistsError:  # another apply was faster
                made = False
                await asyncio.to_thread((self._folder / folder).rmdir)
        for sub_path in sub_paths:
            path = await self.path(name, sub_path)
            await asyncio.to_thread(Path(path).mkdir, parents=True, exist_ok=True)
        return made

    async def path(self, name: str, sub_path: str | None = None) -> str:
        """Where the volume's folder lies, or a folder in it. Raises `NotFoundError`."""
        volume = await self._state.volume(name)
        if volume is None:
            raise NotFoundError(
                f"there is no volume {name} in this home",
                hint=f"To have it made: Volume.from_name({name!r}, create_if_missing=True)",
            )
        top = self._folder / volume.folder
        if not sub_path or not sub_path.strip("/"):
            return str(top)
        if ".." in sub_path.split("/") or "\0" in sub_path:
            raise InvalidError(f"sub_path={sub_path!r} leads out of the volume {name}")
        return str(top / sub_path.strip("/"))

    async def remove(self, name: str) -> None:
        """Let go of a volume and of everything in it. Raises `NotFoundError`."""
        path = await self.path(name)
        async with self._state.intent("remove volume", path):
            await self._state.remove_volume(name)
            point("volume-forgotten")
            await asyncio.to_thread(shutil.rmtree, path)
