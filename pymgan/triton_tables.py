"""What the triton engine's interpreter looks things up in, on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan._kernels.augment import Augmentation
from pymgan._kernels.launch import INTERPRETED
from pymgan._kernels.lists import groups_of, lists_of
from pymgan._kernels.product import Weight
from pymgan._kernels.spectral import Matrix
from pymgan._kernels.updates import Optimisers
from pymgan._kernels.windows import FLAT, WindowTables
from pymgan.contract import OPTIMISERS
from pymgan.frame import Compiled
from pymgan.torch_augment import augmentation_choices
from pymgan.torch_tables import Tables

__all__ = ["TritonTables"]


class TritonTables:
    """A program's tables as kernels want them, once for all runs.

    Attributes:
        weights: of each tensor (a diagonal one: None), relative to its first element.
        of, elements: of each diagonal tensor every element's number, and every number's elements.
        windows: (forward, seen from the input) of each window; flat: of a Linear between flat samples.
        maps: (forward, transposed) of each fixed map; groups: of features.
        matrices: of D's spectral norms.
        precision: of products, in Triton's words.
        kinds: int64, the number in `OPTIMISERS` of each of the game's kinds; optimisers: their numbers.
    """

    def __init__(self, compiled: Compiled, precision: str) -> None:
        self.precision = "ieee" if precision == "float32" else precision
        if INTERPRETED and precision == "bf16":
            self.precision = "bf16 in float32"
        device, game = compiled.device, compiled.game
        self.flat = WindowTables(*FLAT, device)
        self.windows = [
            tuple(
                WindowTables(w.in_sites, w.out_sites, w.taps, w.from_, device)
                for w in (both.forward, both.back)
            )
            for both in compiled.windows
        ]
        self.weights = [None if t.of else self._weight(t, device) for t in compiled.tensors]
        self.of = [torch.tensor(t.of, dtype=torch.int32, device=device) for t in compiled.tensors]
        self.elements = [groups_of(t.of, device) if t.of else None for t in compiled.tensors]
        self.maps = [
            (
                lists_of(size_out, [(to, source, factor) for to, source, factor in links], device),
                lists_of(size_in, [(source, to, factor) for to, source, factor in links], device),
            )
            for size_in, size_out, links in compiled.maps
        ]
        self.groups = [groups_of(of, device) for of in compiled.groups]
        places = Tables(compiled).places if compiled.spectral else []
        self.matrices = [Matrix.of(places[norm.tensor].flatten(1)) for norm in compiled.spectral]
        numbers = [OPTIMISERS.index(kind) for kind in game.optimisers]
        self.kinds = torch.tensor(numbers, device=device)
        moments = [_core.optimiser_moments(kind) for kind in game.optimisers]
        self.optimisers = Optimisers(
            game.momentum,
            (game.betas[0], game.betas[1]),
            game.eps,
            *(sum(1 << n for n, m in zip(numbers, moments, strict=True) if m >= least) for least in range(3)),
        )
        channels, *extents = compiled.sample
        how = game.augmentation
        self.choices, self.least = self._choices(how, extents, device)
        sites = torch.tensor(extents, dtype=torch.int32, device=device)
        self.augmentation = Augmentation(
            how.brightness,
            how.translation,
            how.cutout,
            channels,
            sites,
            by_site=compiled.x.sites == int(sites.prod()),  # flat samples have torch's order
        )

    @staticmethod
    def _weight(t: Any, device: torch.device) -> Weight:
        tap_at = torch.tensor(t.weight_tap, dtype=torch.int64, device=device)
        return Weight(t.n, t.k, t.weight_n, t.weight_k, tap_at, t.bias_sites)

    @staticmethod
    def _choices(how: Any, extents: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """How many choices each of a sample's numbers has, and the least of them; 0: its brightness."""
        bright = [0] * int(how.brightness)
        both = ([*bright, *numbers] for numbers in augmentation_choices(how, extents))
        choices, least = (torch.tensor(each, dtype=torch.float64, device=device) for each in both)
        return choices, least
