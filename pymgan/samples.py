"""A user's own samples: arrays of any kind, or a folder of images, checked before they reach an engine."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_samples", "read_images"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


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


def read_images(folder: str | os.PathLike[str], shape: Sequence[int]) -> Tensor:
    """The images of a folder [S, *shape] in [-1, 1], in the order of their names, resized where they need it.

    Args:
        folder: every image file in it belongs to the task.
        shape: [H, W], [1, H, W] (made grey) or [3, H, W].

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: a file is not a readable image, or samples of this shape are not images.
    """
    shape = tuple(shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
        raise ValueError(
            f"expected a run on images, [H, W], [1, H, W] or [3, H, W], got samples of shape {list(shape)}"
        )
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"expected a folder of images, got {path}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"expected images ({', '.join(sorted(_SUFFIXES))}) in {path}, found none")
    size, mode = (shape[-1], shape[-2]), "RGB" if shape[0] == 3 and len(shape) == 3 else "L"
    images, resized = [], 0
    for file in files:
        pixels, other = _read_image(file, size, mode)
        images.append(pixels)
        resized += other
    if resized:
        warnings.warn(
            f"{resized} of {len(files)} images in {path} were resized to {size[0]}x{size[1]}", stacklevel=2
        )
    stack = torch.from_numpy(np.stack(images)).to(torch.float32) / 127.5 - 1
    return stack.permute(0, 3, 1, 2).contiguous() if mode == "RGB" else stack.reshape(-1, *shape)


def _read_image(file: Path, size: tuple[int, int], mode: str) -> tuple[np.ndarray[Any, Any], bool]:
    """Pixels uint8 [H, W] or [H, W, 3], and whether they had to be resized."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            plain = image.convert(mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {file}: {error}; remove or replace it") from error
    if plain.size == size:
        return np.asarray(plain), False
    return np.asarray(plain.resize(size, Image.Resampling.LANCZOS)), True
