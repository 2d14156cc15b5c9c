"""Tasks from images on disk."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .levels import eight_bits, is_wide
from .pooled import Pooled, split_by_fractions

__all__ = ["from_folder", "load_images"]

_MODES = {1: "L", 3: "RGB"}


def from_folder(
    path: str | os.PathLike[str],
    size: int = 16,
    channels: int = 1,
    split: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Pooled:
    """A task distribution from a folder that holds one folder of images per class.

    Images of another size are resized to size x size (the aspect ratio is not kept), and a warning says how
    many. Transparency is laid over white. Hidden files and folders and files that are no images by their name
    are passed over. Images of a class may lie deeper, in one folder within the other, but not in two folders
    side by side: those would be classes of their own. 16-bit grey is scaled from 0..65535, floats from 0..1.

    Args:
        path: the folder of folders.
        size: side of the samples in pixels.
        channels: 1 for grey, 3 for colour.
        split: fractions of the classes for train, validation and test.
        seed: another one gives another split.

    Returns:
        Samples [channels, size, size] in [-1, 1]; the classes are named after their folders.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: no class folders, a class with fewer than two images or with several folders of them, a
            file that cannot be read as an image or whose scale is unknown, or a bad argument.
    """
    root = _folder(path)
    _check(size, channels)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not folders:
        raise ValueError(f"expected one folder of images per class in {root}, got no folders")
    resized = _Resized(size)
    samples = []
    for folder in folders:
        files = _images_in(folder)
        if len(files) < 2:
            raise ValueError(f"expected at least 2 images in the class folder {folder}, got {len(files)}")
        samples.append(_read_all(files, size, channels, resized))
    resized.say()
    names = [folder.name for folder in folders]
    return Pooled(
        root.resolve().name or "folder", samples, names, split_by_fractions(names, split, f"folder/{seed}")
    )


def load_images(path: str | os.PathLike[str], size: int = 16, channels: int = 1) -> Tensor:
    """The images of one folder, in the order of their names: float32 [S, channels, size, size] in [-1, 1].

    Args:
        path: a folder of images of one class, directly or in one folder within the other.
        size: side in pixels; other images are resized, and a warning says how many.
        channels: 1 for grey, 3 for colour.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: no images, several folders of them, a file that cannot be read as an image or whose scale is
            unknown, or a bad argument.
    """
    root = _folder(path)
    _check(size, channels)
    files = _images_in(root)
    if not files:
        raise ValueError(f"expected images in {root}, got none")
    resized = _Resized(size)
    images = _read_all(files, size, channels, resized)
    resized.say()
    return images


class _Resized:
    """Counts what has to be resized, to say it once for all images."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.total = 0
        self.sizes: list[tuple[int, int]] = []

    def saw(self, size: tuple[int, int]) -> None:
        self.total += 1
        if size != (self.size, self.size):
            self.sizes.append(size)

    def say(self) -> None:
        if not self.sizes:
            return
        small, large = (f"{width}x{height}" for width, height in (min(self.sizes), max(self.sizes)))
        came = f"from {small}" if small == large else f"from sizes between {small} and {large}"
        warnings.warn(
            f"resized {len(self.sizes)} of {self.total} images to {self.size}x{self.size}, {came}",
            stacklevel=3,
        )


def _folder(path: str | os.PathLike[str]) -> Path:
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"expected a folder of images, got {root}, which does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"expected a folder of images, got {root}, which is a file")
    return root


def _check(size: int, channels: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"expected size to be a whole number >= 1, got {size!r}")
    if channels not in _MODES:
        raise ValueError(f"expected channels to be 1 (grey) or 3 (colour), got {channels!r}")


def _images_in(folder: Path) -> list[Path]:
    """All images of a class folder, sorted: the order must not depend on the file system."""
    endings = Image.registered_extensions()
    found = []
    for base, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found += [
            Path(base, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in endings
        ]
    _one_class({file.parent for file in found}, folder)
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def _one_class(holders: set[Path], folder: Path) -> None:
    """Raise if two folders side by side hold images, as where classes lie a level deeper than expected."""
    for outer, inner in pairwise(sorted(holders, key=lambda holder: (len(holder.parts), holder))):
        if outer not in inner.parents:
            one, other = (holder.relative_to(folder).as_posix() for holder in (outer, inner))
            raise ValueError(
                f"expected one folder of images a class, got folders within {folder} that hold images side by "
                f"side ({one} and {other}); if they are classes, point to {folder} as the folder of classes, or "
                "to one of them as a class; if they are one class, move its images into one folder"
            )


def _read_all(files: Sequence[Path], size: int, channels: int, resized: _Resized) -> Tensor:
    images = np.stack([_read(file, size, channels, resized) for file in files])
    return torch.from_numpy(images).to(torch.float32).div_(127.5).sub_(1)


def _read(file: Path, size: int, channels: int, resized: _Resized) -> np.ndarray:
    """One image as uint8 [channels, size, size]."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                coded, image = opened.format, ImageOps.exif_transpose(opened)
                if not is_wide(image):
                    image = _flat(image, _MODES[channels])
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        # Pillow names no single base: broken PNG headers are a SyntaxError, cut files an OSError.
        raise ValueError(f"expected a readable image, got {file} ({error}); repair or remove it") from error
    if is_wide(image):
        image = eight_bits(image, file, coded).convert(_MODES[channels])
    resized.saw(image.size)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """Grey or RGB without transparency, of 8 bits already."""
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
