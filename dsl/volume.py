"""Volumes: named folders that outlive workers and that workers share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from attrs import evolve, frozen

from . import inside
from .declaration import VolumeDecl
from .inside import Folder
from .origin import checked_name, here, invalid


@frozen(eq=False)
class Volume(Folder):
    """A named folder of this home. Mount it with `volumes={"/data": Volume.from_name("data")}`.

    >>> Volume.from_name("models", create_if_missing=True).with_mount_options(read_only=True)
    Volume.from_name('models')
    """

    decl: VolumeDecl

    @classmethod
    def from_name(
        cls,
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        version: int | None = None,
        create_options: object = None,
        client: object = None,
    ) -> Volume:
        """The volume of that name; with `create_if_missing` an apply makes it.

        >>> Volume.from_name("model cache")
        Traceback (most recent call last):
        ...
        slipway.dsl.errors.InvalidError: ...: 'model cache' can't be the name of a volume
        Use letters, digits, -, _ and ., at most 64.
        """
        name = checked_name(name, "a volume")
        return cls(VolumeDecl(name=name, create_if_missing=create_if_missing, origin=here()))

    def with_mount_options(self, *, read_only: bool | None = None, sub_path: str | None = None) -> Volume:
        """The same volume, mounted read-only, or only a folder of it."""
        decl = self.decl
        if read_only is not None:
            decl = evolve(decl, read_only=read_only)
        if sub_path is not None:
            if ".." in PurePosixPath(sub_path).parts:
                raise invalid(f"sub_path={sub_path!r} leads out of the volume")
            decl = evolve(decl, sub_path=str(PurePosixPath("/", sub_path)).lstrip("/"))
        return Volume(decl)

    def read_only(self) -> Volume:
        """The same volume, mounted read-only."""
        return self.with_mount_options(read_only=True)

    @property
    def name(self) -> str:
        return self.decl.name

    def __reduce__(self) -> tuple[Any, ...]:
        return inside.volume, (self.name,)

    def __repr__(self) -> str:
        return f"Volume.from_name({self.name!r})"


def checked_volumes(volumes: Any) -> tuple[tuple[str, Volume], ...]:
    """Volumes as given to a `volumes=` parameter, in order. Whether the paths are sound is said with the plan."""
    if volumes is None:
        return ()
    if not isinstance(volumes, Mapping):
        raise invalid("volumes= takes a dict from path to volume", hint='Write volumes={"/data": volume}.')
    for path, volume in volumes.items():
        if not isinstance(path, str | PurePosixPath):
            raise invalid(f"a path in volumes= must be a string, not {type(path).__name__}")
        if not isinstance(volume, Volume):
            raise invalid(
                f"volumes[{str(path)!r}] must be a slipway.Volume, not {type(volume).__name__}",
                hint=f'Write volumes={{"{path}": slipway.Volume.from_name("...", create_if_missing=True)}}.',
            )
    return tuple((str(path), volume) for path, volume in volumes.items())
