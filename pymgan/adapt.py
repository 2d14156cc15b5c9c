"""Adaptation as a differentiable torch operation: its backward is the engine's exact pull-back.

The only file beside reference.py that touches `torch.autograd`, and it differentiates nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .contract import Data, Rng, Schedule
from .gan import GAN

if TYPE_CHECKING:
    from .contract import Engine

__all__ = ["adapt"]


def adapt(
    engine: Engine | GAN,
    phi: Tensor,
    support: Tensor,
    *,
    steps: int = 5,
    rates: Tensor | float | Sequence[float] = 0.1,
    scale: Tensor | None = None,
    optimiser: str | Sequence[str] | None = None,
    noise: Tensor | None = None,
    seed: int = 0,
    tasks: Tensor | None = None,
) -> Tensor:
    """Run K inner steps of both players on every support set; differentiable once in phi, rates and scale.

    The gradient is exact, of second order: it goes through all K steps. A task that becomes non-finite stops
    at its last finite parameters and has a gradient of zero.

    Args:
        engine: from `pymgan.compile`; a `pymgan.GAN` is compiled on every call, with as many fakes as there
            are support samples.
        phi: [P] or [T, P], the starting point, as `GAN.parameters_vector` lays it out.
        support: [T, S, *sample]; every inner step sees all S samples, the number `reals` that the engine was
            compiled for.
        steps: K >= 1.
        rates: a number, [2] (generator, discriminator), [K, 2] or [T, K, 2], at least 0.
        scale: [P], a multiplier of the rate for every parameter.
        optimiser: of the inner steps, the name of one of `engine.optimisers`, or a name for each of the K steps; by default the
            first of them ("sgd" of a GAN).
        noise: z [T, K, fakes, *latent]; by default drawn from (seed, task, step).
        seed: of the noise.
        tasks: int64 [T], task numbers that key the noise; 0 to T - 1 by default.

    Returns:
        phi_K [T, P].

    Raises:
        ValueError: a shape or value is not as above.
        RuntimeError: from torch, when the gradient is itself differentiated.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"[adapt] expected steps >= 1, got {steps!r}")
    names = [optimiser] * steps if isinstance(optimiser, str) else list(optimiser or ())
    if names and len(names) != steps:
        raise ValueError(f"[adapt] expected optimiser as a name or {steps} of them, got {len(names)}")
    if isinstance(engine, GAN):
        from .engine import compile as compile_engine

        shots = support.shape[1] if support.ndim > 1 else 1
        own = tuple(dict.fromkeys(names)) or ("sgd",)
        engine = compile_engine(engine, fakes=shots, reals=shots, optimisers=own)
    if unknown := [name for name in names if name not in engine.optimisers]:
        raise ValueError(
            f"[adapt] expected optimiser among {', '.join(engine.optimisers)}, which the engine was compiled for, got "
            f"{unknown[0]!r}"
        )
    expected = (engine.reals, *engine.sample)
    if support.ndim < 2 or tuple(support.shape[1:]) != expected:
        raise ValueError(
            f"[adapt] expected support [T, {', '.join(map(str, expected))}], got {list(support.shape)}"
        )
    count = len(support)
    if phi.ndim not in (1, 2) or phi.shape[-1] != engine.parameters or (phi.ndim == 2 and len(phi) != count):
        raise ValueError(
            f"[adapt] expected phi [{engine.parameters}] or [{count}, {engine.parameters}], got "
            f"{list(phi.shape)}"
        )
    if tasks is not None and tuple(tasks.shape) != (count,):
        raise ValueError(f"[adapt] expected tasks [{count}], got {list(tasks.shape)}")
    real = support.detach().to(engine.device, engine.dtype)
    data = Data(real=real.unsqueeze(1).expand(-1, steps, *real.shape[1:]), noise=noise)
    rng = Rng(seed=seed, tasks=torch.arange(count, dtype=torch.int64) if tasks is None else tasks)
    start = phi.to(engine.device, engine.dtype).expand(count, -1)
    inner_rates = _rates(rates, count, steps, engine)
    kind = torch.tensor([engine.optimisers.index(name) for name in names]) if names else 0
    result: Tensor = _Adapt.apply(start, inner_rates, scale, engine, data, rng, kind)  # type: ignore[no-untyped-call]
    return result


def _rates(rates: Tensor | float | Sequence[float], tasks: int, steps: int, engine: Engine) -> Tensor:
    """Rates as [T, K, 2], through torch operations that carry gradients."""
    exact = rates.dtype if isinstance(rates, Tensor) else torch.float64
    value = torch.as_tensor(rates, device=engine.device, dtype=exact)
    if value.ndim == 0:
        value = value.expand(2)
    if value.ndim > 3 or value.shape[-1] != 2:
        raise ValueError(
            f"[adapt] expected rates as a number, [2], [{steps}, 2] or [{tasks}, {steps}, 2], got "
            f"{list(value.shape)}"
        )
    try:
        value = value.expand(tasks, steps, 2)
    except RuntimeError as error:
        raise ValueError(
            f"[adapt] expected rates [{steps}, 2] or [{tasks}, {steps}, 2], got {list(value.shape)}"
        ) from error
    if not bool(torch.isfinite(value).all()) or bool((value < 0).any()):
        raise ValueError("[adapt] expected rates that are finite and at least 0")
    return value


class _Adapt(torch.autograd.Function):
    """phi_K = adapt(phi_0, rates, scale) and its pull-back."""

    @staticmethod
    def forward(
        ctx: Any,
        phi: Tensor,
        rates: Tensor,
        scale: Tensor | None,
        engine: Engine,
        data: Data,
        rng: Rng,
        kind: Tensor | int,
    ) -> Tensor:
        schedule = Schedule(rate=rates, scale=scale, kind=kind)
        adapted = engine.adapt(phi, data, schedule, rng, keep=any(ctx.needs_input_grad))
        ctx.engine, ctx.kept = engine, adapted.saved
        ctx.rates, ctx.scale = rates, scale
        return adapted.phi

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        needs_phi, needs_rates, needs_scale = ctx.needs_input_grad[:3]
        pulled = ctx.engine.pullback(ctx.kept, cotangent.contiguous(), rates=needs_rates or needs_scale)
        d_rates = pulled.d_rate.to(ctx.rates.dtype) if needs_rates else None
        d_scale = pulled.d_scale.sum(0).to(ctx.scale.dtype) if needs_scale else None
        return pulled.v0 if needs_phi else None, d_rates, d_scale, None, None, None, None
