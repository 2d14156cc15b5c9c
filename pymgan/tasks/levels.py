"""Images of more than eight bits a channel: which of their numbers is white."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["eight_bits", "is_wide"]

# Formats that Pillow opens as 32 bits ("I") though they hold 16, scaled to 0..65535.
_SIXTEEN = frozenset({"PNG", "PPM"})


def is_wide(image: Image.Image) -> bool:
    """Whether a pixel is one number of 16 or 32 bits, which Pillow would cut at 255 instead of scaling it."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def eight_bits(image: Image.Image, file: Path, coded: str | None) -> Image.Image:
    """A wide image as 8-bit grey.

    Args:
        image: see `is_wide`. 16 bits are scaled from 0..65535, floats from 0..1, and 32-bit integers as 16 bits.
        file: for the error.
        coded: the format of the file, as Pillow calls it.

    Raises:
        ValueError: numbers outside, or 32-bit integers that could as well be meant as 8 bits.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(
                f"expected floats from 0 (black) to 1 (white) in {file}, got {low:g} to {high:g}; scale them "
                "to that, or save the image with 8 or 16 bits"
            )
        return Image.fromarray((values.astype(np.float64) * 255).round().astype(np.uint8))
    if not (low >= 0 and high <= 65535):
        raise ValueError(
            f"expected integers from 0 (black) to 65535 (white) in {file}, got {low} to {high}; save the image "
            "with 8 or 16 bits"
        )
    if image.mode == "I" and coded not in _SIXTEEN and 0 < high <= 255:
        raise ValueError(
            f"expected 32-bit integers to reach beyond 255, as 16-bit levels do, in {file}, got at most {high}, "
            "which may be white or nearly black; save the image with 8 or 16 bits"
        )
    return Image.fromarray((values.astype(np.int64) // 257).astype(np.uint8))
