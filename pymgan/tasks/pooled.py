"""Classes with a finite number of samples each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .base import SPLITS, TaskBatch, TaskDistribution, check_draw, deal, digest, draw_ids, hashed_order, part

__all__ = ["Pooled", "split_by_fractions"]


class Pooled(TaskDistribution):
    """Every class holds some samples; a task is a class, with support and queries drawn from its samples.

    Support and queries are drawn without replacement. A class with fewer than shots + queries samples is cut
    into two parts in the ratio of the two; a part that is smaller than what is asked of it gives all its
    samples once and the rest with replacement, and a warning says so once.

    Args:
        name: of the distribution.
        samples: one float32 tensor [n_i, *sample] per class, n_i >= 2.
        names: one per class, distinct.
        parts: class indices of each split; None for a distribution that is a split already.
        split_name: which one it is then.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Tensor],
        names: Sequence[str],
        parts: Mapping[str, tuple[int, ...]] | None,
        split_name: str = "",
    ) -> None:
        self.name = name
        self.sample_shape = tuple(samples[0].shape[1:])
        self.classes = tuple(names)
        self._samples = tuple(samples)
        self._parts = parts
        self._split = split_name
        self._said: set[str] = set()  # shared with the splits, so that a warning is given once

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of samples of each class."""
        return tuple(len(one) for one in self._samples)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all samples, names and splits."""
        contents = [one.contiguous().numpy().tobytes() for one in self._samples]
        return digest(
            "pooled/1",
            self._split,
            repr(self.sample_shape),
            repr(self.classes),
            repr(self.sizes),
            repr(self._parts),
            *contents,
        )

    def sample(self, n_tasks: int, shots: int, queries: int, rng: np.random.Generator) -> TaskBatch:
        """See `TaskDistribution.sample`."""
        check_draw(n_tasks, shots, queries, rng)
        chosen = deal(n_tasks, len(self.classes), rng)
        support, query = [], []
        for index in chosen:
            samples = self._samples[index]
            picked = torch.from_numpy(self._pick(int(index), shots, queries, rng))
            support.append(samples[picked[:shots]])
            query.append(samples[picked[shots:]])
        names = [self.classes[index] for index in chosen]
        return TaskBatch(torch.stack(support), torch.stack(query), draw_ids(n_tasks, rng), names)

    def split(self, name: str) -> Pooled:
        """See `TaskDistribution.split`."""
        indices = part(self._parts, name, self)
        one = Pooled(
            self.name, [self._samples[i] for i in indices], [self.classes[i] for i in indices], None, name
        )
        one._said = self._said
        return one

    def _pick(self, index: int, shots: int, queries: int, rng: np.random.Generator) -> np.ndarray:
        """Sample numbers [shots + queries] of one task: the support first."""
        size = len(self._samples[index])
        if shots + queries <= size:
            return rng.choice(size, size=shots + queries, replace=False)
        self._say_once(index, shots, queries)
        for_support = min(max(round(size * shots / (shots + queries)), 1), size - 1)
        order = rng.permutation(size)
        return np.concatenate(
            (_stretch(order[:for_support], shots, rng), _stretch(order[for_support:], queries, rng))
        )

    def _say_once(self, index: int, shots: int, queries: int) -> None:
        if "replacement" in self._said:
            return
        self._said.add("replacement")
        few = sum(size < shots + queries for size in self.sizes)
        warnings.warn(
            f"{few} of {len(self.classes)} classes of {self.name} have less than {shots} + {queries} samples "
            f"({self.classes[index]!r}: {self.sizes[index]}): drawing with replacement, queries apart",
            stacklevel=4,
        )


def split_by_fractions(
    names: Sequence[str], fractions: Sequence[float], salt: str
) -> dict[str, tuple[int, ...]]:
    """Class indices of each split, by the hash of the names; at least one where the fraction is above 0.

    Raises:
        ValueError: fractions are not three numbers >= 0 that add up to 1.
    """
    try:
        shares = [float(value) for value in fractions]
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected split=(train, validation, test), got {fractions!r}") from error
    if (
        len(shares) != 3
        or any(not 0 <= value <= 1 for value in shares)
        or not math.isclose(sum(shares), 1, abs_tol=1e-6)
    ):
        raise ValueError(
            f"expected split=(train, validation, test), three fractions that add up to 1, got {tuple(shares)}"
        )
    order = hashed_order(names, salt)
    counts = [max(round(value * len(names)), int(value > 0)) for value in shares]
    # What rounding gave too much or too little is taken from the largest part, most often train.
    counts[counts.index(max(counts))] += len(names) - sum(counts)
    if min(counts) < 0 or any(count == 0 and share > 0 for count, share in zip(counts, shares, strict=True)):
        raise ValueError(
            f"expected at least {sum(share > 0 for share in shares)} classes for split={tuple(shares)}, got "
            f"{len(names)}"
        )
    ends = np.cumsum([0, counts[2], counts[1], counts[0]])
    pieces = [tuple(sorted(order[a:b])) for a, b in pairwise(ends)]
    return dict(zip(SPLITS, reversed(pieces), strict=True))


def _stretch(items: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the items: each once as far as they go, the rest with replacement."""
    if count <= len(items):
        return items[:count]
    return np.concatenate((items, rng.choice(items, size=count - len(items))))
