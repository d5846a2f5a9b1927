"""Run by a Python that was just copied to /usr/local of an image: makes it at home there. Standard library only.

`python finish_python.py FROM`: FROM is the folder that it was copied from.
"""

import compileall
import os
import py_compile
import runpy
import sys
from pathlib import Path

PREFIX = Path(sys.prefix)
PIP = """#!{python}
import sys

from pip._internal.cli.main import main

sys.exit(main())
"""


def own(source: Path) -> None:
    """Everything belongs to root, whoever fetched it; what was not copied is left alone."""
    for top, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = PREFIX / Path(top, name).relative_to(source)
            status = path.lstat()
            if (status.st_uid, status.st_gid) != (0, 0):
                os.lchown(path, 0, 0)


def settle() -> None:
    """What says where Python lies says where it lies now."""
    library = PREFIX / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    data = tuple(library.glob("_sysconfigdata*.py"))
    homes = {str(Path(runpy.run_path(str(path))["build_time_vars"]["BINDIR"]).parent) for path in data}
    for path in (*data, *(PREFIX / "lib" / "pkgconfig").glob("python*.pc")):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        times = path.stat()
        for home in homes:
            text = text.replace(home, str(PREFIX))
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    compileall.compile_dir(library, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)


def name() -> None:
    """`python`, `python3` and `pip`, whatever names came along."""
    short = f"{sys.version_info.major}.{sys.version_info.minor}"
    program = PREFIX / "bin" / f"python{short}"
    for link in ("python", "python3"):
        path = PREFIX / "bin" / link
        path.unlink(missing_ok=True)
        path.symlink_to(program.name)
    for pip in ("pip", "pip3", f"pip{short}"):
        path = PREFIX / "bin" / pip
        path.unlink(missing_ok=True)
        path.write_text(PIP.format(python=program))
        path.chmod(0o755)


if __name__ == "__main__":
    own(Path(sys.argv[1]))
    settle()
    name()
