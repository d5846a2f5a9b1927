"""The program `slipway`. It imports no more than what is asked for: for `apply` alone not even the command line."""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for an error, 2 for wrong usage."""
    _open_streams()
    try:
        _stand_somewhere()
        # What is said most often, and mostly changes nothing: click alone takes longer than the engine does then.
        if (sys.argv[1:] if argv is None else argv) == ["apply"]:
            from .carry_out import apply_last

            return apply_last()
        from .commands import run

        return run(argv)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever went wrong is told in one place
        from .failure import report

        return report(error)


def _open_streams() -> None:
    """Put one that leads nowhere where a standard stream is closed: else the next file opened takes its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for the whole run


def _stand_somewhere() -> None:
    """Files are named from the folder where the user stands. One that was removed names nothing."""
    try:
        os.getcwd()  # noqa: PTH109 - no pathlib here, for a quick start
    except FileNotFoundError:
        from slipway.dsl.errors import NotFoundError

        os.chdir("/")  # what tells of it looks at paths too
        raise NotFoundError("the folder that you are in was removed", hint="Go to one that is there: cd") from None


if __name__ == "__main__":
    sys.exit(main())
