"""What functions, classes and their objects have in common: workers, which can be looked at, counted and varied."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .dual import Twins, twin_of
from .errors import DeprecationError
from .origin import here

if TYPE_CHECKING:
    from typing import Self, Unpack

    from .autoscaler import Autoscaler, FunctionStats
    from .session import FunctionRef, Session
    from .variant import Variant, VariantArguments


class Scaled:
    """Something with workers. `name` is that of the function or class, `title` is what to call it in a message."""

    name: str
    method: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}.{self.method}" if self.method else self.name

    def target(self, what: str) -> tuple[Session, FunctionRef]:
        """The session to act through, and what to ask it for."""
        raise NotImplementedError

    @cached_property
    def autoscaler(self) -> Autoscaler:
        """How many workers there may be: `settings()` tells, `update(...)` changes it until the next deployment."""
        from .autoscaler import Autoscaler  # here, since a worker's start is to be quick

        return Autoscaler(self)

    @property
    def update_autoscaler(self) -> Twins[..., None]:
        """The older name of `autoscaler.update`."""
        place = here()
        text = f"{self.title}.update_autoscaler(...) is called {self.title}.autoscaler.update(...) now"
        warnings.warn_explicit(text, DeprecationError, place.file, place.line)
        return self.autoscaler.update

    async def _get_current_stats_aio(self) -> FunctionStats:
        from .autoscaler import stats_of

        session, ref = self.target("get_current_stats")
        return stats_of(await session.ask_of_aio(ref, "function.stats", {}))

    @twin_of(_get_current_stats_aio)
    def get_current_stats(self) -> FunctionStats:
        """How many inputs wait and run now, and in how many workers."""
        from .autoscaler import stats_of

        session, ref = self.target("get_current_stats")
        return stats_of(session.ask_of(ref, "function.stats", {}))

    async def _hydrate_aio(self, client: object = None) -> Any:
        session, ref = self.target("hydrate")
        await session.ask_of_aio(ref, "function.stats", {})
        return self

    @twin_of(_hydrate_aio)
    def hydrate(self, client: object = None) -> Any:
        """Look it up now, not when it is first called, and return it. Raises `NotFoundError`."""
        session, ref = self.target("hydrate")
        session.ask_of(ref, "function.stats", {})
        return self


class Varying:
    """A function or class that can be had with other options, and so with workers of its own.

    >>> from slipway.dsl.cls import Cls
    >>> Cls.from_name("search", "Model").with_options(gpu="A100", max_containers=2)
    <Cls Model of search>
    """

    variant: Variant | None

    def with_options(self, **options: Unpack[VariantArguments]) -> Self:
        """The same with other options. What isn't given, or None, stays as it is."""
        from . import variant  # here, since a worker's start is to be quick

        return self._varied(variant.with_options(self.variant, **options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Self:
        """The same with so many inputs at once in each worker, as `@slipway.concurrent` says it."""
        from . import variant

        return self._varied(variant.with_concurrency(self.variant, max_inputs=max_inputs, target_inputs=target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Self:
        """The same with its inputs (of a class, those of its one method) in batches, as `@slipway.batched` says it."""
        from . import variant

        return self._varied(variant.with_batching(self.variant, max_batch_size=max_batch_size, wait_ms=wait_ms))

    def _varied(self, variant: Variant) -> Self:
        raise NotImplementedError
