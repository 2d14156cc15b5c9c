"""``Engine.meta_gradient`` out of the contract's other calls, for engines that have no fused one."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from pymgan.checks import check_meta_gradient
from pymgan.contract import Adapted, Data, Engine, MetaGradient, Objective, Rng, Schedule

__all__ = ["compose"]


def compose(
    engine: Engine,
    phi: Tensor,
    data: Data,
    schedule: Schedule,
    rng: Rng,
    objective: Objective,
    *,
    order: int,
    rates: bool,
) -> MetaGradient:
    """See :meth:`pymgan.contract.Engine.meta_gradient`."""
    check_meta_gradient(engine, phi, data, schedule, rng, objective, order, rates)
    adapted = engine.adapt(phi, data, schedule, rng, keep=order == 2)
    valid = adapted.trace.valid
    value, v = _evaluate(engine, adapted, data, rng, objective, own=order == 1)
    value = torch.where(valid, value, torch.nan)
    keep = ("G", "D") if len(v) == 2 else ("GD",)
    d_rate = None
    if adapted.saved is None:
        valid = valid & torch.isfinite(v[0]).all(1)
        total = torch.zeros_like(v[:, 0])
        for t in torch.nonzero(valid & torch.isfinite(value)).flatten().tolist():
            total += v[:, t]
    else:
        weight = torch.isfinite(value).to(engine.dtype)
        support = [_support(objective, row) for row in range(len(v))]
        pulled = engine.pullback(adapted.saved, v, keep=keep, support=support, rates=rates, weight=weight)
        valid, total = pulled.valid, pulled.v0
        d_rate = None if pulled.d_rate is None else pulled.d_rate[0]
    split = engine.generator_parameters
    trace = dataclasses.replace(adapted.trace, valid=valid & torch.isfinite(value))
    gradient = torch.cat([total[0, :split], total[-1, split:]]) / max(int(trace.valid.sum()), 1)
    return MetaGradient(gradient, value, trace, d_rate)


def _support(objective: Objective, row: int) -> str:
    """The half of a cotangent that can be nonzero: the energy distance does not depend on D at step K."""
    return "GD" if objective.plays and (row == 1 or objective.losses[0]) else "G"


def _evaluate(
    engine: Engine, adapted: Adapted, data: Data, rng: Rng, objective: Objective, *, own: bool
) -> tuple[Tensor, Tensor]:
    """The value [T], and the cotangents: [2, T, P] of the two players where a loss counts; [1, T, P] without, or with `own`."""
    steps = (data.real if data.indices is None else data.indices).shape[1]
    tasks, phi, query, z = len(rng.tasks), adapted.phi, objective.query, objective.noise
    if z is None:
        rows = objective.noise_rows(engine)
        z = engine.noise(rng, tasks, rows, step=int(steps), stream=objective.stream)
    value = torch.zeros(tasks, dtype=torch.float64, device=phi.device)
    v = phi.new_zeros(2 if objective.plays and not own else 1, tasks, phi.shape[1])
    parts, split = objective.parts(engine), engine.generator_parameters
    for i in range(parts):
        real = query[:, i * engine.reals : (i + 1) * engine.reals].contiguous()
        noise = z[:, i * engine.fakes : (i + 1) * engine.fakes].contiguous()
        result = engine.gradients(phi, Data(real=real, noise=noise), rng, full=not own, state=adapted.state)
        for weight, loss in zip(objective.losses, (result.loss_g, result.loss_d), strict=True):
            if weight:
                value += weight / parts * loss.double()
        v += result.gradient if len(v) == 2 else result.gradient.unsqueeze(0)
    for row, half, weight in _weights(objective, v, split) if parts else ():
        v[row, :, half] = v[row, :, half] * (weight / parts) if weight else 0.0
    if objective.samples:
        z = z[:, : objective.samples].contiguous()
        value, cotangent = engine.distance("energy", engine.generate(phi, z), query)
        v[..., :split] += engine.generate_vjp(phi, z, cotangent)[:, :split]
    return value, v


def _weights(objective: Objective, v: Tensor, split: int) -> list[tuple[int, slice, float]]:
    """(row, half, weight) of the losses' gradients in v: each player's loss has a row, or in one row its own half."""
    halves = slice(0, split), slice(split, v.shape[2])
    if len(v) == 1:
        return [(0, half, weight) for half, weight in zip(halves, objective.losses, strict=True)]
    return [(row, half, weight) for row, weight in enumerate(objective.losses) for half in halves]
