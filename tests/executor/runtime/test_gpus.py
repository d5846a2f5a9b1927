"""GPUs: what a child says of them, and which device files a container gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attr
import pytest

from slipway.executor.runtime import gpus
from slipway.executor.runtime.gpus import Found, Gpu


def child(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def test_the_child_s_answer_is_read() -> None:
    answer = json.dumps({"gpus": [["GPU-1", "H200", 143771]], "reason": ""})
    found = gpus.find(program=child(f"print({answer!r})"))
    assert found == Found(gpus=(Gpu(uuid="GPU-1", name="H200", memory_mib=143771),))


def test_a_driver_that_hangs_is_given_up() -> None:
    found = gpus.find(deadline=0.2, program=child("import signal; signal.pause()"))
    assert found == Found(reason="the NVIDIA driver gave no answer within 0.2 s")


def test_a_child_that_dies_is_a_reason() -> None:
    assert gpus.find(program=child("raise SystemExit(3)")).reason.startswith("asking the NVIDIA driver failed")
    assert gpus.find(program=child("print('no json')")).reason.startswith("asking the NVIDIA driver failed")


def test_the_real_child_answers() -> None:
    found = gpus.find()
    assert found.gpus or found.reason


def test_a_container_gets_the_files_of_its_gpus_only(tmp_path: Path) -> None:
    dev, proc = tmp_path / "dev", tmp_path / "proc"
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps/cap1"):
        (dev / name).parent.mkdir(parents=True, exist_ok=True)
        (dev / name).touch()
    for number, uuid in enumerate(("GPU-a", "GPU-b")):
        (proc / f"0000:0{number}:00.0").mkdir(parents=True)
        (proc / f"0000:0{number}:00.0" / "information").write_text(
            f"Model: \t NVIDIA H200\nGPU UUID: \t {uuid}\nDevice Minor: \t {number}\n"
        )
    common = [str(dev / name) for name in ("nvidiactl", "nvidia-uvm")]
    caps = [str(dev / "nvidia-caps/cap1")]
    assert gpus.device_files(("GPU-b",), dev=dev, proc=proc) == (*common, str(dev / "nvidia1"), *caps)
    everything = (*common, str(dev / "nvidia0"), str(dev / "nvidia1"), *caps)
    assert gpus.device_files(("MIG-x",), dev=dev, proc=proc) == everything
    assert gpus.device_files((), dev=dev, proc=proc) == ()


NVML = """
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
static int device[2];
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = &device[index]; return index > 1; }
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) { memory->total = 16ull << 30; return 0; }
int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
    strncpy(uuid, handle == &device[0] ? "GPU-first" : "GPU-second", length); return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
    strncpy(name, handle == &device[0] ? "Tesla T4" : "NVIDIA L40S", length); return 0;
}
const char *nvmlErrorString(int result) { return "a fake knows no errors"; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make a fake libnvidia-ml.so with")
def test_what_the_driver_s_library_says_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}")
    # By its file and beside its packages: not every Python that runs this test has Slipway installed.
    monkeypatch.setenv("PYTHONPATH", str(Path(attr.__file__).parents[1]))
    found = gpus.find(program=(sys.executable, gpus.__file__))
    assert found.reason == ""
    assert found.gpus == (
        Gpu(uuid="GPU-first", name="Tesla T4", memory_mib=16384),
        Gpu(uuid="GPU-second", name="NVIDIA L40S", memory_mib=16384),
    )
