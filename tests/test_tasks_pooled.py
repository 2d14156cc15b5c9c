"""from_arrays, digits: what they accept, what it becomes, how tasks are drawn."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pymgan import tasks
from pymgan.tasks import Pooled, TaskBatch, from_arrays, to_samples
from pymgan.tasks.pooled import split_by_fractions


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbered(*sizes: int) -> list[np.ndarray]:
    """Classes whose samples [2] are (class, number): every sample says where it comes from."""
    return [
        np.stack((np.full(size, index), np.arange(size)), axis=1).astype(np.float32)
        for index, size in enumerate(sizes)
    ]


# --- drawing


def test_support_and_queries_share_no_sample() -> None:
    distribution = from_arrays(numbered(12, 30, 9, 16, 20, 11))
    batch = distribution.sample(60, 4, 5, generator())
    assert batch.support.shape == (60, 4, 2)
    assert batch.query.shape == (60, 5, 2)
    for task in range(60):
        own = {int(value) for value in torch.cat((batch.support[task], batch.query[task]))[:, 0]}
        assert own == {int(batch.classes[task])}, "a sample of another class"
        numbers = torch.cat((batch.support[task], batch.query[task]))[:, 1].tolist()
        assert len(set(numbers)) == 9


def test_every_sample_is_drawn_sooner_or_later() -> None:
    distribution = from_arrays(numbered(7, 7, 7))
    batch = distribution.sample(3000, 2, 2, generator())
    for side in (batch.support, batch.query):
        counts = Counter((int(a), int(b)) for a, b in side.flatten(0, 1).tolist())
        assert len(counts) == 21
        assert max(counts.values()) < 1.4 * min(counts.values())


def test_repeated_tasks_are_the_same_ones() -> None:
    """With all that belongs to them, the place in a pool as well."""
    drawn = from_arrays(numbered(12, 9, 10)).sample(5, 3, 4, generator())
    pool = torch.arange(40.0).view(20, 2)
    index = torch.arange(15, dtype=torch.int32).view(5, 3)
    batch = TaskBatch(drawn.support, drawn.query, drawn.ids, drawn.classes, pool, index)
    repeated = batch.repeat(3)
    assert repeated.support_pool is pool
    for name in ("support", "query", "ids", "support_index"):
        once, thrice = getattr(batch, name), getattr(repeated, name)
        assert len(thrice) == 15
        for row in range(15):
            assert torch.equal(thrice[row], once[row // 3])
    assert repeated.classes == [name for name in batch.classes for _ in range(3)]
    assert drawn.repeat(2).support_index is None


def test_too_few_samples_are_drawn_with_replacement_and_said_once() -> None:
    distribution = from_arrays(numbered(5, 2, 40), split=(1, 0, 0))
    with pytest.warns(
        UserWarning, match=r"2 of 3 classes of arrays have less than 8 \+ 4 samples .* replacement"
    ):
        batch = distribution.sample(30, 8, 4, generator())
    for task, name in enumerate(batch.classes):
        support = {int(value) for value in batch.support[task, :, 1]}
        query = {int(value) for value in batch.query[task, :, 1]}
        assert not support & query
        if name == "0":  # five samples in the ratio 8 to 4, each used
            assert (len(support), len(query)) == (3, 2)
        if name == "1":
            assert (len(support), len(query)) == (1, 1)
        if name == "2":
            assert (len(support), len(query)) == (8, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distribution.sample(30, 8, 4, generator())
        distribution.split("train").sample(30, 8, 4, generator())


@pytest.mark.parametrize(("shots", "queries"), [(8, 1), (1, 8), (30, 2)])
def test_two_samples_are_one_for_each_side(shots: int, queries: int) -> None:
    with pytest.warns(UserWarning, match="replacement"):
        batch = from_arrays(numbered(2, 2, 2)).sample(3, shots, queries, generator())
    for task in range(3):
        assert {float(batch.support[task, 0, 1]), float(batch.query[task, 0, 1])} == {0.0, 1.0}
        assert len(batch.support[task].unique(dim=0)) == len(batch.query[task].unique(dim=0)) == 1


def test_the_generator_decides_everything() -> None:
    distribution = from_arrays(numbered(12, 13, 14))
    one, same, other = (distribution.sample(6, 3, 3, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.support, same.support)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.ids, other.ids)
    again = pickle.loads(pickle.dumps(distribution))
    assert torch.equal(again.sample(6, 3, 3, generator(1)).query, one.query)
    assert again.fingerprint == distribution.fingerprint


def test_fingerprint_is_of_data_names_and_splits() -> None:
    changed = numbered(4, 5, 6)
    changed[1][0, 0] += 1e-3
    distributions = [
        from_arrays(numbered(4, 5, 6)),
        from_arrays(changed),
        from_arrays(numbered(4, 6, 5)),
        from_arrays(numbered(4, 5, 6), names=["a", "b", "c"]),
        from_arrays(numbered(4, 5, 6), split=(0.4, 0.6, 0)),
        from_arrays(numbered(4, 5, 6)).split("train"),
    ]
    assert len({one.fingerprint for one in distributions}) == len(distributions)
    assert from_arrays(numbered(4, 5, 6)).fingerprint == distributions[0].fingerprint


# --- splits


def test_splits_are_disjoint_and_whole() -> None:
    distribution = from_arrays(numbered(*range(2, 42)))
    parts = [distribution.split(name) for name in ("train", "validation", "test")]
    assert [len(one.classes) for one in parts] == [32, 4, 4]
    assert sorted(sum((one.classes for one in parts), ()), key=int) == [str(n) for n in range(40)]
    for one in parts:
        for name, size in zip(one.classes, one.sizes, strict=True):
            assert size == int(name) + 2, "a class under another's name"


def test_splits_depend_on_names_and_seed_alone() -> None:
    def test_classes(**options: Any) -> tuple[str, ...]:
        return from_arrays(numbered(*[3] * 40), **options).split("test").classes

    assert test_classes() == test_classes()
    assert test_classes(seed=1) != test_classes()
    names = [f"class {number}" for number in range(40)]
    assert sorted(test_classes(names=names)) == sorted(test_classes(names=names[::-1]))


def test_every_part_gets_a_class_where_there_are_enough() -> None:
    for count in range(3, 12):
        parts = split_by_fractions([str(n) for n in range(count)], (0.8, 0.1, 0.1), "salt")
        sizes = [len(parts[name]) for name in ("train", "validation", "test")]
        assert sum(sizes) == count
        assert min(sizes) >= 1
        assert sizes[0] == max(sizes)


def test_a_part_that_was_not_asked_for_is_an_error_when_asked() -> None:
    distribution = from_arrays(numbered(3, 3, 3), split=(0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match="at least one class in the validation split of arrays, got none"):
        distribution.split("validation")
    with pytest.raises(ValueError, match="expected a split of train, validation, test, got 'all'"):
        distribution.split("all")
    with pytest.raises(ValueError, match="which is a split already"):
        distribution.split("train").split("train")


@pytest.mark.parametrize(
    "split", [(0.5, 0.5), (0.8, 0.3, -0.1), (0.5, 0.2, 0.2), "abc", None, (float("nan"), 0.5, 0.5)]
)
def test_wrong_fractions(split: Any) -> None:
    with pytest.raises(ValueError, match=r"expected split=\(train, validation, test\)"):
        from_arrays(numbered(3, 3, 3), split=split)


def test_too_few_classes_to_split() -> None:
    with pytest.raises(ValueError, match=r"expected at least 3 classes .*, got 2"):
        from_arrays(numbered(3, 3))


# --- arrays of all kinds


class OnlyDlpack:
    """What a library that is not numpy and not torch offers."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class OnlyInterface:
    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


VALUES = np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v,
        lambda v: v.astype(np.float64),
        lambda v: v.astype(np.float16),
        lambda v: v.astype(">f8"),
        lambda v: v.astype(np.longdouble),
        lambda v: np.asfortranarray(v),
        lambda v: v[::-1].copy()[::-1],
        lambda v: torch.from_numpy(v.copy()),
        lambda v: torch.from_numpy(v.copy()).bfloat16(),
        lambda v: torch.from_numpy(v.copy()).double().requires_grad_(),
        lambda v: torch.from_numpy(v.copy()).transpose(0, 2).contiguous().transpose(0, 2),
        lambda v: v.tolist(),
        lambda v: OnlyDlpack(torch.from_numpy(v.copy())),
        lambda v: OnlyInterface(v),
    ],
)
def test_what_is_accepted(make: Callable[[np.ndarray], Any]) -> None:
    got = to_samples(make(VALUES))
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert not got.requires_grad
    assert torch.equal(got, torch.from_numpy(VALUES))


def test_read_only_arrays_and_later_changes() -> None:
    array = VALUES.copy()
    tensor = torch.from_numpy(VALUES.copy())
    array.setflags(write=False)
    kept = [to_samples(array), to_samples(tensor), to_samples(OnlyDlpack(tensor))]
    tensor.zero_()
    for one in kept:
        assert torch.equal(one, torch.from_numpy(VALUES)), "a change of the user's data got through"


def test_bytes_are_images_and_other_integers_are_numbers() -> None:
    levels = np.array([[0, 51, 255]], dtype=np.uint8)
    assert to_samples(levels)[0].tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert to_samples(torch.from_numpy(levels))[0].tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert to_samples(np.array([[True, False]])).tolist() == [[1.0, -1.0]]
    for kind in (np.int8, np.int64, np.uint16, np.uint32, np.uint64):
        assert to_samples(np.array([[0, 51, 100]], dtype=kind)).tolist() == [[0.0, 51.0, 100.0]]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (np.zeros((0, 3)), ValueError, r"expected array of shape \[n, \*sample\] .*, got \[0, 3\]"),
        (np.zeros((3, 0)), ValueError, r"got \[3, 0\]"),
        (np.zeros(3), ValueError, r"got \[3\]"),
        (3.0, ValueError, r"got \[\]"),
        (
            np.array([[1.0, np.nan], [0.0, 1.0], [np.inf, 0.0]]),
            ValueError,
            "NaN or infinity in 2 of 3 .* sample 0",
        ),
        (np.array([[0.0], [1e300]]), ValueError, "NaN or infinity in 1 of 2 samples, the first in sample 1"),
        (torch.zeros(2, 2, device="meta"), ValueError, "the device 'meta'"),
        (np.zeros((2, 2), dtype=complex), TypeError, "ndarray of complex128"),
        (torch.zeros(2, 2, dtype=torch.complex64), TypeError, "complex64"),
        (torch.zeros(2, 2).to_sparse(), TypeError, "sparse"),
        (np.array([["a", "b"]]), TypeError, "real numbers"),
        ([[1.0, 2.0], [3.0]], TypeError, "expected array to be an array of numbers, got list"),
        (object(), TypeError, "got object"),
        (np.zeros((2, 2), dtype="datetime64[s]"), TypeError, "datetime64"),
    ],
)
def test_what_is_refused(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        to_samples(value)


@pytest.mark.parametrize(
    ("arrays", "options", "kind", "message"),
    [
        ([], {}, ValueError, "expected at least one array, got an empty list"),
        (7, {}, TypeError, "expected a list of arrays, one per task, got int"),
        ("abc", {}, TypeError, "expected a list of arrays, one per task, got str"),
        ([np.zeros((3, 2)), np.zeros((3, 4))], {}, ValueError, r"got \[2\] in '0' and \[4\] in '1'"),
        (
            [np.zeros((3, 2)), np.zeros((1, 2))],
            {},
            ValueError,
            "at least 2 samples per class, .* got 1 in '1'",
        ),
        ([np.zeros((3, 2)), np.full((3, 2), np.nan)], {}, ValueError, "in array 1, got NaN"),
        ([np.zeros((3, 2))] * 3, {"names": ["a", "b"]}, ValueError, "expected 3 names, one per array, got 2"),
        (
            [np.zeros((3, 2))] * 3,
            {"names": ["a", "b", "a"]},
            ValueError,
            "distinct names, got 'a' more than once",
        ),
    ],
)
def test_wrong_lists(arrays: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        from_arrays(arrays, **options)


def test_arrays_of_one_tensor() -> None:
    distribution = from_arrays(
        torch.zeros(5, 4, 1, 8, 8, dtype=torch.uint8), names=list("abcde"), name="mine"
    )
    assert distribution.name == "mine"
    assert distribution.sample_shape == (1, 8, 8)
    assert distribution.sample(2, 2, 2, generator()).support.unique().tolist() == [-1.0]


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("give", [lambda levels: levels, lambda levels: levels.tolist()])
def test_images_of_integers_that_no_tanh_makes_are_warned_of(kind: Any, give: Any) -> None:
    levels = np.arange(3 * 64).reshape(3, 1, 8, 8) % 101
    with pytest.warns(UserWarning, match="integers from 0 to 100, .* -1 to 1; give .* as uint8") as caught:
        distribution = from_arrays(
            [give((levels % 7).astype(kind)), give(levels.astype(kind))], split=(1, 0, 0)
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert distribution.sample(2, 2, 1, generator()).support.max() > 1


def test_tensors_of_integers_are_warned_of_too() -> None:
    levels = torch.arange(2 * 16).reshape(2, 1, 4, 4) - 9
    for value in (levels, OnlyDlpack(levels)):
        with pytest.warns(UserWarning, match="integers from -9 to 22"):
            from_arrays([value], split=(1, 0, 0))


def test_other_numbers_are_not_warned_of() -> None:
    images = np.arange(3 * 64).reshape(3, 1, 8, 8)
    for value in (images / 2, images.astype(np.uint8), images % 2, images % 3 - 1, images.reshape(3, 8, 8)):
        from_arrays([value], split=(1, 0, 0))


# --- digits


def test_digits() -> None:
    digits = tasks.digits()
    assert isinstance(digits, Pooled)
    assert digits.sample_shape == (1, 8, 8)
    assert sum(digits.sizes) == 1797
    assert digits.split("train").classes == tuple("01234567")
    assert digits.split("validation").classes == ("8",)
    assert digits.split("test").classes == ("9",)
    batch = digits.sample(20, 8, 8, generator())
    levels = batch.support.unique()
    assert torch.equal(levels, torch.arange(17) / 8 - 1)
    # A zero has a hole, a one has none.
    middle = {name: batch.support[task, :, 0, 3:5, 3:5].mean() for task, name in enumerate(batch.classes)}
    assert middle["0"] < -0.5 < middle["1"]


def test_larger_digits() -> None:
    large = tasks.digits(16)
    assert (large.name, large.sample_shape) == ("digits16", (1, 16, 16))
    small = tasks.digits()
    one, other = large.sample(4, 3, 3, generator()), small.sample(4, 3, 3, generator())
    assert one.classes == other.classes
    shrunk = torch.nn.functional.avg_pool2d(one.support.flatten(0, 1), 2)
    assert float((shrunk - other.support.flatten(0, 1)).abs().mean()) < 0.15
    with pytest.raises(ValueError, match="expected size to be a whole number >= 8, got 7"):
        tasks.digits(7)


# --- names and batches


def test_get() -> None:
    assert tasks.get("digits").name == "digits"
    assert tasks.get("rings").name == "rings"
    with pytest.raises(
        ValueError, match=r"one of glyphs, glyphs32, digits, rings, or a folder .*, got 'omniglot'"
    ):
        tasks.get("omniglot")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": torch.zeros(2, 3)}, r"expected a support \[T, S, \*sample\]"),
        ({"support": torch.zeros(2, 0, 4)}, "without empty dimensions"),
        ({"query": torch.zeros(2, 3, 5)}, r"expected queries \[2, Q, 4\] like the support, got \[2, 3, 5\]"),
        ({"query": torch.zeros(1, 3, 4)}, "expected queries"),
        ({"ids": torch.zeros(2)}, r"expected ids int64 \[2\], got torch.float32"),
        ({"ids": torch.arange(3)}, r"got torch.int64 \[3\]"),
        ({"classes": ["a"]}, "expected 2 class names, got 1"),
        ({"support_pool": torch.zeros(9, 4)}, "together, got one of them"),
        (
            {"support_pool": torch.zeros(9, 4), "support_index": torch.zeros(2, 2, dtype=torch.int32)},
            r"expected support_index \[2, 3\], got \[2, 2\]",
        ),
    ],
)
def test_wrong_batches(changes: dict[str, Any], message: str) -> None:
    right = {
        "support": torch.zeros(2, 3, 4),
        "query": torch.zeros(2, 5, 4),
        "ids": torch.arange(2),
        "classes": ["a", "b"],
    }
    TaskBatch(**right)
    with pytest.raises(ValueError, match=message):
        TaskBatch(**(right | changes))
