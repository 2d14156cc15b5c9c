"""How kernels are launched: strides of operands, block sizes, and a search for the fastest of them on a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import triton
from torch import Tensor

__all__ = ["INTERPRETED", "PRECISION", "Blocks", "Tuned", "block", "cdiv", "fitting", "stride"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PRECISION = "ieee"
"""Of matrix products in float32: exact products. "tf32x3" and "tf32" are what tensor cores can do."""


def cdiv(n: int, size: int) -> int:
    """Blocks of a size that cover n."""
    return -(-n // size)


def block(n: int, most: int = 1024, least: int = 16) -> int:
    """The power of two that covers n, within bounds."""
    return int(max(least, min(most, triton.next_power_of_2(max(n, 1)))))


def stride(x: Tensor | None) -> int:
    """Elements between tasks; of an absent operand any number."""
    return 0 if x is None else x.stride(0)


@dataclass(frozen=True)
class Blocks:
    """A tile of a matrix product: rows, columns, how much is contracted at once; warps and stages of its pipeline."""

    rows: int
    columns: int
    depth: int
    warps: int = 4
    stages: int = 3


def fitting(rows: int, columns: int) -> Blocks:
    """The tile for a product [rows, columns] of each task: no larger than it needs to be, and a function of these sizes alone.

    So which bits come out depends neither on a clock nor on how many tasks there are, and each product is compiled once.
    """
    tile = Blocks(block(rows, 64), block(columns, 64), 32)
    return replace(tile, warps=2) if tile.rows * tile.columns <= 1024 else tile


CANDIDATES = (
    Blocks(16, 64, 32, 2),
    Blocks(32, 32, 32, 2),
    Blocks(32, 64, 32),
    Blocks(64, 32, 32),
    Blocks(64, 64, 32),
    Blocks(64, 64, 16),
    Blocks(64, 128, 32, 8),
    Blocks(128, 128, 16, 8),
)


@dataclass
class Tuned:
    """Picks the blocks of one kernel: `fitting`, or, where ``PYMGAN_TRITON_TUNE=1``, the fastest of `CANDIDATES` for each key.

    To measure takes minutes of compiling in each process, so it is a tool for whoever looks for a better rule.

    Attributes:
        fixed: under the interpreter, where a program is slow and its size hardly matters.
    """

    fixed: Blocks = field(default_factory=lambda: Blocks(64, 64, 64))
    best: dict[Hashable, Blocks] = field(default_factory=dict)

    def __call__(
        self,
        key: Hashable,
        size: tuple[int, int],
        launch: Callable[[Blocks], object],
        written: Sequence[Tensor],
    ) -> None:
        """Launches with the blocks that are picked.

        Args:
            key: what the fastest choice depends on, such as the shapes.
            size: rows and columns of a task's product.
            launch: launches the kernel once.
            written: tensors that it writes, perhaps adding to them: as they were after every trial.

        Raises:
            RuntimeError: none of the candidates can be launched.
        """
        if INTERPRETED:
            launch(self.fixed)
            return
        if os.environ.get("PYMGAN_TRITON_TUNE") != "1":
            launch(fitting(*size))
            return
        # A CUDA graph is captured after a run without, so nothing is measured while one is.
        if key not in self.best:
            before = [x.clone() for x in written]
            times = {blocks: _time(partial(launch, blocks)) for blocks in CANDIDATES}
            self.best[key] = min(times, key=lambda blocks: times[blocks])
            if times[self.best[key]] == float("inf"):
                raise RuntimeError(
                    f"expected one of {len(times)} tiles to run on this device, got none, for {key}"
                )
            for x, old in zip(written, before, strict=True):
                x.copy_(old)
        launch(self.best[key])


def _time(launch: Callable[[], object]) -> float:
    """Milliseconds; infinite where the device has not enough of something for such blocks, or they cannot be compiled."""
    try:
        launch()
        torch.cuda.synchronize()
    except triton.runtime.errors.TritonError:
        return float("inf")
    return float(triton.testing.do_bench(launch, warmup=2, rep=10, return_mode="median"))
