"""The worker program: what runs in a container.

`python main.py [folder of engine.sock] [folder of our own code] [folder of the user's code]`

It needs Python 3.10 or later and nothing installed: our own code lies at /.slipway/lib, behind everything of the
user's, and what that needs (attrs, cloudpickle) is known by names of our own alone: see `package`.
"""

import os
import sys


def _prepare_path(code: str, user: str) -> None:
    """The user's folder first, wherever the process starts; ours last; this file's own, which Python put first, not."""
    lib = os.path.join(code, "lib")  # noqa: PTH118 - before any import
    sys.path[0] = user
    sys.path.insert(0, lib)
    import slipway  # noqa: F401 - ours, even where the image has another one

    sys.path.remove(lib)
    sys.path.append(lib)
    # Programs that the user's code starts find both, too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (user, os.environ.get("PYTHONPATH"), lib)))


if __name__ == "__main__":
    _folder = sys.argv[1] if len(sys.argv) > 1 else "/.slipway/run"
    _code = sys.argv[2] if len(sys.argv) > 2 else "/.slipway"
    _user = sys.argv[3] if len(sys.argv) > 3 else "/root"
    _prepare_path(_code, _user)
    from slipway.executor.worker.serve import main

    main(_folder)
