"""What every `meta=` value is: the inner loop it uses, the outer optimiser it asks for, and one meta-step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ..contract import OPTIMISERS, Data, Rng, Schedule

if TYPE_CHECKING:
    from ..contract import Adapted, Engine
    from ..tasks import TaskBatch

__all__ = [
    "QUERY_STREAM",
    "Direction",
    "Meta",
    "fine_tune",
    "mean_of",
    "number",
    "scalar_mean",
    "support_data",
    "whole",
]

# Streams of the counter-based noise, so that no two uses share a draw. The inner loop has stream 0.
QUERY_STREAM = 1


@dataclass(frozen=True)
class Direction:
    """What one meta-step says.

    Attributes:
        gradient: [P], what the outer optimiser descends; the mean over the valid tasks.
        valid: bool [T], the tasks that took part.
        metrics: numbers for the progress bar and metrics.jsonl.
        rates: [K, 2], the same for the inner rates, when they are learned.
    """

    gradient: Tensor
    valid: Tensor
    metrics: dict[str, float]
    rates: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Meta(ABC):
    """A way to meta-learn. All fields are keyword-only.

    Attributes:
        inner_steps: K, the steps that an adaptation takes.
        inner_lr: their rate, or a pair (generator, discriminator).
        play: "simultaneous" or "alternating" (D first).
        inner_optimiser: "sgd", "normalised", "momentum", "nesterov", "rmsprop", "adam", "optimistic" or "extragradient";
            see `pymgan.compile`. An adaptation starts with moments of zero.
        inner_momentum: of the inner "momentum" and "nesterov".
        inner_betas: of the inner "adam"; the second of "rmsprop" too.
        inner_eps: inside the inner optimiser's square roots.
        outer_lr: rate of the outer Adam, or a pair (generator, discriminator).
        betas: of the outer Adam.
        schedule: "linear" lets the outer rate fall to zero over the run, "constant" keeps it.
        clip: the outer gradient is scaled down to this norm; None leaves it alone.
        ema: decay of the average of the meta-parameters that is used to adapt and evaluate.
    """

    inner_steps: int = 5
    inner_lr: float | tuple[float, float] = 0.1
    play: str = "simultaneous"
    inner_optimiser: str = "sgd"
    inner_momentum: float = 0.9
    inner_betas: tuple[float, float] = (0.9, 0.999)
    inner_eps: float = 1e-8
    outer_lr: float | tuple[float, float] = 3e-3
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: str = "linear"
    clip: float | None = 10.0
    ema: float = 0.998

    name: ClassVar[str]
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole("inner_steps", self.inner_steps, least=1)
        for name in ("inner_lr", "outer_lr"):
            pair = as_pair(name, getattr(self, name))
            for rate in pair:
                number(name, rate, low=0.0)
            object.__setattr__(self, name, pair if pair[0] != pair[1] else pair[0])
        if self.play not in ("simultaneous", "alternating"):
            raise ValueError(f"expected play 'simultaneous' or 'alternating', got {self.play!r}")
        if self.inner_optimiser not in OPTIMISERS:
            raise ValueError(
                f"expected inner_optimiser {', '.join(map(repr, OPTIMISERS))}, got {self.inner_optimiser!r}"
            )
        number("inner_momentum", self.inner_momentum, low=0.0, below=1.0)
        number("inner_eps", self.inner_eps, low=0.0)
        if self.inner_eps == 0.0:
            raise ValueError("expected inner_eps > 0, got 0")
        for name in ("inner_betas", "betas"):
            object.__setattr__(self, name, as_pair(name, getattr(self, name)))
            for beta in getattr(self, name):
                number(name, beta, low=0.0, below=1.0)
        if self.schedule not in ("linear", "constant"):
            raise ValueError(f"expected schedule 'linear' or 'constant', got {self.schedule!r}")
        if self.clip is not None:
            number("clip", self.clip, low=0.0)
            if self.clip == 0.0:
                raise ValueError("expected clip > 0, or None for no clipping, got 0")
        number("ema", self.ema, low=0.0, below=1.0)

    @abstractmethod
    def direction(
        self, engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, step: int
    ) -> Direction:
        """One meta-step at phi [P] with inner rates [K, 2] on one batch of tasks. Changes nothing."""

    @property
    def learns_rates(self) -> bool:
        """Whether the inner rates are trained too."""
        return False

    def step_batch(self, *, tasks_per_step: int, shots: int, queries: int) -> int:
        """Real samples (and as many fakes) in a batch of the engine that takes this method's meta-steps."""
        return shots

    def inner_loop(self) -> dict[str, Any]:
        """How its steps go, in the words of `pymgan.compile`."""
        return {
            "play": self.play,
            "optimisers": (self.inner_optimiser,),
            "momentum": self.inner_momentum,
            "betas": self.inner_betas,
            "eps": self.inner_eps,
        }

    def rates(self) -> Tensor:
        """The inner rates [K, 2] (generator, discriminator) that training starts from."""
        return (
            torch.tensor(as_pair("inner_lr", self.inner_lr), dtype=torch.float64)
            .expand(self.inner_steps, 2)
            .clone()
        )

    def to_config(self) -> dict[str, Any]:
        """The value as plain JSON values; `pymgan.meta.from_config` is the way back."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            "name": self.name,
            **{key: list(v) if isinstance(v, tuple) else v for key, v in values.items()},
        }


def as_pair(name: str, value: Any) -> tuple[float, float]:
    """A pair as it is, one number as a pair of it."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"expected {name} to be a number or a pair, got {value!r}")
    return pair


def whole(name: str, value: Any, *, least: int) -> None:
    """Raise unless value is an int that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected {name} to be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"expected {name} >= {least}, got {value}")


def number(name: str, value: Any, *, low: float, below: float = math.inf) -> None:
    """Raise unless value is a finite number in [low, below)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
    if not low <= value < below:
        bound = f"{name} >= {low:g} and " + (f"< {below:g}" if below < math.inf else "finite")
        raise ValueError(f"expected {bound}, got {value}")


def support_data(batch: TaskBatch, engine: Engine, steps: int) -> Data:
    """The whole support set at every one of K steps, without a copy: stride 0 along K."""
    pool, index = batch.support_pool, batch.support_index
    if pool is not None and index is not None:
        return Data(
            real=pool.to(engine.device, engine.dtype),
            indices=index.to(engine.device).unsqueeze(1).expand(-1, steps, -1),
        )
    support = batch.support.to(engine.device, engine.dtype)
    return Data(real=support.unsqueeze(1).expand(-1, steps, *support.shape[1:]))


def fine_tune(
    engine: Engine, phi: Tensor, rates: Tensor, batch: TaskBatch, *, seed: int, steps: int, keep: bool = False
) -> Adapted:
    """Adapt phi, [P] or [T, P], to every support set of the batch in K steps at `rates`, [K, 2] or [2]."""
    tasks = len(batch.ids)
    start = phi.to(engine.device, engine.dtype).expand(tasks, -1)
    rng = Rng(seed=seed, tasks=batch.ids)
    schedule = Schedule(rate=rates.to(engine.device))
    return engine.adapt(start, support_data(batch, engine, steps), schedule, rng, keep=keep)


def mean_of(rows: Tensor, valid: Tensor) -> Tensor:
    """The mean over valid rows [T, P] -> [P], added in task order, so that grouping changes no bit."""
    total = torch.zeros(rows.shape[1], dtype=rows.dtype, device=rows.device)
    for index in torch.nonzero(valid).flatten().tolist():
        total += rows[index]
    return total / max(int(valid.sum()), 1)


def scalar_mean(values: Tensor, valid: Tensor) -> float:
    """The mean of values [T] over the valid tasks; NaN when there is none."""
    return float(values[valid].double().mean()) if bool(valid.any()) else math.nan
