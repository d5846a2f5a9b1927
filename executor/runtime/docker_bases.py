"""The images of registries that images stand on: what a name stands for, whether it is here, getting it here."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from slipway.compiler.facts import BaseFact
from slipway.dsl.errors import Error, InvalidError, NotFoundError
from slipway.executor.config import DockerSettings
from slipway.executor.ports import Output

from .docker import Absent, Conflict, Connection, Refused, Unreachable
from .docker_keys import Keys, keys_of

MICROMAMBA = "mambaorg/micromamba:2.1.1-debian12-slim"
ANSWER_SECONDS = 45  # that a registry may take to say what a name stands for
OFFLINE = (
    "Where this machine reaches no registry: docker pull it elsewhere, then docker save and docker load; "
    "or map the base to an image that is here, under [docker.bases] in config.toml."
)
LONGEST = 255  # letters of a name without its tag, by what engines take
HELPER = "credentials store"  # what docker-py says of a helper that failed begins so
LOGIN = "Give keys that the registry takes: Image.from_registry(…, secret=Secret…), or run docker login."


@frozen(kw_only=True)
class Name:
    """A name of an image, taken apart. `tag` has its ":", `digest` its "@"; either may be ""."""

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.repository}{self.digest or self.tag}"


_NAME = re.compile(
    r"(?P<repository>(?:(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+)(?::\d+)?/|[a-zA-Z0-9-]+:\d+/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?P<tag>:[\w][\w.-]{0,127})?(?P<digest>@sha256:[0-9a-f]{64})?"
)
_ID = re.compile(r"sha256:[0-9a-f]{64}")


def name_of(text: str) -> Name:
    """
    >>> str(name_of("localhost:5000/team/base")), name_of("python:3.12").repository
    ('localhost:5000/team/base:latest', 'python')
    """
    match = _NAME.fullmatch(text)
    if match is None or len(match["repository"]) > LONGEST:
        raise NotFoundError(
            f"{text!r:.300} is not the name of an image",
            hint='Such names are "python:3.12-slim" or "ghcr.io/owner/name:tag".',
        )
    tag, digest = match["tag"] or "", match["digest"] or ""
    return Name(repository=match["repository"], tag=tag or ("" if digest else ":latest"), digest=digest)


def image_name(kind: str, ref: str, bases: tuple[tuple[str, str], ...]) -> str:
    """The image that a base means, by the settings first.

    >>> image_name("debian_slim", "3.12", (("debian_slim", "our-debian:1"),))
    'our-debian:1'
    >>> image_name("debian_slim", "3.12", ())
    'python:3.12-slim-bookworm'
    """
    mapped = dict(bases)
    match kind:
        case "debian_slim":
            version = ref or f"{sys.version_info.major}.{sys.version_info.minor}"
            found = mapped.get(f"debian_slim {version}") or mapped.get("debian_slim")
            return found or f"python:{version}-slim-bookworm"
        case "micromamba":
            return mapped.get("micromamba") or MICROMAMBA
        case "from_registry":
            return ref
    raise NotFoundError(f"the docker runtime does not know the base {kind!r}")


class DockerBases:
    def __init__(self, connection: Connection, settings: Callable[[], DockerSettings]) -> None:
        self._connection = connection
        self._settings = settings

    async def resolve(self, kind: str, ref: str, *, auth: Keys = (), fresh: bool = False) -> BaseFact:
        """See `Runtime.resolve`. What is here already is taken as it is, and no registry is asked."""
        text = image_name(kind, ref, self._settings().bases)
        own = _ID.fullmatch(text) is not None  # an image by its id is on this machine or nowhere
        name = Name(repository=text) if own else name_of(text)
        system = (await self._connection.facts()).system
        local = await self._local(str(name))
        if local is not None and (own or name.digest or not fresh or not _digest_of(local, name)):
            return _local_fact(name, local, system)
        if own:
            raise NotFoundError(f"the image {text} is not here", hint="docker load brings one from a file.")
        try:
            return await self._ask(name, auth, system)
        except NotFoundError:
            if local is None:
                raise
            return _local_fact(name, local, system)  # no registry is to be had: what was known has to do

    async def has(self, base: BaseFact) -> bool:
        return await self._local(reference(base)) is not None

    async def fetch(self, base: BaseFact, *, auth: Keys = (), output: Output) -> None:
        """Get it by its digest, and give it the name that it was asked for by, as `docker pull` does."""
        image = reference(base)
        if await self._local(image) is not None:
            return
        if _ID.fullmatch(image):
            raise NotFoundError(
                f"the image {dict(base.paths).get('name', image)} was only on this machine, and is not here any more",
                hint=f"Load or build it again; it was {image}.",
            )
        keys = await self._keys(auth, image)
        system = (await self._connection.facts()).system
        progress = Progress()

        def pull(client: Any) -> Iterator[dict[str, Any]]:
            found: Iterator[dict[str, Any]] = client.pull(
                image, stream=True, decode=True, auth_config=keys, platform=system
            )
            return found

        def tell(item: dict[str, Any]) -> None:
            line = progress.line(item)
            if line:
                output(1, line.encode())

        try:
            await self._connection.stream(pull, tell)
        except (Absent, Conflict, Refused, Unreachable) as error:
            raise _not_had(image, _refusal(error)) from error
        if progress.error:
            raise _not_had(image, progress.error)
        await self._tag(base, image)

    async def _tag(self, base: BaseFact, image: str) -> None:
        wanted = dict(base.paths).get("name", "")
        name = name_of(wanted) if wanted and not _ID.fullmatch(wanted) else None
        if name is not None and name.tag and not name.digest:
            await self._connection.run(lambda client: client.tag(image, name.repository, name.tag[1:]))

    async def _local(self, image: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._connection.run(lambda client: client.inspect_image(image))
        except Absent:
            return None
        return found

    async def _ask(self, name: Name, auth: Keys, system: str) -> BaseFact:
        keys = await self._keys(auth, str(name))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found: dict[str, Any] = await self._connection.run(
                    lambda client: client.inspect_distribution(str(name), auth_config=keys), long=True
                )
        except TimeoutError:
            raise _not_had(str(name), f"its registry has not answered within {ANSWER_SECONDS} s") from None
        except (Absent, Conflict, Refused, Unreachable) as error:
            raise _not_had(str(name), _refusal(error)) from error
        platforms = [f"{one.get('os')}/{one.get('architecture')}" for one in found.get("Platforms") or ()]
        if platforms and system not in platforms:
            raise _other_system(str(name), system, ", ".join(sorted(set(platforms))))
        return _fact(name, ("manifest", str(found["Descriptor"]["digest"])), system, note="")

    async def _keys(self, auth: Keys, image: str) -> dict[str, str] | None:
        return await asyncio.to_thread(keys_of, auth, image) if auth else None


def reference(base: BaseFact) -> str:
    """What the engine knows a base by."""
    found = dict(base.paths).get("image")
    if not found:
        raise InvalidError(
            f"this base is not one of the docker runtime: {base.says or base.identity}",
            hint="Make the plan again with --runtime docker.",
        )
    return found


def said(error: Error) -> str:
    """What the engine itself said."""
    return str(getattr(error.__cause__, "explanation", None) or error.message).strip()


def _refusal(error: Error) -> str:
    """Why an image is not to be had. docker-py itself asks the helper of `docker login` for keys, before the engine."""
    if not isinstance(error, Unreachable):
        return said(error)
    if HELPER not in str(error.__cause__).lower():
        raise error
    return str(error.__cause__)


def _fact(name: Name, what: tuple[str, str], system: str, *, note: str) -> BaseFact:
    kind, digest = what
    image = f"{name.repository}@{digest}" if kind == "manifest" else digest
    return BaseFact(
        identity=(what, ("platform", system)),
        says=f"{name}{note}, {digest[:19]}…",
        paths=(("image", image), ("name", str(name))),
    )


def _local_fact(name: Name, local: dict[str, Any], system: str) -> BaseFact:
    its = f"{local.get('Os')}/{local.get('Architecture')}"
    if its != system:
        raise _other_system(str(name), system, its)
    digest = _digest_of(local, name)
    if digest:
        return _fact(name, ("manifest", digest), system, note="")
    return _fact(name, ("image", str(local["Id"])), system, note=" (local image)")


def _digest_of(local: dict[str, Any], name: Name) -> str:
    """The manifest digest that a local image came under from the repository of its name; "" where it was made here."""
    for known in local.get("RepoDigests") or ():
        repository, _, digest = str(known).partition("@")
        if _familiar(repository) == _familiar(name.repository) and name.digest in ("", f"@{digest}"):
            return digest
    return ""


def _familiar(repository: str) -> str:
    """
    >>> _familiar("docker.io/library/python"), _familiar("ghcr.io/owner/name")
    ('python', 'ghcr.io/owner/name')
    """
    for prefix in ("index.docker.io/", "docker.io/", "library/"):
        repository = repository.removeprefix(prefix)
    return repository


def _other_system(name: str, system: str, its: str) -> NotFoundError:
    return NotFoundError(f"the image {name} is for {its}, the engine runs {system}", hint=f"Name one for {system}.")


def _not_had(name: str, reason: str) -> NotFoundError:
    low = reason.lower()
    if any(word in low for word in ("unauthorized", "denied", "no basic auth", "authentication required")):
        return NotFoundError(f"the registry does not give out the image {name}: {reason}", hint=LOGIN)
    if HELPER in low:
        return NotFoundError(
            f"the image {name} can't be had, its registry's keys are out of reach: {reason}", hint=LOGIN
        )
    if any(word in low for word in ("manifest unknown", "not found", "name unknown")):
        return NotFoundError(f"there is no image {name}: {reason}", hint="Look at its name and its tag.")
    return NotFoundError(f"the image {name} can't be had: {reason}", hint=OFFLINE)


class Progress:
    """A pull's many messages as a few lines: how much of the whole has come, at each tenth, and what is said once."""

    QUIET = ("Downloading", "Extracting", "Pulling fs layer", "Waiting", "Verifying Checksum", "Download complete")

    def __init__(self) -> None:
        self.error = ""
        self._sizes: dict[str, tuple[int, int]] = {}  # of each layer: what has come, and what is to come
        self._tenth = 0

    def line(self, item: dict[str, Any]) -> str:
        """What to show of a message, with its end of line; mostly nothing."""
        if "error" in item:
            self.error = str(item["error"]).strip()
            return ""
        status, layer = str(item.get("status", "")), str(item.get("id", ""))
        detail = item.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._sizes[layer] = (int(detail["current"]), int(detail["total"]))
            return self._came()
        if status in ("Download complete", "Pull complete") and layer in self._sizes:
            total = self._sizes[layer][1]
            self._sizes[layer] = (total, total)
            return self._came()
        return "" if not status or (layer and status.startswith((*self.QUIET, "Pull"))) else f"{status}\n"

    def _came(self) -> str:
        came, total = (sum(column) for column in zip(*self._sizes.values(), strict=True))
        if came * 10 // total <= self._tenth:
            return ""
        self._tenth = came * 10 // total
        return f"{came / 1e6:.0f} of {total / 1e6:.0f} MB\n"
