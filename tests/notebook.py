"""A Jupyter kernel, with cells run in it as a notebook would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType

# The client of a kernel is a program of its own too: it leaves nothing behind, and warns of what it likes.
FRONT_END = """
import json, sys, tempfile
from jupyter_client.manager import KernelManager

with tempfile.TemporaryDirectory() as folder:
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/k")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    said = []

    def on_output(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            said.append(content["text"])
        elif message["msg_type"] == "error":
            said.append("\\n".join(content["traceback"]))
        elif message["msg_type"] == "execute_result":
            said.append(content["data"]["text/plain"] + "\\n")

    for line in sys.stdin:
        reply = client.execute_interactive(json.loads(line), timeout=120, output_hook=on_output)
        print(json.dumps({"status": reply["content"]["status"], "said": "".join(said)}), flush=True)
        said.clear()
    client.stop_channels()
    manager.shutdown_kernel()
"""


class Notebook:
    """Cells run one after the other in one kernel, whose folder is `folder`."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FRONT_END],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, cell: str, *, fails: bool = False) -> str:
        """What a cell prints, and how it failed where it should."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(cell) + "\n")
        process.stdin.flush()
        reply = json.loads(process.stdout.readline())
        assert reply["status"] == ("error" if fails else "ok"), reply["said"]
        return str(reply["said"])

    def __enter__(self) -> Notebook:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()
