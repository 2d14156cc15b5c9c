"""A user's own samples: arrays of any kind, checked before they reach an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_samples", "image_format"]


def as_samples(value: Any, shape: Sequence[int], *, least: int = 1) -> Tensor:
    """Samples [S, *shape], float32 on the CPU.

    Args:
        value: a tensor, an array, anything with `__dlpack__` or the array interface, or nested numbers.
        shape: of one sample.
        least: the smallest S.

    Raises:
        TypeError: it is not numeric.
        ValueError: wrong shape, too few samples, or values that are not finite.
    """
    tensor = _tensor(value)
    shape = tuple(shape)
    expected = f"expected samples of shape [S, {', '.join(map(str, shape))}]"
    if tuple(tensor.shape) == shape:
        raise ValueError(f"{expected}, got one sample of shape {list(shape)}; stack at least {least} of them")
    if tensor.ndim != len(shape) + 1 or tuple(tensor.shape[1:]) != shape:
        if tensor.ndim == len(shape) and shape[:1] == (1,) and tuple(tensor.shape[1:]) == shape[1:]:
            tensor = tensor.unsqueeze(1)  # grey images without their channel axis
        else:
            raise ValueError(f"{expected}, got {list(tensor.shape)}")
    if tensor.device.type == "meta":
        raise ValueError("expected samples with values, got a tensor on the device 'meta'")
    if tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise TypeError(f"expected real numbers, got {tensor.dtype}")
    if tensor.dtype == torch.uint8:
        raise TypeError(
            "expected samples in the range of the training data, got uint8; scale images with x / 127.5 - 1"
        )
    if len(tensor) < least:
        raise ValueError(f"expected at least {least} samples, got {len(tensor)}")
    tensor = tensor.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor.reshape(len(tensor), -1)).all(1)).sum())
        raise ValueError(f"expected finite samples, got NaN or infinity in {bad} of {len(tensor)}")
    return tensor


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        if (
            hasattr(value, "__array__")
            or hasattr(value, "__array_interface__")
            or not hasattr(value, "__dlpack__")
        ):
            return torch.as_tensor(
                np.array(value)
            )  # a copy: the array may be read-only or strided in ways torch cannot hold
        return torch.utils.dlpack.from_dlpack(value)
    except (TypeError, ValueError, BufferError) as error:
        raise TypeError(f"expected an array of numbers, got {type(value).__name__} ({error})") from error


def image_format(shape: Sequence[int]) -> tuple[int, int]:
    """Side in pixels and channels of the images that samples of a shape are: (16, 1) for [1, 16, 16].

    Raises:
        ValueError: they are not square images in grey or colour.
    """
    shape = tuple(shape)
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise ValueError(
            f"expected a run on images [1, N, N] or [3, N, N], got samples of shape {list(shape)}; "
            "adapt to them in Python, with Run.adapt"
        )
    return shape[1], shape[0]
