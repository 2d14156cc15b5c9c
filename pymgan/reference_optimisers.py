"""The oracle's inner optimisers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOMENTS = {
    "sgd": 0,
    "normalised": 0,
    "momentum": 1,
    "nesterov": 1,
    "rmsprop": 1,
    "adam": 2,
    "optimistic": 1,
    "extragradient": 0,
}
"""Vectors that each kind carries."""


def direction(
    kind: str,
    gradient: Tensor,
    moments: Sequence[Tensor],
    number: Tensor,
    *,
    momentum: float,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Tensor, list[Tensor]]:
    """What one player's update number `number` of a kind subtracts, but for its rate, and the moments after it."""
    first, (beta1, beta2) = number == 1, betas
    before = [torch.where(first, 0.0, moment) for moment in moments[: MOMENTS[kind]]]
    rest = list(moments[MOMENTS[kind] :])

    def corrected(mean: Tensor, beta: float) -> Tensor:
        return mean / (1 - beta ** number.double()).to(mean.dtype)

    if kind in ("sgd", "extragradient"):
        return gradient, rest
    if kind == "normalised":
        return gradient / (gradient.square().sum() + eps).sqrt(), rest
    if kind in ("momentum", "nesterov"):
        velocity = momentum * before[0] + gradient
        ahead = gradient + momentum * velocity
        return (ahead if kind == "nesterov" else velocity), [velocity, *rest]
    if kind == "rmsprop":
        square = beta2 * before[0] + (1 - beta2) * gradient.square()
        return gradient / (square + eps).sqrt(), [square, *rest]
    if kind == "adam":
        mean = beta1 * before[0] + (1 - beta1) * gradient
        square = beta2 * before[1] + (1 - beta2) * gradient.square()
        return corrected(mean, beta1) / (corrected(square, beta2) + eps).sqrt(), [mean, square]
    past = torch.where(first, gradient, before[0])
    return 2 * gradient - past, [gradient, *rest]
