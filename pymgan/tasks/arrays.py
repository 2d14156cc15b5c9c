"""Tasks from arrays that a user already has."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from .pooled import Pooled, split_by_fractions

__all__ = ["from_arrays", "to_samples"]


def from_arrays(
    arrays: Iterable[Any],
    names: Sequence[str] | None = None,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    *,
    name: str = "arrays",
) -> Pooled:
    """A task distribution with one class per array.

    Args:
        arrays: one [n_i, *sample] per class, n_i >= 2, of different lengths if need be: tensors, arrays, or
            anything with `__dlpack__` or the array interface. uint8 is scaled from 0..255 to [-1, 1] and bool
            to -1 and 1; other numbers are taken as they are and must be finite. Other integers than uint8 that
            leave [-1, 1] in images [C, H, W] are warned of: they are most often levels that were to be scaled.
        names: one per array; "0", "1", ... by default. The split depends on them.
        split: fractions of the classes for train, validation and test.
        seed: another one gives another split.
        name: of the distribution.

    Raises:
        ValueError: no arrays, wrong or different shapes, NaN or infinity, too few samples, names that are not
            distinct.
        TypeError: something that holds no real numbers.
    """
    if isinstance(arrays, (str, bytes)) or not isinstance(arrays, Iterable):
        raise TypeError(f"expected a list of arrays, one per task, got {type(arrays).__name__}")
    read = [_read(value, f"array {index}") for index, value in enumerate(arrays)]
    samples = [one for one, _ in read]
    if not samples:
        raise ValueError("expected at least one array, got an empty list")
    labels = (
        [str(value) for value in names]
        if names is not None
        else [str(index) for index in range(len(samples))]
    )
    if len(labels) != len(samples):
        raise ValueError(f"expected {len(samples)} names, one per array, got {len(labels)}")
    twice = sorted({value for value in labels if labels.count(value) > 1})
    if twice:
        raise ValueError(f"expected distinct names, got {twice[0]!r} more than once")
    for label, one in zip(labels, samples, strict=True):
        if one.shape[1:] != samples[0].shape[1:]:
            raise ValueError(
                f"expected samples of one shape, got {list(samples[0].shape[1:])} in {labels[0]!r} and "
                f"{list(one.shape[1:])} in {label!r}"
            )
        if len(one) < 2:
            raise ValueError(
                f"expected at least 2 samples per class, for support and queries, got {len(one)} in {label!r}"
            )
    distribution = Pooled(name, samples, labels, split_by_fractions(labels, split, f"{name}/{seed}"))
    _say_range([one for one, integers in read if integers and one.ndim == 4])
    return distribution


def _say_range(images: Sequence[Tensor]) -> None:
    """Warn where images of integers, which nothing has scaled, leave what a tanh can make."""
    if not images:
        return
    low, high = min(float(one.min()) for one in images), max(float(one.max()) for one in images)
    if low < -1 or high > 1:
        warnings.warn(
            f"the images hold integers from {low:g} to {high:g}, which are taken as they are, but generators "
            "that end in tanh, as those of pymgan.arch do, make -1 to 1; give levels of 0 to 255 as uint8, which "
            "are scaled, or scale them to [-1, 1]",
            stacklevel=3,
        )


def to_samples(value: Any, what: str = "array") -> Tensor:
    """float32 samples [n, *sample] on the CPU, contiguous; see `from_arrays` for what is accepted.

    Raises:
        ValueError: no axis of samples, an empty axis, or numbers that are not finite.
        TypeError: something that holds no real numbers.
    """
    return _read(value, what)[0]


def _read(value: Any, what: str) -> tuple[Tensor, bool]:
    """`to_samples`, and whether they were integers that nothing has scaled."""
    tensor, integers = _to_tensor(value, what)
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise ValueError(
            f"expected {what} of shape [n, *sample] without empty dimensions, got {list(tensor.shape)}"
        )
    if tensor.dtype == torch.uint8:
        return tensor.to("cpu", torch.float32).div_(127.5).sub_(1).contiguous(), False
    if tensor.dtype == torch.bool:
        return tensor.to("cpu", torch.float32).mul_(2).sub_(1).contiguous(), False
    # Always a copy: a distribution must not change when the user's array does.
    samples = torch.empty(tensor.shape, dtype=torch.float32).copy_(tensor)
    finite = torch.isfinite(samples).flatten(1).all(1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        first = int(torch.nonzero(~finite)[0])
        raise ValueError(
            f"expected finite numbers in {what}, got NaN or infinity in {bad} of {len(samples)} samples, "
            f"the first in sample {first}"
        )
    return samples, integers


def _to_tensor(value: Any, what: str) -> tuple[Tensor, bool]:
    """The values as they are, and whether their dtype is one of integers."""
    if isinstance(value, Tensor):
        tensor, integers = value.detach(), _of_integers(value)
    else:
        tensor, integers = _imported(value, what)
    if tensor.device.type == "meta":
        raise ValueError(f"expected {what} to hold values, got a tensor on the device 'meta'")
    if tensor.dtype.is_complex or tensor.is_quantized or tensor.layout != torch.strided:
        raise TypeError(
            f"expected {what} to hold real numbers in a dense layout, got {tensor.dtype}, {tensor.layout}"
        )
    return tensor, integers


def _of_integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _imported(value: Any, what: str) -> tuple[Tensor, bool]:
    arrayish = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    try:
        if hasattr(value, "__dlpack__") and not arrayish:
            tensor = from_dlpack(value).detach()
            return tensor, _of_integers(tensor)
        array = np.asarray(value)
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        raise TypeError(
            f"expected {what} to be an array of numbers, got {type(value).__name__} ({error})"
        ) from error
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"expected {what} to be an array of real numbers, got {type(value).__name__} of {array.dtype}"
        )
    integers = array.dtype.kind in "ui"
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(
            np.int64 if array.itemsize < 8 else np.float64
        )  # torch computes with no wider unsigned numbers
    if array.dtype.kind == "f" and array.itemsize > 8:
        array = array.astype(np.float64)
    # ascontiguousarray and the native byte order: torch takes neither negative strides nor foreign bytes.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C")), integers
