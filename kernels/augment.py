"""Augmentation of samples (csrc/augmentation.h) and its adjoint: either is a gather."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from .launch import block, cdiv, stride

__all__ = ["Augmentation", "augment"]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a sample, and how samples lie.

    Attributes:
        brightness, translation, cutout: whether; their numbers stand in this order in a sample's row of numbers.
        channels: of a sample; extents: int32 [D].
        by_site: a site's channels are neighbours, not a channel's sites.
    """

    brightness: bool
    translation: bool
    cutout: bool
    channels: int
    extents: Tensor
    by_site: bool


@triton.jit
def _augment(
    x,  # [T, rows, elements]
    x_task,
    numbers,  # [T, rows, width]
    numbers_task,
    extents,  # [DIMENSIONS]
    out,  # [T, rows, elements]
    out_task,
    rows,
    elements,
    sites,
    channels,
    width,
    BRIGHTNESS: tl.constexpr,
    TRANSLATION: tl.constexpr,
    CUTOUT: tl.constexpr,
    BY_SITE: tl.constexpr,
    DIMENSIONS: tl.constexpr,
    ADJOINT: tl.constexpr,
    BRIGHTER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    task = tl.program_id(0).to(tl.int64)
    both = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = both < rows * elements
    row, at = both // elements, both % elements
    numbers += task * numbers_task + row * width
    if BY_SITE:
        site, channel = at // channels, at % channels
    else:
        site, channel = at % sites, at // sites
    # Of each site, the one that it shows; of the adjoint, the one that shows it. What is covered is what shows.
    source, size, inside = site * 0, 1, ok
    covered = inside
    for back in tl.static_range(DIMENSIONS):
        d: tl.constexpr = DIMENSIONS - 1 - back
        extent = tl.load(extents + d)
        here = site % extent
        site = site // extent
        there = here
        if TRANSLATION:
            shift = tl.load(numbers + BRIGHTNESS + d, mask=ok, other=0.0).to(tl.int32)
            there = here + shift if ADJOINT else here - shift
        inside = inside & (there >= 0) & (there < extent)
        source += there * size
        size *= extent
        if CUTOUT:
            block = (extent + 1) // 2
            first = tl.load(numbers + BRIGHTNESS + DIMENSIONS * TRANSLATION + d, mask=ok, other=0.0)
            first = first.to(tl.int32) - block // 2
            showing = there if ADJOINT else here
            covered = covered & (showing >= first) & (showing < first + block)
    if CUTOUT:
        inside = inside & (covered == 0)
    source = source * channels + channel if BY_SITE else channel * sites + source
    y = tl.load(x + task * x_task + row * elements + source, mask=inside, other=0.0)
    if BRIGHTER:
        y = tl.where(inside, y + tl.load(numbers, mask=ok, other=0.0), y)
    tl.store(out + task * out_task + both, y, mask=ok)


def augment(
    x: Tensor, numbers: Tensor, how: Augmentation, out: Tensor, *, adjoint: bool, brighter: bool
) -> None:
    """out = A x, or A^T x, of samples [T, rows, elements] with numbers [T, rows, width]; brighter: A (x + b)."""
    tasks, rows, elements = x.shape
    size = block(rows * elements)
    _augment[(tasks, cdiv(rows * elements, size))](
        x, stride(x), numbers, stride(numbers), how.extents, out, stride(out), rows, elements,
        elements // how.channels, how.channels, numbers.shape[2], BRIGHTNESS=int(how.brightness),
        TRANSLATION=int(how.translation), CUTOUT=int(how.cutout), BY_SITE=how.by_site,
        DIMENSIONS=how.extents.numel(), ADJOINT=adjoint, BRIGHTER=brighter, BLOCK=size,
    )  # fmt: skip
