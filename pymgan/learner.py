"""What one method carries from step to step: meta-parameters, outer Adam, their average, counters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .meta import Direction, Meta
from .meta.base import as_pair

__all__ = ["Learner"]

RATE_RANGE = 10.0  # learned rates stay within this factor of the rate they start from
RATE_LR = 0.02  # the outer rate of learned rates, in units of the rate they start from


class Learner:
    """The state of one method. Everything here is in the checkpoint, and nothing else decides the next step.

    Batches and noise are drawn from counters, keyed by the seed and `step`, so the step number is the state
    of the random generators too.

    Args:
        meta: the method.
        phi: [P] float32, the initial meta-parameters.
        split: how many of the parameters are the generator's; they come first.
        steps: that the whole run takes; a linear schedule ends there.
        name: that it goes by in its run; the method's by default.
    """

    def __init__(self, meta: Meta, phi: Tensor, *, split: int, steps: int, name: str | None = None) -> None:
        self.meta = meta
        self.name = meta.name if name is None else name
        self.steps = steps
        self.step = 0
        self.tasks = 0
        self.skipped = 0
        self._phi = phi.detach().float().clone()
        self._halves = [nn.Parameter(half) for half in self._phi.tensor_split([split])]  # views of it
        self.average = phi.detach().float().clone()
        self._first_rates = meta.rates()
        self.rates = nn.Parameter(self._first_rates.clone(), requires_grad=meta.learns_rates)
        groups: list[dict[str, Any]] = [
            {"params": [half], "full_lr": rate}
            for half, rate in zip(self._halves, as_pair("outer_lr", meta.outer_lr), strict=True)
        ]
        if meta.learns_rates:
            groups.append({"params": [self.rates], "full_lr": RATE_LR * float(self._first_rates.max())})
        self._adam = torch.optim.Adam(groups, betas=meta.betas)

    @property
    def parameters(self) -> Tensor:
        """[P], the meta-parameters as they stand ("raw")."""
        return self._phi

    @property
    def inner_rates(self) -> Tensor:
        """[K, 2], the inner rates as they stand."""
        return self.rates.detach()

    def descend(self, direction: Direction) -> float:
        """Take one outer step, if any task is valid; returns the gradient's norm before clipping."""
        valid = int(direction.valid.sum())
        left = 1 - self.step / self.steps if self.meta.schedule == "linear" else 1.0
        self.step += 1
        self.tasks += len(direction.valid)
        self.skipped += len(direction.valid) - valid
        if valid == 0:
            return float("nan")
        gradient = direction.gradient.float().cpu()
        norm = float(torch.linalg.vector_norm(gradient.double()))
        if self.meta.clip is not None and norm > self.meta.clip:
            gradient = gradient * (self.meta.clip / norm)
        split = len(self._halves[0])
        self._halves[0].grad, self._halves[1].grad = gradient[:split], gradient[split:]
        if direction.rates is not None:
            self.rates.grad = direction.rates.to(self.rates.dtype).cpu()
        for group in self._adam.param_groups:
            group["lr"] = group["full_lr"] * left
        self._adam.step()
        with torch.no_grad():
            if direction.rates is not None:
                self.rates.copy_(
                    self.rates.clamp(self._first_rates / RATE_RANGE, self._first_rates * RATE_RANGE)
                )
            # The first steps would otherwise weigh the initialisation as long as 1 / (1 - decay) steps.
            decay = min(self.meta.ema, (1 + self.step) / (10 + self.step))
            self.average.mul_(decay).add_(self._phi, alpha=1 - decay)
        return norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and counters for the checkpoint."""
        tensors = {"phi": self.parameters, "average": self.average, "rates": self.inner_rates}
        for label, parameter in self._optimised():
            moments = self._adam.state.get(parameter, {})
            tensors |= {
                f"adam.{label}.{key}": value for key, value in moments.items() if isinstance(value, Tensor)
            }
        return tensors, {"step": self.step, "tasks": self.tasks, "skipped": self.skipped}

    def restore(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """The inverse of `state`.

        Raises:
            ValueError: it belongs to networks of another size.
        """
        if tensors["phi"].shape != self._phi.shape:
            raise ValueError(
                f"expected a checkpoint with {self._phi.numel():,} parameters, got "
                f"{tensors['phi'].numel():,}: "
                "the networks differ from those of the run"
            )
        with torch.no_grad():
            self._phi.copy_(tensors["phi"])
            self.average.copy_(tensors["average"])
            self.rates.copy_(tensors["rates"])
        for label, parameter in self._optimised():
            prefix = f"adam.{label}."
            moments = {
                key.removeprefix(prefix): value.clone()
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            if moments:
                self._adam.state[parameter] = moments
        self.step, self.tasks, self.skipped = counters["step"], counters["tasks"], counters["skipped"]

    def _optimised(self) -> list[tuple[str, nn.Parameter]]:
        labels = ["generator", "discriminator", "rates"]
        return list(
            zip(labels, [*self._halves, *([self.rates] if self.meta.learns_rates else [])], strict=False)
        )
