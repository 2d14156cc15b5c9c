"""nvcc compiles the CUDA engine's kernel for every target, within a recorded budget of registers, spills and shared memory."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNEL = ROOT / "csrc" / "cuda" / "kernel.cu"
TARGETS = {"sm_80": ("compute_80", "sm_80"), "sm_90a": ("compute_90a", "sm_90a")}
REGISTERS = 128  # a thread: two blocks of 256 threads fit a multiprocessor
SHARED = 2048  # bytes of a block beside its task's buffers: two instructions, and sums
# Functions that leave no byte of their registers in memory.
WITHOUT_SPILLS = ("Rows::elementwise", "Updates::update", "Updates::adjoint", "Epilogue::apply_formula")
PRODUCTS = ("Products::product", "Products::outer")
# Of a loop over the contraction of a wide tile between flat samples (16 numbers; 24 products of tensor cores in TF32, or 4 in
# bf16): instructions that ptxas makes of it, those that load a last, partial chunk included; and of one whose weight comes
# through a ring, in copies of these names.
WIDE, LONGEST_LOOP, LONGEST_RING = 28, 500, 390
# How often a loop that multiplies reads or writes registers that it has no room for: sums apart (fragments.h) take some.
SPILLED = {"sm_80": 13, "sm_90a": 2}
COPIES = {"sm_80": "LDGSTS", "sm_90a": "UBLKCP"}


@cache
def built(target: str, folder: Path) -> tuple[str, Path]:
    """What ptxas says of every function, and the machine code."""
    virtual, real = TARGETS[target]
    out = folder / "kernel.cubin"
    command = ["nvcc", "-std=c++20", "-gencode", f"arch={virtual},code={real}", "-I", str(ROOT / "csrc")]
    command += ["--expt-relaxed-constexpr", f'-DPYMGAN_CUDA_TARGETS="{target}"', "-Xptxas", "-v", "-cubin"]
    done = subprocess.run(
        [*command, str(KERNEL), "-o", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    names = subprocess.run(["c++filt"], input=done.stderr, capture_output=True, text=True, check=True)
    return names.stdout, out


def nvdisasm() -> str | None:
    """CUDA's own, or the one that comes with Triton."""
    if found := shutil.which("nvdisasm"):
        return found
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    bundled = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return str(bundled) if bundled.exists() else None


def loops(text: str) -> list[tuple[str, Counter[str]]]:
    """(function, instructions by name) of each loop that multiplies with tensor cores and has no such loop in it."""
    function, labels, code = "", {}, []
    for line in text.splitlines():
        if label := re.match(r"^(\S+):", line):
            labels[label[1]] = len(code)
            function = function if label[1].startswith(".L") else label[1]
        if instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?(.*?);", line):
            code.append((function, bool(instruction[1]), instruction[2]))
    before: list[list[int]] = [[] for _ in code]  # the instructions that each may come after
    back = []
    for i, (_, guarded, text) in enumerate(code):
        name = text.split()[0].split(".")[0]
        target = labels.get(found[1]) if (found := re.search(r"`\((\.L_\S+)\)", text)) else None
        if target is not None and target < len(code) and name in ("BRA", "BSSY"):
            before[target].append(i)
            back += [(target, i)] * (target <= i)
        ends = name in ("EXIT", "RET", "BRX") or text.startswith("BRA `")
        if (guarded or not ends) and i + 1 < len(code) and code[i + 1][0] == code[i][0]:
            before[i + 1].append(i)
    found = []
    for first, last in back:
        body, left = {first}, [last]
        while left:  # all that leads to the jump back without the loop's beginning
            i = left.pop()
            if i not in body:
                body.add(i)
                left += before[i]
        # What else has no predecessor is the function's: this jump back is none of a loop, but into its middle.
        if all(before[i] for i in body - {first}) and any(code[i][2].startswith("HMMA") for i in body):
            found.append(body)
    found = [body for body in found if not any(other < body for other in found)]
    names = [Counter(code[i][2].split()[0].split(".")[0] for i in body) for body in found]
    return [(code[min(body)][0], name) for body, name in zip(found, names, strict=True)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("target", TARGETS)
def test_kernel_within_its_budget(target: str, tmp_path: Path) -> None:
    text, cubin = built(target, tmp_path)
    whole = re.search(r"run\(.*?Used (\d+) registers.*?(\d+) bytes smem", text, re.DOTALL)
    assert whole is not None, text
    assert int(whole[1]) <= REGISTERS
    assert int(whole[2]) <= SHARED
    spilled = dict(
        re.findall(
            r"Function properties for pymgan::cuda::on_device::(\w+::\w+)\(.*?\n.*?(\d+) bytes spill stores",
            text,
        )
    )
    assert {name: spilled.get(name) for name in WITHOUT_SPILLS} == dict.fromkeys(WITHOUT_SPILLS, "0")
    assert set(PRODUCTS) <= set(spilled)
    tool = nvdisasm()
    if tool is None:
        pytest.skip("no nvdisasm for the loops")
    code = subprocess.run([tool, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    found = loops(code)
    assert len(found) >= 6
    assert not [(name, names) for name, names in found if names["LDL"] + names["STL"] > SPILLED[target]]
    wide = [sum(names.values()) for _, names in found if names["HMMA"] == WIDE]
    assert min(wide) <= LONGEST_LOOP
    rings = [names for _, names in found if names[COPIES[target]]]
    # Wide tiles and narrow ones, of the weight's rows and of its columns, which are read where they arrive.
    assert len(rings) == 4
    assert all(names["LDS"] for names in rings)
    assert max(sum(names.values()) for names in rings) <= LONGEST_RING
