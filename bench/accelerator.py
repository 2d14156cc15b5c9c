"""What is measured on the device itself: its ceilings, kernels launched, memory, occupancy, the versions of what drives it.

Every function takes the device and works on the CPU too, where it says less: tests run there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .cases import Step

PRODUCT = 8192  # rows and columns of the product that is the ceiling of arithmetic
COPY = 2**30  # bytes of the copy that is the ceiling of memory
REPEATS = 7  # of each


class Ceilings(NamedTuple):
    """What the device reaches in its best case: float32 and TF32 products in TFLOP/s, a copy in GB/s (read and written)."""

    matmul_tflops: float
    matmul_tf32_tflops: float
    copy_gb_s: float


def prepare(device: str) -> None:
    """Full float32 precision: no TF32, which cuDNN uses unless it is told not to."""
    if device != "cpu":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def synchronise(device: str) -> None:
    """Waits for all that is queued, by JAX too: it has the same context."""
    if device != "cpu":
        torch.cuda.synchronize()


def finished(step: Step, device: str) -> Step:
    """`step` as the bench wants it: nothing is queued when it returns, and what is read lies on the CPU."""
    if device == "cpu":
        return step

    def run() -> Any:
        result = step.run()
        synchronise(device)
        return result

    return Step(run=run, read=lambda result: step.read(result).cpu())


def ceilings(device: str, product: int = PRODUCT, copied: int = COPY, repeats: int = REPEATS) -> Ceilings:
    """Measures them; numbers are random, since products of zeros take less power and so less time.

    Args:
        device: "cpu" or "cuda".
        product: rows and columns of the square matrices.
        copied: bytes of what is copied.
        repeats: of each, of which the median counts, after one that does not.
    """
    a, b = torch.randn(2, product, product, device=device)
    out = torch.empty_like(a)
    source = torch.empty(copied // 4, device=device).normal_()
    target = torch.empty_like(source)

    def seconds(run: Callable[[], Any]) -> float:
        times = []
        for _ in range(repeats + 1):
            synchronise(device)
            started = time.perf_counter()
            run()
            synchronise(device)
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    tflop = 2 * product**3 / 1e12
    exact = tflop / seconds(lambda: torch.mm(a, b, out=out))
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        tf32 = tflop / seconds(lambda: torch.mm(a, b, out=out))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    return Ceilings(exact, tf32, 2 * source.nbytes / 1e9 / seconds(lambda: target.copy_(source)))


def release(device: str) -> None:
    """Gives back what torch keeps of freed memory."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def peak_bytes(device: str) -> int | None:
    """The most device memory that torch and JAX, if it was imported, have allocated in this process; None on the CPU.

    Allocated, not reserved: what an allocator keeps for later is not counted.
    """
    if device == "cpu":
        return None
    most = torch.cuda.max_memory_allocated()
    if (jax := sys.modules.get("jax")) is not None:
        stats = jax.devices("gpu")[0].memory_stats() or {}
        most += stats.get("peak_bytes_in_use", 0)
    return int(most)


def trace(run: Callable[[], Any], device: str, path: Path, *, host: bool = True) -> None:
    """One call under torch's profiler, as a chrome trace in `path`; on a device, without `host`, of that device alone."""
    kinds = [torch.profiler.ProfilerActivity.CPU] if host or device == "cpu" else []
    if device != "cpu":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profiled:
        run()
        synchronise(device)
    profiled.export_chrome_trace(str(path))


def kernels(path: Path) -> int:
    """Kernels on the device in a chrome trace; copies and fills by the driver are none."""
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return sum(event.get("cat") == "kernel" for event in events)


def launches(run: Callable[[], Any], device: str, path: Path | None = None) -> int | None:
    """Kernels that one call runs, also from a CUDA graph; None on the CPU, or where the profiler saw none (of JAX, say).

    Args:
        run: the call.
        device: "cpu" or "cuda".
        path: where the chrome trace that they are counted in is to be left, if anywhere.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = path or Path(folder, "trace.json")
        trace(run, device, written, host=path is not None)
        return kernels(written) or None


def occupancy(engine: Any) -> dict[str, float] | None:
    """What an engine says of its kernel, such as {"registers": 128, "shared_bytes": 2048, "occupancy": 0.25}; None: nothing."""
    says = getattr(engine, "occupancy", None)
    return None if says is None else dict(says())


def describe(device: str) -> dict[str, str]:
    """The device's name, and the versions of its driver and of CUDA; "" for what is not known."""
    if device == "cpu":
        return {"name": "cpu", "driver": "", "cuda": ""}
    return {
        "name": torch.cuda.get_device_name(),
        "driver": _driver(),
        "cuda": torch.version.cuda or "",
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.splitlines()[0].strip() if said.strip() else ""


@contextlib.contextmanager
def watched(device: str) -> Iterator[None]:
    """Between cudaProfilerStart and cudaProfilerStop, which ncu can be told to wait for."""
    if device == "cpu":
        yield
        return
    synchronise(device)
    with torch.cuda.profiler.profile():
        yield
        synchronise(device)
