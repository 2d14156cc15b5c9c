"""nvcc compiles the CUDA engine's kernel for every target, within a recorded budget of registers, spills and shared memory."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ROOT / "csrc" / "cuda" / "kernel.cu"
TARGETS = {"sm_80": ("compute_80", "sm_80"), "sm_90a": ("compute_90a", "sm_90a")}
REGISTERS = 128  # a thread: two blocks of 256 threads fit a multiprocessor
SHARED = 2048  # bytes of a block beside its temps: a double a thread
# Functions in which the arithmetic is: not a byte may spill.
HOT = ("Products::product", "Products::outer", "Rows::elementwise", "Updates::update", "Updates::adjoint")


def report(target: str, out: Path) -> str:
    """What ptxas says of every function."""
    virtual, real = TARGETS[target]
    command = ["nvcc", "-std=c++20", "-gencode", f"arch={virtual},code={real}", "-I", str(ROOT / "csrc")]
    command += ["--expt-relaxed-constexpr", "-Xptxas", "-v", "-c", str(KERNEL), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    names = subprocess.run(["c++filt"], input=done.stderr, capture_output=True, text=True, check=True)
    return names.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("target", TARGETS)
def test_kernel_within_its_budget(target: str, tmp_path: Path) -> None:
    text = report(target, tmp_path / "kernel.o")
    whole = re.search(r"run\(.*?Used (\d+) registers.*?(\d+) bytes smem", text, re.DOTALL)
    assert whole is not None, text
    assert int(whole[1]) <= REGISTERS
    assert int(whole[2]) <= SHARED
    spilled = dict(
        re.findall(
            r"Function properties for pymgan::cuda::(\w+::\w+)\(.*?\n.*?(\d+) bytes spill stores", text
        )
    )
    assert set(HOT) <= set(spilled), f"expected {HOT} among {sorted(spilled)}"
    assert {name: spilled[name] for name in HOT} == dict.fromkeys(HOT, "0")
