"""The oracle's losses and penalties, as functions of scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from pymgan.gan import Penalty

EPSILON = 1e-12
"""Inside the root of a norm."""


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)). Torch's own softplus is linear above 20, which is 2e-9 off: too much for an oracle."""
    return -F.logsigmoid(-x)


def generator_loss(loss: str, fake: Tensor, real: Tensor) -> Tensor:
    """L_G of the scores [B] of generated and of real samples."""
    if loss == "relativistic":
        return softplus(-(fake - real.mean())).mean() + softplus(real - fake.mean()).mean()
    if loss == "nonsaturating":
        return softplus(-fake).mean()
    if loss == "saturating":
        return -softplus(fake).mean()
    if loss in ("hinge", "wasserstein"):
        return -fake.mean()
    return 0.5 * (fake - 1).square().mean()


def discriminator_loss(loss: str, smoothing: float, fake: Tensor, real: Tensor) -> Tensor:
    """L_D of the scores of generated and of real samples."""
    if loss == "relativistic":
        fake, real = fake - real.mean(), real - fake.mean()
    if loss in ("nonsaturating", "saturating", "relativistic"):
        return softplus(fake).mean() + ((1 - smoothing) * softplus(-real) + smoothing * softplus(real)).mean()
    if loss == "hinge":
        return F.relu(1 + fake).mean() + F.relu(1 - real).mean()
    if loss == "wasserstein":
        return fake.mean() - real.mean()
    return 0.5 * fake.square().mean() + 0.5 * (real - (1 - smoothing)).square().mean()


def deviation(x: Tensor) -> Tensor:
    """Population standard deviation, from the mean as it was rounded."""
    return (x - x.mean()).square().mean().sqrt()


def gradient_penalty(
    penalty: Penalty, score: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor, u: Tensor
) -> Tensor:
    """D's penalty, as if it counted in every step.

    Args:
        score: the sum of D's scores of samples [B, *].
        fake, real: the samples.
        u: [B], mixes real and fake.
    """
    share = u.view(-1, *[1] * (real.ndim - 1))
    at = {"r1": real, "r2": fake}.get(penalty.kind)
    at = share * real + (1 - share) * fake if at is None else at
    squared: Tensor = grad(score)(at).flatten(1).square().sum(1)
    if penalty.kind in ("r1", "r2"):
        return penalty.weight / 2 * squared.mean()
    if penalty.kind == "zero_centred":
        return penalty.weight * squared.mean()
    return penalty.weight * ((squared + EPSILON).sqrt() - 1).square().mean()


def energy(a: Tensor, b: Tensor) -> Tensor:
    """Energy distance between samples [B, F] and [B2, F], each pair once, no sample with itself."""

    def pairs(x: Tensor, y: Tensor) -> Tensor:
        return ((x[:, None] - y[None]).square().sum(-1) + EPSILON).sqrt()

    def within(x: Tensor) -> Tensor:
        if len(x) == 1:
            return x.new_zeros(())
        others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
        return torch.where(others, pairs(x, x), 0.0).sum() / (len(x) * (len(x) - 1))

    return 2 * pairs(a, b).mean() - within(a) - within(b)
