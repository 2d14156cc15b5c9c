"""What is said of the machine: its name, its cores, who else uses it, memory of this process, the checkout's commit.

Imports no library that starts threads, so that `use_cores` can come first.
"""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Confines this process and its children to `count` cores, where the system can (Linux).

    To be called before any library starts its threads: they all size their pools by what the process may use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


@contextlib.contextmanager
def empty_caches() -> Iterator[None]:
    """Within it compilers find nothing that an earlier run left on the disk, so that a first call is one.

    What a process started within it compiles is found by the others: who was tried there need not be compiled again here.
    """
    names = ("TORCHINDUCTOR_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "TRITON_CACHE_DIR")
    own = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        # Who names a folder for Triton's shares it on purpose (bench/device.py, between a run and its profile).
        os.environ.setdefault("TRITON_CACHE_DIR", str(Path(folder, "triton")))
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # JAX keeps nothing unless it is told to
        try:
            yield
        finally:
            for name, value in own.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def memory_level() -> float | None:
    """Bytes of memory that this process holds now, and from here on `memory_peak` counts; None where it can't be known.

    The peak cannot be ``ru_maxrss`` of a process started for the purpose: Linux lets that begin at the memory of the
    process that started it. The kernel's high-water mark of the address space can be reset instead.
    """
    if sys.platform != "linux":
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # a sandbox may forbid it
        return None
    return _status("VmRSS")


def memory_peak() -> float:
    """Bytes: the most memory that this process held since `memory_level`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field + ":")]
    return float(line.split()[1]) * 1024


def load() -> tuple[float, float, float]:
    """(seconds by the clock, seconds of all cores at work, seconds of this process); the second is 0 off Linux."""
    stat = Path("/proc/stat")
    work = 0.0
    if stat.exists():
        user, nice, system = map(int, stat.read_text().split(maxsplit=4)[1:4])
        work = (user + nice + system) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return time.perf_counter(), work, times.user + times.system


def others(start: tuple[float, float, float], end: tuple[float, float, float]) -> float:
    """Cores that other processes kept busy between two readings of `load`."""
    clock, work, own = (b - a for a, b in zip(start, end, strict=True))
    return max(0.0, (work - own) / clock) if work else 0.0


def device() -> str:
    """The processor's name and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return f"{name}, {cores()} cores"


def commit() -> str:
    """The checkout's commit, with a + when files differ from it; "" outside of git."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
