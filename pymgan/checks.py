"""What every engine asks of its arguments before it touches a buffer.

Each ``check_*`` raises TypeError for a wrong type or dtype, and ValueError for a wrong shape, device or value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pymgan.contract import DISTANCES, HALVES, STREAMS, Data, Engine, Objective, Rng, Saved, Schedule, State

__all__ = [
    "check_adapt",
    "check_distance",
    "check_generate",
    "check_gradients",
    "check_meta_gradient",
    "check_noise",
    "check_pullback",
    "check_saved",
]

S = TypeVar("S", bound=Saved)


class _Values:
    """What values have to be. On the cpu each is looked at when it is named; on a device, where a look waits for what is queued,
    all together in `settle`, and none while a CUDA graph is captured."""

    def __init__(self) -> None:
        self._later: list[tuple[Tensor, Callable[[], ValueError]]] = []

    def expect(self, holds: Callable[[], Tensor], of: Tensor, error: Callable[[], ValueError]) -> None:
        """`holds` gives a bool, on the device of the tensor that it looks at."""
        if of.device.type == "cpu":
            if not bool(holds()):
                raise error()
        elif not torch.cuda.is_current_stream_capturing():
            self._later.append((holds(), error))

    def finite(self, op: str, name: str, value: Tensor, rows: Tensor | None = None) -> None:
        """rows: numbers of those that count; None: all."""
        once = _once(value).detach()

        def holds() -> Tensor:
            if once.device.type != "cpu":
                of_row = torch.isfinite(once.flatten(1)).all(1) if rows is not None else torch.isfinite(once)
                return (of_row if rows is None else of_row[rows.long().clamp(0, len(of_row) - 1)]).all()
            # numpy's stays on one core: torch's would leave its other threads spinning, next to those of the engine.
            counted = once if rows is None else once[torch.unique(rows).long()]
            return torch.tensor(bool(np.isfinite(counted.numpy()).all()))

        def error() -> ValueError:
            return ValueError(
                f"[{op}] {name}: expected finite numbers, got NaN or infinity; look for it with torch.isfinite"
            )

        self.expect(holds, once, error)

    def at_least_zero(self, op: str, name: str, value: Tensor) -> None:
        self.expect(
            lambda: (value >= 0).all(),
            value,
            lambda: ValueError(f"[{op}] {name}: expected numbers from 0, got {value.min().item()}"),
        )

    def settle(self) -> None:
        """Raises the first error of those put off."""
        if self._later:
            for held, (_, error) in zip(
                torch.stack([holds for holds, _ in self._later]).tolist(), self._later, strict=True
            ):
                if not held:
                    raise error()


def check_adapt(
    engine: Engine, phi: Tensor, data: Data, schedule: Schedule, rng: Rng, state: State | None = None
) -> tuple[int, int]:
    """Checks the arguments of ``adapt``; returns (T, K)."""
    values = _Values()
    tasks, steps = _check_adapt(values, engine, phi, data, schedule, rng, state)
    values.settle()
    return tasks, steps


def _check_adapt(
    values: _Values,
    engine: Engine,
    phi: Tensor,
    data: Data,
    schedule: Schedule,
    rng: Rng,
    state: State | None,
) -> tuple[int, int]:
    tasks = _check_rng("adapt", rng)
    _check_phi("adapt", engine, phi, tasks)
    steps = _check_data(values, "adapt", engine, data, tasks, per_step=True)
    _check_schedule(values, engine, schedule, tasks, steps)
    if state is not None:
        _check_state("adapt", state, engine, tasks)
        width = engine.moments * engine.parameters
        _check("adapt", "state.moments", state.moments, (tasks, width), (engine.dtype,), engine.device)
        for name, value, shape in (
            ("state.count", state.count, (tasks,)),
            ("state.updates", state.updates, (tasks, 2)),
        ):
            _check("adapt", name, value, shape, (torch.int64,), None)
            values.at_least_zero("adapt", name, value)
        _check("adapt", "state.kind", state.kind, (tasks, 2), (torch.int64,), None)
        _check_kind(values, "state.kind", engine, state.kind)
    return tasks, steps


def _check_state(where: str, state: State, engine: Engine, tasks: int) -> None:
    if not isinstance(state, State):
        raise TypeError(f"[{where}] state: expected a State, got {type(state).__name__}")
    shape = (tasks, *engine.initial_state(1).spectral.shape[1:])
    _check(where, "state.spectral", state.spectral, shape, (engine.dtype,), engine.device)


def check_gradients(engine: Engine, phi: Tensor, data: Data, rng: Rng, state: State | None) -> int:
    """Checks the arguments of ``gradients``; returns T."""
    tasks = _check_rng("gradients", rng)
    _check_phi("gradients", engine, phi, tasks)
    values = _Values()
    _check_data(values, "gradients", engine, data, tasks, per_step=False)
    values.settle()
    if state is not None:
        _check_state("gradients", state, engine, tasks)
    return tasks


def check_saved(saved: Saved, kind: type[S]) -> S:
    """`saved`, if it is what an engine with this `kind` of it left."""
    if not isinstance(saved, kind):
        got = type(saved).__name__
        raise TypeError(f"[pullback] saved: expected what this engine's adapt(keep=True) returned, got {got}")
    return saved


def check_pullback(
    engine: Engine,
    tasks: int,
    cotangents: Tensor,
    *,
    state_cotangents: Tensor | None = None,
    keep: Sequence[str] | str | None = None,
    support: Sequence[str] | str | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, list[str], list[str], bool]:
    """Checks the arguments of ``pullback``.

    Returns:
        (cotangents [C, T, P], state cotangents or None, keep, support, whether the caller left C out), tensors contiguous.
    """
    _check_tensor("pullback", "cotangents", cotangents, (engine.dtype,), engine.device)
    expected = (tasks, engine.parameters)
    if cotangents.ndim not in (2, 3) or tuple(cotangents.shape[-2:]) != expected or not len(cotangents):
        raise ValueError(
            f"[pullback] cotangents: expected {_text(('C', *expected))} or {_text(expected)}, got {_text(cotangents.shape)}"
        )
    bare = cotangents.ndim == 2
    v = (cotangents[None] if bare else cotangents).detach().contiguous()
    state = None
    if state_cotangents is not None:
        if engine.moments == 0:
            raise ValueError(
                f"[pullback] state_cotangents: expected None, as {', '.join(engine.optimisers)} has no moments, got a tensor"
            )
        width = engine.moments * engine.parameters
        _check(
            "pullback",
            "state_cotangents",
            state_cotangents,
            (*cotangents.shape[:-1], width),
            (engine.dtype,),
            engine.device,
        )
        state = state_cotangents.detach().reshape(*v.shape[:-1], width).contiguous()
    if weight is not None:
        _check("pullback", "weight", weight, (tasks,), (torch.float32, torch.float64), engine.device)
    return v, state, _check_halves("keep", keep, len(v)), _check_halves("support", support, len(v)), bare


def check_meta_gradient(
    engine: Engine,
    phi: Tensor,
    data: Data,
    schedule: Schedule,
    rng: Rng,
    objective: Objective,
    order: int,
    rates: bool,
) -> tuple[int, int]:
    """Checks the arguments of ``meta_gradient``; returns (T, K)."""
    op, values = "meta_gradient", _Values()
    tasks, steps = _check_adapt(values, engine, phi, data, schedule, rng, None)
    if not isinstance(objective, Objective):
        raise TypeError(f"[{op}] objective: expected an Objective, got {type(objective).__name__}")
    if order not in (1, 2):
        raise ValueError(f"[{op}] order: expected 1 or 2, got {order!r}")
    _check_whole(op, "objective.samples", objective.samples, 0, 2**31)
    _check_whole(op, "objective.stream", objective.stream, 0, STREAMS)
    weights = objective.losses
    if len(weights) != 2 or not all(math.isfinite(w) and w >= 0 for w in weights):
        raise ValueError(f"[{op}] objective.losses: expected two finite numbers from 0, got {weights!r}")
    if not objective.samples and not objective.plays:
        raise ValueError(f"[{op}] objective: expected samples or a loss with a weight, got neither")
    query = objective.query
    _check_tensor(op, "objective.query", query, (engine.dtype,), engine.device)
    if (
        query.ndim != 2 + len(engine.sample)
        or query.shape[0] != tasks
        or tuple(query.shape[2:]) != engine.sample
    ):
        expected = _text((tasks, "Q", *engine.sample))
        raise ValueError(f"[{op}] objective.query: expected {expected}, got {_text(query.shape)}")
    count = int(query.shape[1])
    if count < 1 or (objective.plays and count % engine.reals):
        wanted = (
            f"a multiple of shots = {engine.reals} for losses on the query set" if count else "one or more"
        )
        raise ValueError(f"[{op}] queries: expected {wanted}, got {count}")
    values.finite(op, "objective.query", query)
    if objective.noise is not None:
        shape = (tasks, objective.noise_rows(engine), *engine.latent)
        _check(op, "objective.noise", objective.noise, shape, (engine.dtype,), engine.device)
        values.finite(op, "objective.noise", objective.noise)
    values.settle()
    if rates and (objective.plays or order != 2):
        raise ValueError(
            f"[{op}] rates: expected order 2 and no losses, as rates descend the energy distance alone"
        )
    return tasks, steps


def check_noise(rng: Rng, tasks: int, n: int, step: int, stream: int) -> Tensor:
    """Checks the arguments of ``noise``; returns the task numbers, contiguous."""
    numbers = _check_rng("noise", rng)
    _check_whole("noise", "n", n, 1, 2**31)
    _check_whole("noise", "step", step, 0, 2**63)
    _check_whole("noise", "stream", stream, 0, STREAMS)
    if tasks != numbers:
        raise ValueError(f"[noise] tasks: expected {numbers}, the length of rng.tasks, got {tasks!r}")
    return rng.tasks.contiguous()


def check_generate(
    engine: Engine, phi: Tensor, z: Tensor, cotangent: Tensor | None = None
) -> tuple[int, int]:
    """Checks the arguments of ``generate`` and ``generate_vjp``; returns (T, B)."""
    op = "generate" if cotangent is None else "generate_vjp"
    _check_tensor(op, "z", z, (engine.dtype,), engine.device)
    if z.ndim < 2 or tuple(z.shape[2:]) != engine.latent or not z.numel():
        raise ValueError(
            f"[{op}] z: expected {_text(('T', 'B', *engine.latent))}, none of them 0, got {_text(z.shape)}"
        )
    tasks, batch = int(z.shape[0]), int(z.shape[1])
    _check_phi(op, engine, phi, tasks)
    if cotangent is not None:
        _check(op, "cotangent", cotangent, (tasks, batch, *engine.sample), (engine.dtype,), engine.device)
    return tasks, batch


def check_distance(kind: str, a: Tensor, b: Tensor) -> None:
    """Checks the arguments of ``distance``."""
    if kind not in DISTANCES:
        raise ValueError(f"[distance] kind: expected one of {', '.join(DISTANCES)}, got {kind!r}")
    _check_tensor("distance", "a", a, (torch.float32, torch.float64), None)
    _check_tensor("distance", "b", b, (a.dtype,), a.device)
    if a.ndim < 2 or not a.numel():
        raise ValueError(f"[distance] a: expected [T, B, *sample], none of them 0, got {_text(a.shape)}")
    if b.ndim != a.ndim or b.shape[0] != a.shape[0] or b.shape[2:] != a.shape[2:] or not b.numel():
        raise ValueError(
            f"[distance] b: expected {_text((a.shape[0], 'B2', *a.shape[2:]))}, got {_text(b.shape)}"
        )


def _text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _check_tensor(
    op: str, name: str, value: Tensor, dtypes: tuple[torch.dtype, ...], device: torch.device | None
) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"[{op}] {name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        wanted = " or ".join(map(str, dtypes))
        raise TypeError(
            f"[{op}] {name}: expected {wanted}, got {value.dtype}; convert it with .to({dtypes[0]})"
        )
    if device is not None and value.device != device:
        raise ValueError(
            f"[{op}] {name}: expected a tensor on {device}, got one on {value.device}; move it with .to({str(device)!r})"
        )


def _check(
    op: str,
    name: str,
    value: Tensor,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device | None,
) -> None:
    _check_tensor(op, name, value, dtypes, device)
    if tuple(value.shape) != shape:
        raise ValueError(f"[{op}] {name}: expected {_text(shape)}, got {_text(value.shape)}")


def _check_whole(op: str, name: str, value: int, low: int, below: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < below:
        raise ValueError(
            f"[{op}] {name}: expected a whole number from {low} and below {below}, got {value!r}"
        )


def _check_rng(op: str, rng: Rng) -> int:
    if not isinstance(rng, Rng):
        raise TypeError(f"[{op}] rng: expected an Rng, got {type(rng).__name__}")
    _check_whole(op, "rng.seed", rng.seed, 0, 2**64)
    _check_tensor(op, "rng.tasks", rng.tasks, (torch.int64,), None)
    if rng.tasks.device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"[{op}] rng.tasks: expected a tensor on the cpu or a CUDA device, got {rng.tasks.device}"
        )
    if rng.tasks.ndim != 1 or not len(rng.tasks):
        raise ValueError(
            f"[{op}] rng.tasks: expected [T] with at least one task, got {_text(rng.tasks.shape)}"
        )
    if rng.tasks.device.type == "cpu" and int(rng.tasks.min()) < 0:
        raise ValueError(f"[{op}] rng.tasks: expected numbers from 0, got {int(rng.tasks.min())}")
    return len(rng.tasks)


def _check_phi(op: str, engine: Engine, phi: Tensor, tasks: int) -> None:
    # Values are not looked at: a task whose parameters are not finite becomes an invalid task, it does not stop the others.
    _check_tensor(op, "phi", phi, (engine.dtype,), engine.device)
    if tuple(phi.shape) not in ((engine.parameters,), (tasks, engine.parameters)):
        expected = f"{_text((tasks, engine.parameters))} or {_text((engine.parameters,))}"
        raise ValueError(f"[{op}] phi: expected {expected}, got {_text(phi.shape)}")


def _once(value: Tensor) -> Tensor:
    """`value` with each repeated (stride 0) dimension taken once: enough to look at every element."""
    for dimension, stride in enumerate(value.stride()):
        if stride == 0 and value.shape[dimension] > 1:
            value = value.narrow(dimension, 0, 1)
    return value


def _check_data(values: _Values, op: str, engine: Engine, data: Data, tasks: int, *, per_step: bool) -> int:
    """Returns K (1 without that axis)."""
    if not isinstance(data, Data):
        raise TypeError(f"[{op}] data: expected Data, got {type(data).__name__}")
    dtypes, device, axes = (engine.dtype,), engine.device, 2 if per_step else 1
    leading: tuple[int | str, ...] = (tasks, "K") if per_step else (tasks,)
    _check_tensor(op, "data.real", data.real, dtypes, device)
    if data.indices is None:
        source, name, inner = data.real, "data.real", (engine.reals, *engine.sample)
    else:
        _check_tensor(op, "data.indices", data.indices, (torch.int32,), device)
        source, name, inner = data.indices, "data.indices", (engine.reals,)
    if source.ndim != axes + len(inner) or tuple(source.shape[axes:]) != inner or source.shape[0] != tasks:
        raise ValueError(f"[{op}] {name}: expected {_text((*leading, *inner))}, got {_text(source.shape)}")
    steps = int(source.shape[1]) if per_step else 1
    if steps < 1:
        raise ValueError(
            f"[{op}] {name}: expected at least one inner step (K >= 1), got {_text(source.shape)}"
        )
    if data.indices is None:
        values.finite(op, "data.real", data.real)
    else:
        pool, indices = data.real, _once(data.indices)
        if pool.ndim != 1 + len(engine.sample) or tuple(pool.shape[1:]) != engine.sample or not len(pool):
            raise ValueError(
                f"[{op}] data.real: expected a pool {_text(('N', *engine.sample))}, N >= 1, got {_text(pool.shape)}"
            )
        values.expect(
            lambda: (indices >= 0).all() & (indices < len(pool)).all(),
            indices,
            lambda: ValueError(
                f"[{op}] data.indices: expected rows of the pool, 0 to {len(pool) - 1}, got {int(indices.min())} to "
                f"{int(indices.max())}"
            ),
        )
        values.finite(op, "data.real", pool, indices)
    if data.noise is not None:
        shape = (tasks, *((steps,) if per_step else ()), engine.fakes, *engine.latent)
        _check(op, "data.noise", data.noise, shape, dtypes, device)
        values.finite(op, "data.noise", data.noise)
    return steps


def _check_schedule(values: _Values, engine: Engine, schedule: Schedule, tasks: int, steps: int) -> None:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"[adapt] schedule: expected a Schedule, got {type(schedule).__name__}")
    floating = (torch.float64, torch.float32)
    shapes = ((2,), (steps, 2), (tasks, steps, 2))
    _check_tensor("adapt", "schedule.rate", schedule.rate, floating, engine.device)
    for name, value in (("rate", schedule.rate), ("active", schedule.active)):
        # a size of 1 is a size that broadcasts
        if value is not None and (
            value.shape[-1:] != (2,) or not any(_broadcasts(tuple(value.shape), shape) for shape in shapes)
        ):
            expected = ", ".join(map(_text, shapes))
            raise ValueError(f"[adapt] schedule.{name}: expected one of {expected}, got {_text(value.shape)}")
    values.finite("adapt", "schedule.rate", schedule.rate)
    values.at_least_zero("adapt", "schedule.rate", schedule.rate)
    if schedule.active is not None:
        _check_tensor("adapt", "schedule.active", schedule.active, (torch.bool,), engine.device)
    if schedule.scale is not None:
        _check("adapt", "schedule.scale", schedule.scale, (engine.parameters,), floating, engine.device)
        values.finite("adapt", "schedule.scale", schedule.scale)
    kind = schedule.kind
    if isinstance(kind, Tensor):
        _check_tensor("adapt", "schedule.kind", kind, (torch.int64,), None)
        if not any(_broadcasts(tuple(kind.shape), shape) for shape in ((), (steps,), (tasks, steps))):
            expected = f"a number, {_text((steps,))} or {_text((tasks, steps))}"
            raise ValueError(f"[adapt] schedule.kind: expected {expected}, got {_text(kind.shape)}")
    elif isinstance(kind, bool) or not isinstance(kind, int):
        raise TypeError(
            f"[adapt] schedule.kind: expected a number or a torch.Tensor, got {type(kind).__name__}"
        )
    _check_kind(values, "schedule.kind", engine, kind)


def _check_kind(values: _Values, name: str, engine: Engine, kind: int | Tensor) -> None:
    kinds = kind if isinstance(kind, Tensor) else torch.tensor(kind)
    values.expect(
        lambda: (kinds >= 0).all() & (kinds < len(engine.optimisers)).all(),
        kinds,
        lambda: ValueError(
            f"[adapt] {name}: expected numbers from 0 to {len(engine.optimisers) - 1}, of {', '.join(engine.optimisers)}, "
            f"got {int(kinds.min())} to {int(kinds.max())}"
        ),
    )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) == len(target) and all(n in (1, m) for n, m in zip(shape, target, strict=True))


def _check_halves(name: str, value: Sequence[str] | str | None, cotangents: int) -> list[str]:
    halves = (
        ["GD"] * cotangents
        if value is None
        else [value] * cotangents
        if isinstance(value, str)
        else list(value)
    )
    if len(halves) != cotangents:
        raise ValueError(
            f"[pullback] {name}: expected {cotangents} entries, one for each cotangent, got {len(halves)}"
        )
    if wrong := [half for half in halves if half not in HALVES]:
        raise ValueError(f"[pullback] {name}: expected 'G', 'D' or 'GD', got {wrong[0]!r}")
    return halves
