"""What the compiler must know of the world (`Need`), and what was found (`Facts`).

`needs(declaration)` lists them, the engine's hands gather them, then compiling is a function of its arguments.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen

from slipway.dsl.declaration import LocalSource


@frozen(kw_only=True)
class BaseNeed:
    """The manifest facts of a base: `kind` and `ref` say which, ("debian_slim", "3.11") or ("from_registry", tag).
    `secret` is the slot of the registry's keys; `fresh`: what was known of the name does not count."""

    KIND: ClassVar[str] = "base_need"
    kind: str
    ref: str
    secret: str = ""
    fresh: bool = False


@frozen(kw_only=True)
class TreeNeed:
    """The files below (or the one file at) a local path, with their digests. Where they go (`remote`) plays no part."""

    KIND: ClassVar[str] = "tree_need"
    source: LocalSource


@frozen(kw_only=True)
class TextNeed:
    """The text of one small local file (a requirements list, a pyproject.toml), because its content is parsed."""

    KIND: ClassVar[str] = "text_need"
    path: str


@frozen(kw_only=True)
class SecretNeed:
    """The version that this home gives to a secret's present values: 1, then one more at each change."""

    KIND: ClassVar[str] = "secret_need"
    slot: str


@frozen(kw_only=True)
class VolumeNeed:
    """Whether a named volume is there."""

    KIND: ClassVar[str] = "volume_need"
    name: str


@frozen(kw_only=True)
class PythonNeed:
    """Which build of Python `add_python="3.12"` brings."""

    KIND: ClassVar[str] = "python_need"
    version: str


Need = BaseNeed | TreeNeed | TextNeed | SecretNeed | VolumeNeed | PythonNeed


@frozen(kw_only=True)
class BaseFact:
    """`identity` is what the base *is*: for native ("os", "debian 12"), ("python", "3.11.7"), ("arch", "x86_64");
    for docker ("manifest", "sha256:…"). `says` is the line for the plan; `paths` is private to the runtime."""

    KIND: ClassVar[str] = "base_fact"
    identity: tuple[tuple[str, str], ...]
    says: str = field(default="", eq=False)
    paths: tuple[tuple[str, str], ...] = field(default=(), eq=False)


# What a Dockerfile's image stands on here: what its FROMs name are inputs of the layer that it gives.
NOTHING = BaseFact(identity=(("nothing", ""),), says="empty: the first layer is what the Dockerfile gives")


@frozen(kw_only=True)
class FileEntry:
    """One file: its path, its mode bits (0o644 or 0o755), its content. Never its mtime.

    `path` is where it goes in the container; in a `TreeFact` it is relative to the source instead
    ("pkg/a.py"; "" where the source is one file), and the compiler roots it at the source's `remote`.
    """

    KIND: ClassVar[str] = "file"
    path: str
    mode: int
    digest: str  # "sha256:…"; of a symbolic link: "link:<target>"
    size: int = field(default=0, eq=False)
    source: str = field(default="", eq=False)  # the local file it was read from


@frozen(kw_only=True)
class TreeFact:
    KIND: ClassVar[str] = "tree_fact"
    files: tuple[FileEntry, ...]  # sorted by path, which is relative to the source


@frozen(kw_only=True)
class TextFact:
    KIND: ClassVar[str] = "text_fact"
    text: str


@frozen(kw_only=True)
class SecretFact:
    KIND: ClassVar[str] = "secret_fact"
    version: int


@frozen(kw_only=True)
class VolumeFact:
    KIND: ClassVar[str] = "volume_fact"
    exists: bool


@frozen(kw_only=True)
class PythonFact:
    """`resolved` names the build, such as "cpython-3.12.9-linux-x86_64-gnu"; "" where it can't be known here."""

    KIND: ClassVar[str] = "python_fact"
    resolved: str = ""


@frozen(kw_only=True)
class Missing:
    """The need could not be met: why, and the way out. A fault of the plan."""

    KIND: ClassVar[str] = "missing"
    summary: str
    hint: str = ""


Fact = BaseFact | TreeFact | TextFact | SecretFact | VolumeFact | PythonFact | Missing


@frozen(kw_only=True)
class Facts:
    """The world as read once for one plan. `runtime` is "native" or "docker"; `refusals` says what it cannot do here:
    pairs (step or base KIND, reason with the way out), e.g. ("apt_install", "needs root …; or --runtime docker").
    `notes` are limits to report at plan, e.g. ("memory", "memory limit not enforced: …")."""

    KIND: ClassVar[str] = "facts"
    runtime: str
    found: tuple[tuple[Need, Fact], ...] = ()
    refusals: tuple[tuple[str, str], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
