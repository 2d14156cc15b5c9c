"""Which characters are classes: the rule, and the list that it gives.

`ALPHABET` is written down and not computed at run time, so that classes and splits stay fixed whatever
versions of Python's Unicode tables, Pillow and FreeType are installed. `derive` is the rule; a test holds the
two together.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from .glyph_fonts import FACES, Face

__all__ = ["ALPHABET", "candidates", "derive", "differences"]

LEAST_FACES = 10
# Two characters look alike when, centred on each other, |a - b|^2 is below this fraction of (|a|^2 + |b|^2) /
# 2 in the median face that has both. Real twins (Latin A, Greek Alpha) are at 0 to 0.02; above 0.05 come
# pairs that a reader tells apart.
TWINS = 0.05
_EM, _CANVAS, _BLOCK = 64, 96, 4  # pixels: drawn at, on, and averaged over before comparing

ALPHABET = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyzÆÐØÞßæðøþđĦħıĸŁłŊŋŒœŦŧƀƁƂƃƄƅƆƇ"  # noqa: RUF001 - twins of ASCII for the eye, other classes
    "ƈƊƋƌƍƎƏƐƑƒƓƔƕƖƗƘƙƚƛƜƝƞƟƢƣƤƥƦƧƨƩƪƫƬƭƮƱƲƳƴƵƶƷƸƹƺƻƼƽƾƿǀǁǂǃǝǶȜȝȠȡȤȥȴȵȶȷȸȹȺȻȼȽȾȿɀɁɃɄɅɌɍɐɑɒɓɔɕɖɗɘɚ"
    "ɛɜɝɞɟɠɡɢɣɤɥɦɧɨɩɪɫɬɭɮɯɰɱɲɳɴɵɶɷɸɹɺɻɼɽɾɿʀʁʂʃʄʅʆʇʈʉʊʋʌʍʎʏʐʑʒʓʔʕʖʗʘʙʚʛʜʝʞʟʠʡʢʣʤʥʦʧʨʩʪʫʬʭʮʯΓΔΞΠΦΨΩ"
    "αβγδζθικλμνξπρςστυφχψωϗϘϙϚϛϝϞϟϠϡϺϻϼϾϿЂЄЉЊЋЏДЖЗИКЛУФЦЧШЩЪЫЬЭЮЯбгджзилмнптфцчшщъыьэюяђєљњћџѢѣѪ"
    "ѫѴѵҐґҒғҔҕҖҗҘҙҚқҢңҤҥҪҫҬҭүҰұҲҳҺӃӄӇӈӋӌӶӷԱԲԳԴԵԶԷԸԹԺԻԽԾԿՀՁՂՃՄՅՆՇՈՉՊՋՌՎՏՐՑՒՔՖբգդեզէըթժիլխծկձղճմյնշ"
    "չջռվտրւփքֆაბგდევზთიკლმნოპჟრსტუფქღყშჩცძწჭხჯჰჱჲჳჴჵჶჷჸჹჺᴀᴂᴇᴈᴉᴔᴖᴗᴜᴝᴞᴟᵷᵻᶅℲⱤⱭⱮⱯⱰⱵⱶⱷⱹⱺⱾⱿꜧꞋꞌꞐꞑꞪ"
)


def candidates(faces: Sequence[Face]) -> list[str]:
    """Letters (but modifiers) and decimal digits that do not decompose, in at least `LEAST_FACES` faces."""
    codes = sorted(set().union(*(face.characters for face in faces)))
    characters = [
        chr(code)
        for code in codes
        if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lo", "Nd")
        and not unicodedata.decomposition(chr(code))
    ]
    return [one for one in characters if sum(ord(one) in face.characters for face in faces) >= LEAST_FACES]


def differences(characters: Sequence[str], faces: Sequence[Face]) -> np.ndarray:
    """How unlike characters are, float32 [n, n].

    The median over faces that hold both; NaN where there is none.
    """
    count = len(characters)
    every = np.full((len(faces), count, count), np.nan, dtype=np.float32)
    for number, face in enumerate(faces):
        held = [index for index, one in enumerate(characters) if ord(one) in face.characters]
        rows = np.stack([_centred(face.draw(characters[index], _EM)) for index in held]).reshape(
            len(held), -1
        )
        product = rows @ rows.T
        square = np.diag(product)
        scale = (square[:, None] + square[None]) / 2
        every[number][np.ix_(held, held)] = 2 * (scale - product) / scale
    return np.asarray(np.nanmedian(every, axis=0))


def derive() -> str:
    """What is left when every look-alike of an earlier character is removed; Latin comes first and stays."""
    faces = [Face(name) for name in FACES]
    characters = candidates(faces)
    unlike = differences(characters, faces)
    kept: list[int] = []
    for index in range(len(characters)):
        if not (unlike[index, kept] < TWINS).any():
            kept.append(index)
    return "".join(characters[index] for index in kept)


def _centred(image: np.ndarray) -> np.ndarray:
    """Ink [h, w] in the middle of the canvas, averaged over blocks.

    A pixel of hinting must not make twins differ.
    """
    canvas = np.zeros((_CANVAS, _CANVAS), dtype=np.float32)
    top, left = ((_CANVAS - side) // 2 for side in image.shape)
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    side = _CANVAS // _BLOCK
    return np.asarray(canvas.reshape(side, _BLOCK, side, _BLOCK).mean((1, 3)))
