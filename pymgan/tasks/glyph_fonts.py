"""The faces that ship with matplotlib, which characters they hold, and how one is drawn."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

__all__ = ["FACES", "Face", "ink"]

# Left out are LastResortHE (placeholder boxes for every code point), the STIX size and non-Unicode faces,
# cmex10 and cmsy10 (symbols under the code points of letters) and the two Display faces (headline cuts of
# faces that are here).
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmb10",
    "cmmi10",
    "cmr10",
    "cmss10",
    "cmti10",
    "cmtt10",
)


class Face:
    """One of `FACES`.

    Attributes:
        name: of the face.
        path: of its file.
        characters: the code points that it draws.

    Raises:
        FileNotFoundError: this matplotlib does not ship the face.
    """

    def __init__(self, name: str) -> None:
        import matplotlib
        from matplotlib.ft2font import FT2Font

        self.name = name
        self.path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
        if not self.path.is_file():
            raise FileNotFoundError(
                f"expected the faces that ship with matplotlib, got no {self.path}; install matplotlib by pip"
            )
        codes = FT2Font(str(self.path)).get_charmap()
        # Above ASCII the TeX faces map code points to whatever their slot holds.
        self.characters = frozenset(code for code in codes if code < 128 or not name.startswith("cm"))
        self._at = functools.cache(self._open)

    def draw(self, character: str, pixels_per_em: int) -> np.ndarray:
        """The character's ink, uint8 [h, w], without empty rows or columns; [0, 0] where it has none."""
        mask = self._at(pixels_per_em).getmask(character, mode="L")
        image = Image.frombytes("L", mask.size, bytes(mask)) if all(mask.size) else Image.new("L", (1, 1))
        return ink(np.asarray(image))

    def _open(self, pixels_per_em: int) -> ImageFont.FreeTypeFont:
        # The basic layout needs no libraqm, which not every Pillow has.
        return ImageFont.truetype(str(self.path), pixels_per_em, layout_engine=ImageFont.Layout.BASIC)


def ink(image: np.ndarray) -> np.ndarray:
    """An image [h, w] cut down to where it is not 0."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    if not len(rows):
        return image[:0, :0]
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
