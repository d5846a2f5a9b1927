"""NVIDIA GPUs: which there are (NVML, in a child that can be killed) and their device files. The only importer of NVML.

NVML probes can hang in the driver, so they never run in the engine: `python -m slipway.executor.runtime.gpus` prints
what it finds as JSON, and who asks has a deadline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from attrs import frozen

DEADLINE_SECONDS = 10.0


@frozen(kw_only=True)
class Gpu:
    uuid: str
    name: str
    memory_mib: int


@frozen(kw_only=True)
class Found:
    """The GPUs, or in words why none can be used."""

    gpus: tuple[Gpu, ...] = ()
    reason: str = ""


def find(deadline: float = DEADLINE_SECONDS, program: tuple[str, ...] | None = None) -> Found:
    """Ask a child for the GPUs. Blocks up to the deadline: call it in a thread."""
    argv = program or (sys.executable, "-m", "slipway.executor.runtime.gpus")
    try:
        done = subprocess.run(argv, capture_output=True, timeout=deadline, check=True)
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return Found(reason=f"the NVIDIA driver gave no answer within {deadline:g} s")
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Found(reason=f"asking the NVIDIA driver failed: {error}")
    gpus = tuple(Gpu(uuid=uuid, name=name, memory_mib=memory) for uuid, name, memory in answer["gpus"])
    return Found(gpus=gpus, reason=answer["reason"])


def ask() -> dict[str, object]:
    """What NVML says; in the child only."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"gpus": [], "reason": str(error)}
    gpus = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20
        gpus.append((_text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle)), memory))
    return {"gpus": gpus, "reason": ""}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def device_files(
    uuids: tuple[str, ...], *, dev: Path = Path("/dev"), proc: Path = Path("/proc/driver/nvidia/gpus")
) -> tuple[str, ...]:
    """The device files for these GPUs, and those that every user of the driver needs. A UUID that the driver does not
    list (a slice of a GPU, say) opens all of them.

    >>> device_files(())
    ()
    """
    if not uuids:
        return ()
    minors = _minors(proc)
    names = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"]
    if all(uuid in minors for uuid in uuids):
        names += [f"nvidia{minors[uuid]}" for uuid in uuids]
    else:
        names += sorted(path.name for path in dev.glob("nvidia[0-9]*"))
    found = [str(dev / name) for name in names if os.path.lexists(dev / name)]
    caps = sorted(str(path) for path in (dev / "nvidia-caps").glob("*"))
    return (*found, *caps)


def _minors(proc: Path) -> dict[str, str]:
    minors = {}
    for file in proc.glob("*/information"):
        fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        values = {key.strip(): value.strip() for key, value in fields.items()}
        if "GPU UUID" in values and "Device Minor" in values:
            minors[values["GPU UUID"]] = values["Device Minor"]
    return minors


if __name__ == "__main__":
    print(json.dumps(ask()))  # noqa: T201 - the child's answer
