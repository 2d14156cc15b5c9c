"""What a task distribution is: batches of tasks, and the rules that all distributions share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "SPLITS",
    "TaskBatch",
    "TaskDistribution",
    "check_draw",
    "deal",
    "digest",
    "draw_ids",
    "hashed_order",
    "part",
]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskBatch:
    """T tasks, each with S support and Q query samples that have no sample in common.

    Attributes:
        support: float32 [T, S, *sample]; images are [C, H, W] in [-1, 1].
        query: float32 [T, Q, *sample].
        ids: int64 [T], a number of its own for every task ever drawn; it keys the task's noise.
        classes: T names, for labels.
        support_pool, support_index: the same support as int32 [T, S] into a pool [N, *sample], for
            distributions whose data already lie in one tensor on the engine's device. Both or neither.

    Raises:
        ValueError: the shapes do not fit together.
    """

    support: Tensor
    query: Tensor
    ids: Tensor
    classes: Sequence[int | str]
    support_pool: Tensor | None = None
    support_index: Tensor | None = None

    def __post_init__(self) -> None:
        support, query = tuple(self.support.shape), tuple(self.query.shape)
        if len(support) < 3 or 0 in support:
            raise ValueError(
                f"expected a support [T, S, *sample] without empty dimensions, got {list(support)}"
            )
        if len(query) < 3 or 0 in query or query[0] != support[0] or query[2:] != support[2:]:
            sample = ", ".join(map(str, support[2:]))
            raise ValueError(
                f"expected queries [{support[0]}, Q, {sample}] like the support, got {list(query)}"
            )
        if tuple(self.ids.shape) != support[:1] or self.ids.dtype != torch.int64:
            raise ValueError(
                f"expected ids int64 [{support[0]}], got {self.ids.dtype} {list(self.ids.shape)}"
            )
        if len(self.classes) != support[0]:
            raise ValueError(f"expected {support[0]} class names, got {len(self.classes)}")
        if (self.support_pool is None) != (self.support_index is None):
            raise ValueError("expected support_pool and support_index together, got one of them")
        if self.support_index is not None and tuple(self.support_index.shape) != support[:2]:
            raise ValueError(
                f"expected support_index {list(support[:2])}, got {list(self.support_index.shape)}"
            )

    def repeat(self, copies: int) -> TaskBatch:
        """Every task so many times, one after the other, with the same noise."""
        classes = [name for name in self.classes for _ in range(copies)]
        return self._of_tasks(lambda tensor: tensor.repeat_interleave(copies, 0), classes)

    def part(self, tasks: slice) -> TaskBatch:
        """Some of the tasks, as views."""
        return self._of_tasks(lambda tensor: tensor[tasks], self.classes[tasks])

    def _of_tasks(self, pick: Callable[[Tensor], Tensor], classes: Sequence[int | str]) -> TaskBatch:
        """What `pick` makes of each tensor whose first dimension is the tasks."""
        return TaskBatch(
            support=pick(self.support),
            query=pick(self.query),
            ids=pick(self.ids),
            classes=classes,
            support_pool=self.support_pool,
            support_index=None if self.support_index is None else pick(self.support_index),
        )


class TaskDistribution(ABC):
    """Where tasks come from. Nothing is random but what the generator passed to `sample` makes so.

    Attributes:
        name: for folders and titles.
        sample_shape: of one sample.
        classes: the names of the classes that tasks are made of; () where every task is a class of its own.
    """

    name: str
    sample_shape: tuple[int, ...]
    classes: tuple[str, ...]

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of data, splits and sampling rules.

        Equal fingerprints give equal tasks for equal generators.
        """

    @abstractmethod
    def sample(self, n_tasks: int, shots: int, queries: int, rng: np.random.Generator) -> TaskBatch:
        """Draw tasks.

        Args:
            n_tasks: T >= 1.
            shots: S >= 1, support samples of each task.
            queries: Q >= 1, query samples of each task.
            rng: the only source of randomness.

        Raises:
            ValueError: a count below 1.
            TypeError: rng is not a `numpy.random.Generator`, or a count is not a whole number.
        """

    @abstractmethod
    def split(self, name: str) -> TaskDistribution:
        """The part of the classes for "train", "validation" or "test". Fixed: it depends on names alone.

        Raises:
            ValueError: an unknown name, a part without classes, or this distribution is a part already.
        """

    def variants(self) -> dict[str, TaskDistribution]:
        """Other ways to draw from the same classes that a result should be reported for too, by name."""
        return {}

    def __repr__(self) -> str:
        count = f"{len(self.classes)} classes" if self.classes else "endless classes"
        return f"<{self.name}: {count}, samples {list(self.sample_shape)}>"


def check_draw(n_tasks: int, shots: int, queries: int, rng: np.random.Generator) -> None:
    """Raise unless these are arguments for `TaskDistribution.sample`."""
    for name, value in (("n_tasks", n_tasks), ("shots", shots), ("queries", queries)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"expected {name} to be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"expected rng to be a generator (numpy.random.default_rng(seed)), got {type(rng).__name__}"
        )


def deal(n_tasks: int, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """The class of each task, int64 [n_tasks]: as even as possible, in random order.

    No class comes twice before every class has come once, so that a meta-batch is diverse and an evaluation
    covers all classes.
    """
    rounds = -(-n_tasks // n_classes)
    return np.concatenate([rng.permutation(n_classes) for _ in range(rounds)])[:n_tasks]


def draw_ids(n_tasks: int, rng: np.random.Generator, below: int = 2**62) -> Tensor:
    """Numbers of new tasks, int64 [n_tasks], distinct."""
    while True:
        ids = rng.integers(below, size=n_tasks)
        if len(np.unique(ids)) == n_tasks:
            return torch.from_numpy(ids)


def digest(*parts: str | bytes) -> str:
    """SHA-256 of the parts, each with its length before it, so that no two lists of parts read the same."""
    state = hashlib.sha256()
    for item in parts:
        data = item.encode() if isinstance(item, str) else item
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def hashed_order(names: Sequence[str], salt: str) -> list[int]:
    """Indices of the names in an order that looks random and depends on salt and names alone."""
    return sorted(range(len(names)), key=lambda index: (digest(salt, names[index]), names[index]))


def part(parts: Mapping[str, tuple[int, ...]] | None, name: str, owner: TaskDistribution) -> tuple[int, ...]:
    """The class indices of a split, or an error that says why there is none."""
    if parts is None:
        raise ValueError(f"expected the whole distribution to split, got {owner!r}, which is a split already")
    if name not in parts:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {name!r}")
    if not parts[name]:
        sizes = ", ".join(f"{key} {len(value)}" for key, value in parts.items())
        raise ValueError(
            f"expected at least one class in the {name} split of {owner.name}, got none ({sizes}); "
            "give more classes or other split fractions"
        )
    return parts[name]
