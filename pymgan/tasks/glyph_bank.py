"""Every character in every face, drawn once, ready to be resampled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import cache
from .base import digest
from .glyph_alphabet import ALPHABET, LEAST_FACES
from .glyph_fonts import FACES, Face

__all__ = ["GlyphBank", "load_bank"]

# All faces are drawn at one size, an em of 0.8 of the image's side: capitals are then about 0.6 high. The few
# characters that are larger than the box are drawn smaller to fit, or an affine change would push them over
# the edge.
EM, BOX = 0.8, 0.76
# The bank has 2 pixels for one of the samples: averaging over half a pixel and then interpolating linearly
# between those is close to the mean over a pixel's area.
DENSITY = 2
DRAWN = 128  # pixels that the canvas has at least, so that hinting moves nothing that would be seen
_VERSION = "glyph-bank/1"


@dataclass(frozen=True)
class GlyphBank:
    """The drawn characters.

    Attributes:
        images: uint8 [N, side, side], side = `DENSITY` times the sample's; ink is 255.
        rows: int64 [characters, faces], index into images, -1 where the face does not hold the character.
    """

    images: Tensor
    rows: np.ndarray


def load_bank(size: int) -> GlyphBank:
    """The bank for samples of size x size.

    From the cache on disk, or drawn, which takes some seconds, and cached.
    """
    name = f"glyphs{size}-{_key(size)[:16]}"
    arrays = cache.load(name)
    if arrays is None:
        images, rows = _draw_all(size)
        cache.store(name, {"images": images, "rows": rows})
    else:
        images, rows = arrays["images"], arrays["rows"]
    return GlyphBank(torch.from_numpy(images), rows)


def _key(size: int) -> str:
    """A hash of all that the pictures depend on."""
    import matplotlib
    import PIL
    from PIL import features

    versions = (matplotlib.__version__, PIL.__version__, str(features.version("freetype2")))
    return digest(_VERSION, *versions, ALPHABET, repr(FACES), repr((size, EM, BOX, DENSITY, DRAWN)))


def _draw_all(size: int) -> tuple[np.ndarray, np.ndarray]:
    faces = [Face(name) for name in FACES]
    images: list[np.ndarray] = []
    rows = np.full((len(ALPHABET), len(faces)), -1, dtype=np.int64)
    for index, character in enumerate(ALPHABET):
        for number, face in enumerate(faces):
            if ord(character) not in face.characters:
                continue
            drawn = _draw(face, character, size)
            if drawn.any():
                rows[index, number] = len(images)
                images.append(drawn)
    few = [character for character, row in zip(ALPHABET, rows, strict=True) if (row >= 0).sum() < LEAST_FACES]
    if few:
        raise RuntimeError(
            f"expected at least {LEAST_FACES} faces of this matplotlib for every character, got fewer for "
            f"{''.join(few[:20])!r}; "
            "install the version in constraints.txt"
        )
    return np.stack(images), rows


def _draw(face: Face, character: str, size: int) -> np.ndarray:
    """One character, centred, uint8 [DENSITY size, DENSITY size]."""
    block = max(2, DRAWN // (DENSITY * size))  # drawn pixels along one of the bank's
    side = DENSITY * size
    canvas = block * side
    box = int(BOX * canvas)
    pixels_per_em = round(EM * canvas)
    image = face.draw(character, pixels_per_em)
    while max(image.shape) > box:
        pixels_per_em = min(int(pixels_per_em * box / max(image.shape)), pixels_per_em - 1)
        image = face.draw(character, pixels_per_em)
    full = np.zeros((canvas, canvas), dtype=np.float32)
    top, left = ((canvas - length) // 2 for length in image.shape)
    full[top : top + image.shape[0], left : left + image.shape[1]] = image
    coarse = full.reshape(side, block, side, block).mean((1, 3))
    return np.asarray(np.rint(coarse), dtype=np.uint8)
