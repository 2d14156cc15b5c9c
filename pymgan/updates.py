"""Counting updates: which of a player's updates are the first of their kind, and which number Adam's bias correction sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pymgan.contract import Engine, Schedule, State

__all__ = ["Updates", "count_updates"]


@dataclass(frozen=True)
class Updates:
    """The optimisers of K steps.

    Attributes:
        kind: int64 [T, K].
        number: int64 [T, K, 2], of the update since the player's moments were zero, from 1; None in an engine without moments.
            What it says of a player that is not active has no meaning.
        before: (State.updates, State.kind) before each step, and after the last: K + 1 of them; one without moments.
    """

    kind: Tensor
    number: Tensor | None
    before: tuple[tuple[Tensor, Tensor], ...]

    def after(self, done: Tensor) -> tuple[Tensor, Tensor]:
        """(State.updates, State.kind) of tasks that have done [T] steps of the K."""
        if self.number is None:
            return self.before[0]
        updates, kind = (torch.stack(each, 1) for each in zip(*self.before, strict=True))
        tasks = torch.arange(len(done), device=done.device)
        return updates[tasks, done], kind[tasks, done]


def count_updates(
    engine: Engine, schedule: Schedule, tasks: int, steps: int, state: State | None = None
) -> Updates:
    """The optimiser of each step, and its update's number; `state` None is the initial one."""
    device = engine.device
    kind = schedule.kind.to(device) if isinstance(schedule.kind, Tensor) else _number(schedule.kind, device)
    kind = kind.expand(tasks, steps)
    zero = torch.zeros(tasks, 2, dtype=torch.int64, device=device)
    updates, last = (zero, zero) if state is None else (state.updates.to(device), state.kind.to(device))
    before = [(updates, last)]
    if engine.moments == 0:
        return Updates(kind, None, tuple(before))
    active = torch.ones(2, dtype=torch.bool, device=device) if schedule.active is None else schedule.active
    active = active.expand(tasks, steps, 2)
    numbers = []
    for k in range(steps):
        now = kind[:, k, None]
        number = torch.where(last == now, updates, zero) + 1
        updates, last = (torch.where(active[:, k], new, old) for new, old in ((number, updates), (now, last)))
        numbers.append(number)
        before.append((updates, last))
    return Updates(kind, torch.stack(numbers, 1), tuple(before))


def _number(value: int, device: torch.device) -> Tensor:
    return torch.full((), value, dtype=torch.int64, device=device)
