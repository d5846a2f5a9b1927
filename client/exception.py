"""Every error and warning of Slipway's own, and a rehearsal: `from slipway.exception import InputCancellation`."""

from __future__ import annotations

from slipway.dsl.errors import AlreadyExistsError as AlreadyExistsError
from slipway.dsl.errors import AsyncUsageWarning as AsyncUsageWarning
from slipway.dsl.errors import CallCancelled as CallCancelled
from slipway.dsl.errors import CallLost as CallLost
from slipway.dsl.errors import ConnectionError as ConnectionError
from slipway.dsl.errors import DeclarationError as DeclarationError
from slipway.dsl.errors import DeprecationError as DeprecationError
from slipway.dsl.errors import DeserializationError as DeserializationError
from slipway.dsl.errors import EngineLost as EngineLost
from slipway.dsl.errors import Error as Error
from slipway.dsl.errors import ExecutionError as ExecutionError
from slipway.dsl.errors import FunctionTimeoutError as FunctionTimeoutError
from slipway.dsl.errors import ImageBuildError as ImageBuildError
from slipway.dsl.errors import InputCancellation as InputCancellation
from slipway.dsl.errors import InternalError as InternalError
from slipway.dsl.errors import InvalidError as InvalidError
from slipway.dsl.errors import NotFoundError as NotFoundError
from slipway.dsl.errors import OutputExpiredError as OutputExpiredError
from slipway.dsl.errors import PlanError as PlanError
from slipway.dsl.errors import PlanFormatError as PlanFormatError
from slipway.dsl.errors import RemoteError as RemoteError
from slipway.dsl.errors import RuntimeUnavailable as RuntimeUnavailable
from slipway.dsl.errors import SerializationError as SerializationError
from slipway.dsl.errors import StalePlanError as StalePlanError
from slipway.dsl.errors import TimeoutError as TimeoutError
from slipway.dsl.errors import VersionError as VersionError


def simulate_preemption(wait_seconds: float, jitter_seconds: float = 0) -> None:
    """Interrupt this process after so many seconds, as when its machine is taken away: the function gets a
    `KeyboardInterrupt`, exit hooks run, and after 30 s more the process is killed. Its input runs again elsewhere."""
    from .preemption import begin  # who needs it says so

    begin(wait_seconds, jitter_seconds)
