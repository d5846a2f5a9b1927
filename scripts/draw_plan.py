"""Draw docs/plan.svg: apply the search example in a home of its own, change it, and draw the plan of the change."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "plan.svg"
EDITS = (
    (
        '.pip_install("scikit-learn")',
        '.run_commands("date > /built").pip_install("scikit-learn").env({"OMP_NUM_THREADS": "2"})',
    ),
    ('.pip_install("scikit-learn")', '.pip_install("scikit-learn", "scipy<2")'),
    ("DIMENSIONS = 200", "DIMENSIONS = 300"),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as top:
        env = {**os.environ, "SLIPWAY_HOME": f"{top}/home", "COLUMNS": "100", "FORCE_COLOR": "1"}
        env.pop("NO_COLOR", None)

        def slipway(*words: str) -> str:
            argv = [str(Path(sys.executable).with_name("slipway")), *words]
            return subprocess.run(argv, cwd=top, env=env, check=True, capture_output=True, text=True).stdout

        text = (ROOT / "examples" / "search.py").read_text()
        app = Path(top) / "search.py"
        app.write_text(text.replace(*EDITS[0]))
        try:
            slipway("apply", "search.py", "--yes")
            for before, after in EDITS:
                text = text.replace(before, after)
            app.write_text(text)
            shown = slipway("plan", "search.py")
        finally:
            slipway("down", "--now")
    PICTURE.write_text(drawn(f"$ slipway plan search.py\n{shown}"))
    print(PICTURE)


def drawn(text: str) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text.rstrip()))
    svg = console.export_svg(title="search.py", theme=MONOKAI, unique_id="plan")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # a picture fetches nothing


if __name__ == "__main__":
    main()
