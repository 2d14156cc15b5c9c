"""Augmentation as the torch engine does it, over tasks and samples at once: where each site comes from, then one gather."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["augmentation_choices", "augmentation_numbers", "augmented"]


def augmentation_choices(augmentation: Any, extents: list[int]) -> tuple[list[int], list[int]]:
    """Of each place among a sample's numbers, after its brightness: how many there are to choose from, and the least."""
    choices, least = [], []
    if augmentation.translation:
        farthest = [(extent + 4) // 8 for extent in extents]
        choices += [2 * r + 1 for r in farthest]
        least += [-r for r in farthest]
    if augmentation.cutout:
        choices += [extent + 1 - (extent + 1) // 2 % 2 for extent in extents]
        least += [0] * len(extents)
    return choices, least


def augmentation_numbers(uniform: Tensor, augmentation: Any, extents: list[int]) -> Tensor:
    """What augments samples: uniform numbers [..., n], float64, as csrc/augmentation.h has them in a row."""
    choices, least = augmentation_choices(augmentation, extents)
    brightness = uniform[..., : int(augmentation.brightness)] - 0.5
    rest = uniform[..., int(augmentation.brightness) :]
    one_of = torch.tensor(choices, dtype=rest.dtype, device=rest.device)
    places = torch.minimum((rest * one_of).floor(), one_of - 1) + torch.tensor(least, device=rest.device)
    return torch.cat((brightness, places), -1)


def augmented(
    samples: Tensor,
    numbers: Tensor,
    augmentation: Any,
    extents: list[int],
    *,
    adjoint: bool,
    brighter: bool,
) -> Tensor:
    """Samples [T, B, channels, sites] augmented, or with the adjoint of that; numbers [T, B, n]."""
    sites = samples.shape[-1]
    if brighter:
        samples = samples + numbers[..., :1, None]
    shown = _origins(numbers[..., int(augmentation.brightness) :].long(), augmentation, extents)
    shown = shown[:, :, None].expand(samples.shape)
    nowhere = torch.zeros_like(samples[..., :1])
    if not adjoint:
        return torch.cat((samples, nowhere), -1).gather(-1, shown)
    return torch.cat((torch.zeros_like(samples), nowhere), -1).scatter_add(-1, shown, samples)[..., :sites]


def _origins(places: Tensor, augmentation: Any, extents: list[int]) -> Tensor:
    """[T, B, sites], the site that each site shows; the number of sites where it shows none."""
    whole = torch.zeros(*places.shape[:-1], *extents, dtype=torch.int64, device=places.device)
    outside, covered = whole.bool(), torch.full_like(whole, augmentation.cutout, dtype=torch.bool)
    for d, extent in enumerate(extents):
        at = torch.arange(extent, device=places.device).view(-1, *[1] * (len(extents) - 1 - d))

        def of_sample(n: int) -> Tensor:
            return places[..., n].view(*places.shape[:-1], *[1] * len(extents))

        from_ = at - of_sample(d) if augmentation.translation else at
        outside = outside | (from_ < 0) | (from_ >= extent)
        whole = whole * extent + from_
        if augmentation.cutout:
            size = (extent + 1) // 2
            first = of_sample(d + (len(extents) if augmentation.translation else 0)) - size // 2
            covered = covered & (at >= first) & (at < first + size)
    sites = whole[0, 0].numel()
    return whole.where(~(outside | covered), sites).flatten(2)
