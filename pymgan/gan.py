"""The game as a user writes it: two ``nn.Sequential``, the shape of the latent variable and the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from .spectral import settle

__all__ = ["AUGMENTATIONS", "GAN", "LOSSES", "PENALTIES", "Penalty"]

LOSSES = ("nonsaturating", "saturating", "hinge", "least_squares", "wasserstein", "relativistic")
PENALTIES = ("r1", "r2", "wgan_gp", "zero_centred")
AUGMENTATIONS = ("brightness", "translation", "cutout")
SMOOTHED = ("nonsaturating", "saturating", "least_squares", "relativistic")


@dataclass(frozen=True)
class Penalty:
    """A gradient penalty, part of L_D. With e = d score / d sample, the norm |e| of each *sample*, and means over a batch:

    =================  ==========================  =======================================================
    "r1"               weight / 2 * mean |e|^2     at real samples (Mescheder et al. 2018, arXiv 1801.04406)
    "r2"               weight / 2 * mean |e|^2     at G's samples (the same)
    "wgan_gp"          weight * mean (|e| - 1)^2   at u real + (1 - u) fake (Gulrajani et al. 2017, arXiv 1704.00028)
    "zero_centred"     weight * mean |e|^2         at u real + (1 - u) fake (Thanh-Tung et al. 2019, arXiv 1902.03984)
    =================  ==========================  =======================================================

    u is uniform, one number for each pair of a real and a generated sample, which must be as many. |e| is sqrt(|e|^2 + 1e-12).

    Attributes:
        kind: one of the above.
        weight: finite, at least 0.
        every: lazily: only in inner steps whose number (`State.count`) is a multiple, times `every` there (Karras et al. 2020,
            arXiv 1912.04958).

    Raises:
        ValueError: something is out of range.
    """

    kind: str
    weight: float = 1.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.kind not in PENALTIES:
            raise ValueError(f"[Penalty] kind: expected one of {', '.join(PENALTIES)}, got {self.kind!r}")
        weight, every = self.weight, self.every
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(f"[Penalty] weight: expected a finite number from 0, got {weight!r}")
        if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every < 2**31:
            raise ValueError(f"[Penalty] every: expected a whole number of steps from 1, got {every!r}")

    @property
    def between(self) -> bool:
        """Whether it looks at points between real and generated samples."""
        return self.kind in ("wgan_gp", "zero_centred")


@dataclass(frozen=True, eq=False)
class GAN:
    """A generative adversarial network.

    Attributes:
        generator: maps z [B, *latent] to samples [B, *sample].
        discriminator: maps samples [B, *sample] to one score each, [B] or [B, 1]; no sigmoid at the end.
        latent: shape of one z, such as (32,).
        loss: "nonsaturating", "saturating" (the minimax game), "hinge", "least_squares", "wasserstein" or "relativistic"
            (average; nonsaturating of each score less the mean score of the other kind, Jolicoeur-Martineau 2018, arXiv
            1807.00734).
        label_smoothing: e in [0, 1): real samples have the target 1 - e, in L_D. Not with hinge and wasserstein.
        penalty: a `Penalty` of the discriminator's gradient, or None.
        augment: differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738) of everything that D scores in training, any of
            these in this order: "brightness" (a number from [-1/2, 1/2] is added), "translation" (by whole sites, up to an eighth
            of every extent; zeros come in), "cutout" (a block of half of every extent becomes zero). Images (C, H, W) or sounds
            (C, L); generated sample i is augmented as real sample i. Penalties look at what D is given.
        instance_noise: standard deviation of the noise added to everything that D scores in training, after augmentation
            (Sonderby et al. 2017, arXiv 1610.04490; Arjovsky and Bottou 2017, arXiv 1701.04862).

    Raises:
        TypeError: a network is not an ``nn.Sequential``, or its parameters are not floating point.
        ValueError: anything else is out of range.
    """

    generator: nn.Sequential
    discriminator: nn.Sequential
    latent: tuple[int, ...]
    loss: str = "nonsaturating"
    label_smoothing: float = 0.0
    penalty: Penalty | None = None
    augment: tuple[str, ...] = ()
    instance_noise: float = 0.0

    def __post_init__(self) -> None:
        for name, network in (("generator", self.generator), ("discriminator", self.discriminator)):
            if not isinstance(network, nn.Sequential):
                raise TypeError(f"[GAN] {name}: expected an nn.Sequential, got {type(network).__name__}")
            for key, parameter in network.named_parameters():
                if not parameter.is_floating_point():
                    raise TypeError(
                        f"[GAN] {name}.{key}: expected a floating point parameter, got {parameter.dtype}"
                    )
        if not isinstance(self.latent, (tuple, list)):
            raise TypeError(f"[GAN] latent: expected the shape of one z, such as (32,), got {self.latent!r}")
        if not self.latent or any(
            isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in self.latent
        ):
            raise ValueError(
                f"[GAN] latent: expected whole numbers from 1, such as (32,), got {self.latent!r}"
            )
        object.__setattr__(self, "latent", tuple(self.latent))
        if self.loss not in LOSSES:
            raise ValueError(f"[GAN] loss: expected one of {', '.join(LOSSES)}, got {self.loss!r}")
        smoothing = self.label_smoothing
        if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float)) or not 0 <= smoothing < 1:
            raise ValueError(f"[GAN] label_smoothing: expected a number in [0, 1), got {smoothing!r}")
        if smoothing and self.loss not in SMOOTHED:
            raise ValueError(
                f"[GAN] label_smoothing: expected 0 with loss {self.loss!r}, got {smoothing}; {' and '.join(SMOOTHED)} have it"
            )
        if self.penalty is not None and not isinstance(self.penalty, Penalty):
            raise TypeError(f"[GAN] penalty: expected a pymgan.Penalty or None, got {self.penalty!r}")
        if not isinstance(self.augment, (tuple, list)):
            raise TypeError(f"[GAN] augment: expected a tuple of names, got {self.augment!r}")
        if list(self.augment) != [name for name in AUGMENTATIONS if name in self.augment]:
            raise ValueError(
                f"[GAN] augment: expected some of {', '.join(AUGMENTATIONS)} in this order, got {self.augment!r}"
            )
        object.__setattr__(self, "augment", tuple(self.augment))
        noise = self.instance_noise
        if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < math.inf:
            raise ValueError(f"[GAN] instance_noise: expected a finite number from 0, got {noise!r}")

    def check_sample(self, shape: tuple[int, ...]) -> None:
        """Whether samples of this shape can be augmented as `augment` says.

        Raises:
            ValueError: they have no extents.
        """
        if self.augment and (len(shape) < 2 or max(shape[1:]) == 1):
            raise ValueError(
                f"[GAN] augment: expected samples (C, H, W) or (C, L) for {', '.join(self.augment)}, got {tuple(shape)}"
            )

    def parameters_vector(self) -> Tensor:
        """A copy of all parameters, [P] float32: ``parameters_to_vector`` of the generator, then of the discriminator."""
        with torch.no_grad():
            parts = [
                parameters_to_vector(n.parameters())
                for n in (self.generator, self.discriminator)
                if any(True for _ in n.parameters())
            ]
            vector = torch.cat(parts) if parts else torch.zeros(0)
            return vector.to(torch.float32, copy=True)

    def load_vector(self, phi: Tensor) -> None:
        """Copies phi [P], as ``parameters_vector`` lays it out, into the networks; spectral norms are made those of its weights.

        Raises:
            ValueError: phi has another shape.
        """
        parameters = [*self.generator.parameters(), *self.discriminator.parameters()]
        total = sum(p.numel() for p in parameters)
        if tuple(phi.shape) != (total,):
            raise ValueError(f"[GAN] load_vector: expected phi [{total}], got {list(phi.shape)}")
        with torch.no_grad():
            at = 0
            for parameter in parameters:
                parameter.copy_(phi[at : at + parameter.numel()].view_as(parameter))
                at += parameter.numel()
            settle(self.discriminator)
