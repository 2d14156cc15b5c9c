"""What the oracle gives D instead of samples: augmented (Zhao et al. 2020, arXiv 2006.10738), then with instance noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pymgan.contract import Rng
from pymgan.gan import GAN
from pymgan.noise import normals

__all__ = ["Disturbance", "disturb", "draw"]

_UNIFORM, _NOISE = 2**16 - 2, 2**16 - 3  # streams


class Disturbance(NamedTuple):
    """The numbers of one step, of one task or [T, ...].

    Attributes:
        uniform: float64 [max(fakes, reals), n]; row i is of generated sample i and of real sample i.
        noise: standard normals [fakes + reals, *sample], G's samples first; [0] where none is added.
    """

    uniform: Tensor
    noise: Tensor


def draw(
    gan: GAN, rng: Rng, steps: Sequence[int], fakes: int, reals: int, sample: tuple[int, ...]
) -> Disturbance:
    """The numbers of the tasks of `rng`, each at its own step."""
    counts = {"brightness": 1, "translation": len(sample) - 1, "cutout": len(sample) - 1}
    shape = max(fakes, reals), sum(counts[name] for name in gan.augment)
    z = _normals(rng, steps, _UNIFORM, shape)
    noise = _normals(rng, steps, _NOISE, (fakes + reals, *sample) if gan.instance_noise else (0,))
    return Disturbance(torch.special.ndtr(z), noise)


def _normals(rng: Rng, steps: Sequence[int], stream: int, shape: tuple[int, ...]) -> Tensor:
    rows = [
        normals(rng.seed, int(task), step, stream, math.prod(shape))
        for task, step in zip(rng.tasks, steps, strict=True)
    ]
    return torch.from_numpy(np.stack(rows)).view(len(rows), *shape)


def disturb(gan: GAN, x: Tensor, fakes: int, numbers: Disturbance) -> Tensor:
    """What D is given of one batch x [B, *sample], the first `fakes` of which are G's."""
    uniform = torch.cat((numbers.uniform[:fakes], numbers.uniform[: len(x) - fakes]))
    extents, at = x.shape[2:], 0
    for name in gan.augment:
        if name == "brightness":
            x = x + _along(uniform[:, :1] - 0.5, x, 1).to(x.dtype)
            at += 1
            continue
        each = uniform[:, at : at + len(extents)]
        x = translate(x, each) if name == "translation" else cut_out(x, each)
        at += len(extents)
    return x + gan.instance_noise * numbers.noise.to(x.dtype) if gan.instance_noise else x


def translate(x: Tensor, uniform: Tensor) -> Tensor:
    """Every dimension d moved by the same chance -r, ..., r, r = extent / 8 rounded (half up); uniform [B, d]."""
    for d, extent in enumerate(x.shape[2:]):
        farthest = math.floor(extent / 8 + 0.5)
        shift = _choice(uniform[:, d], 2 * farthest + 1) - farthest
        origin = torch.arange(extent, device=x.device) - shift[:, None]
        moved = x.gather(2 + d, _along(origin.clamp(0, extent - 1), x, 2 + d).expand(x.shape))
        x = torch.where(_along((origin >= 0) & (origin < extent), x, 2 + d), moved, 0.0)
    return x


def cut_out(x: Tensor, uniform: Tensor) -> Tensor:
    """Zeros in a block of half of every extent (rounded up), as much of it as lies inside; uniform [B, d] places its centre.

    That is a site, or for a block of even size between two, or at an end.
    """
    covered = torch.ones((), dtype=torch.bool, device=x.device)
    for d, extent in enumerate(x.shape[2:]):
        size = math.ceil(extent / 2)
        first = _choice(uniform[:, d], extent if size % 2 else extent + 1) - size // 2
        after = torch.arange(extent, device=x.device) - first[:, None]
        covered = covered & _along((after >= 0) & (after < size), x, 2 + d)
    return torch.where(covered, 0.0, x)


def _choice(uniform: Tensor, choices: int) -> Tensor:
    """0, ..., choices - 1, int64."""
    return (uniform * choices).floor().long().clamp(max=choices - 1)


def _along(values: Tensor, x: Tensor, dimension: int) -> Tensor:
    """[B, n] as it broadcasts with x, n along `dimension`."""
    return values.view(len(values), *[-1 if d == dimension else 1 for d in range(1, x.ndim)])
