"""What the container of a build step is given: the image so far, mounts of ours and of the user's, and GPUs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from attrs import field, frozen

from slipway.compiler.facts import FileEntry
from slipway.dsl.declaration import AddPython

from .add_python import fetch
from .apt import Apt, read_apt
from .bundle import Bundles, bundle_digest
from .gpu_shares import GpuShares
from .images import ImageParts
from .indexes import Indexes
from .ports import ContainerSpec, Mount
from .steps import APT_CONFIG, BUILD_FOLDER, CACHE, CODE, FILES, OURS, PYTHON, Recipe
from .tasks import Flights
from .volumes import Volumes

USER_CODE = "/root"


@frozen(kw_only=True)
class Folders:
    """Where a builder keeps things: its logs and caches, below the home; our own package; and uv's program."""

    logs: Path
    cache: Path
    code: Path  # what `worker.package.prepare` returned
    uv: Path


@frozen(kw_only=True)
class Setup:
    """A container to be made, with what its commands get and what of that must not show in a log."""

    spec: ContainerSpec
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Workplace:
    """Makes setups. `indexes` reads this host's package settings."""

    def __init__(self, *, folders: Folders, bundles: Bundles, volumes: Volumes, indexes: Callable[[], Indexes]) -> None:
        self.folders = folders
        self._bundles = bundles
        self._volumes = volumes
        self._indexes = indexes
        self._gpus = GpuShares()
        self._pythons: Flights[tuple[str, str], Path] = Flights()

    async def prepare(self, what: Recipe, parts: ImageParts, *, name: str, layer: str, gpu: str | None) -> Setup:
        """Everything that the commands of a recipe need in a container of the image so far."""
        indexes = await asyncio.to_thread(self._indexes)
        apt = await asyncio.to_thread(read_apt, indexes) if what.apt else Apt()
        mounts = [*indexes.mounts, *apt.mounts]
        env = dict(indexes.env)
        if apt.text:
            mounts.append(
                Mount(source=await asyncio.to_thread(self._kept, apt.text), target=APT_CONFIG, read_only=True)
            )
            env["APT_CONFIG"] = APT_CONFIG
        if what.python is not None:
            mounts.append(Mount(source=await self._python(what.python), target=PYTHON, read_only=True))
        mounts += [mount async for mount in self._mounts(what)]
        spec = ContainerSpec(
            name=name,
            base=parts.base,
            layers=parts.layers,
            mounts=tuple(mounts),
            gpus=await self._some_gpus(gpu),
            workdir=what.cwd,
            privileged_build=True,
            as_user=what.as_user,
            labels=(("slipway.build", layer),),
        )
        # Later wins: ours, the host's, the image's own.
        together = {**dict(what.env), **env, **dict(parts.config.env)}
        return Setup(spec=spec, env=tuple(together.items()), secrets=(*indexes.secrets, *apt.secrets))

    async def _some_gpus(self, gpu: str | None) -> tuple[str, ...]:
        """For a step that wants some. It is over soon, so it does not count where workers choose theirs."""
        if gpu is None:
            return ()
        chosen = await self._gpus.take((gpu,))
        self._gpus.give_back(chosen)
        return chosen

    async def proxies(self) -> tuple[tuple[str, str], ...]:
        """The proxies of this host, which Docker knows as arguments of every build and keeps in no image."""
        indexes = await asyncio.to_thread(self._indexes)
        return tuple((name, value) for name, value in indexes.env if name.lower().endswith("_proxy"))

    async def folder_of(self, files: tuple[FileEntry, ...]) -> str:
        """A folder with these files, laid out like a container's root."""
        await self._bundles.keep(files)
        return await self._bundles.make(bundle_digest(files), files)

    # --- inside ---------------------------------------------------------------------------------------

    async def _mounts(self, what: Recipe) -> AsyncIterator[Mount]:
        if what.uv:
            yield Mount(source=str(self.folders.uv), target=f"{OURS}/bin/uv", read_only=True)
        for name in what.caches:
            folder = self.folders.cache / name
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            yield Mount(source=str(folder), target=f"{CACHE}/{name}")
        for name in ("lib", "fallback") if what.worker else ():
            yield Mount(source=str(self.folders.code / name), target=f"{OURS}/{name}", read_only=True)
        if what.files:
            files = await self.folder_of(what.files)
            yield Mount(source=files, target=FILES, read_only=True)
            if what.build_folder:
                yield Mount(source=files + BUILD_FOLDER, target=BUILD_FOLDER, read_only=True)
        if what.code:
            yield Mount(source=await self.folder_of(what.code) + USER_CODE, target=CODE, read_only=True)
        for path, volume in what.volumes:
            await self._volumes.ensure(volume.name, (volume.sub_path,) if volume.sub_path else ())
            source = await self._volumes.path(volume.name, volume.sub_path)
            yield Mount(source=source, target=path, read_only=volume.read_only)

    async def _python(self, python: AddPython) -> str:
        """Fetched once for all who wait for it: a download may take long, and the threads are few."""
        folder, wanted = self.folders.cache / "pythons", (python.version, python.resolved)
        begin = partial(asyncio.to_thread, fetch, *wanted, folder, self.folders.uv)
        return str(await self._pythons.join(wanted, begin))

    def _kept(self, text: str) -> str:
        """A file that says this, and that only we can read: a proxy's address may hold a password."""
        path = self.folders.cache / "apt-config" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.conf"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            making = path.with_suffix(f".{os.getpid()}")
            making.touch(mode=0o600)
            making.write_text(text)
            making.replace(path)
        return str(path)
