"""Tasks of glyphs: one character in many typefaces, each a little turned, scaled, sheared and shifted."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import TaskBatch, TaskDistribution, check_draw, deal, digest, draw_ids, hashed_order, part
from .glyph_alphabet import ALPHABET
from .glyph_bank import GlyphBank, load_bank

__all__ = ["Glyphs", "glyphs", "glyphs32"]

TEST, VALIDATION = 40, 20  # classes; the other 487 train

# Each is uniform between - and + this.
TURN = np.deg2rad(10.0)
LOG_SCALE = 0.1
SHEAR = 0.1
SHIFT = 0.05  # of the side, in x and y

_VERSION = "glyphs/1"


class Glyphs(TaskDistribution):
    """See `glyphs`.

    Args:
        bank: the drawn characters.
        size: side of the samples.
        shared_faces: whether support and queries may have typefaces in common.
        chosen: indices into the alphabet.
        split: which split this is; "" for the whole distribution.
    """

    def __init__(
        self,
        bank: GlyphBank,
        size: int,
        *,
        shared_faces: bool,
        chosen: tuple[int, ...] | None = None,
        split: str = "",
    ) -> None:
        self.name = ("glyphs" if size == 16 else f"glyphs{size}") + ("-shared-faces" if shared_faces else "")
        self.sample_shape = (1, size, size)
        self.shared_faces = shared_faces
        self._bank = bank
        self._size = size
        self._chosen = tuple(range(len(ALPHABET))) if chosen is None else chosen
        self._split = split
        self.classes = tuple(ALPHABET[index] for index in self._chosen)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all pictures, the split and the rules of sampling."""
        bank, rules = (
            self._bank,
            (TEST, VALIDATION, TURN, LOG_SCALE, SHEAR, SHIFT, self.shared_faces, self._size),
        )
        return digest(
            _VERSION,
            ALPHABET,
            self._split,
            repr(rules),
            repr(_parts()),
            bank.images.numpy().tobytes(),
            bank.rows.tobytes(),
        )

    def sample(self, n_tasks: int, shots: int, queries: int, rng: np.random.Generator) -> TaskBatch:
        """See `TaskDistribution.sample`.

        A task's faces are shuffled and halved, one half for the support and one for the queries; with
        `shared_faces` both have all. No face of a half comes twice before all have come once.
        """
        check_draw(n_tasks, shots, queries, rng)
        chosen = np.asarray(self._chosen)[deal(n_tasks, len(self._chosen), rng)]
        rows = self._pictures(chosen, shots, queries, rng)
        images = self._resample(rows.reshape(-1), _affine(rows.size, rng)).view(
            n_tasks, -1, *self.sample_shape
        )
        ids = draw_ids(n_tasks, rng)
        names = [ALPHABET[index] for index in chosen]
        return TaskBatch(images[:, :shots].contiguous(), images[:, shots:].contiguous(), ids, names)

    def split(self, name: str) -> Glyphs:
        """See `TaskDistribution.split`: 487 classes train, 20 validate, 40 test."""
        chosen = part(None if self._split else _parts(), name, self)
        return Glyphs(self._bank, self._size, shared_faces=self.shared_faces, chosen=chosen, split=name)

    def variants(self) -> dict[str, TaskDistribution]:
        """`shared_faces`: the same classes with the queries' faces in the support too; {} if they are."""
        if self.shared_faces:
            return {}
        return {
            "shared_faces": Glyphs(
                self._bank, self._size, shared_faces=True, chosen=self._chosen, split=self._split
            )
        }

    def _pictures(self, chosen: np.ndarray, shots: int, queries: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of the bank, int64 [T, shots + queries], for characters [T]; the support first."""
        rows = self._bank.rows[chosen]
        faces = (rows >= 0).sum(1)
        if self.shared_faces:
            first = _cycle(_shuffled(rows, rng), np.zeros_like(faces), faces, shots)
            return np.concatenate(
                (first, _cycle(_shuffled(rows, rng), np.zeros_like(faces), faces, queries)), axis=1
            )
        order = _shuffled(rows, rng)
        half = (faces + 1) // 2
        return np.concatenate(
            (_cycle(order, np.zeros_like(half), half, shots), _cycle(order, half, faces - half, queries)),
            axis=1,
        )

    def _resample(self, rows: np.ndarray, affine: Tensor) -> Tensor:
        """Samples [n, 1, size, size] of pictures seen through affine maps [n, 2, 3]."""
        pictures = self._bank.images.index_select(0, torch.from_numpy(rows)).unsqueeze(1).float()
        # F.affine_grid gives the same grid, but many tiny matrix products take longer than all the rest.
        middle = (2 * torch.arange(self._size) + 1) / self._size - 1
        across, down, offset = affine.unbind(2)
        y = down[:, :, None, None] * middle[:, None] + offset[:, :, None, None]
        grid = across[:, :, None, None] * middle + y
        levels = F.grid_sample(pictures, grid.permute(0, 2, 3, 1), align_corners=False)
        # Whole grey levels, as a file of images would have: another processor's last bit then makes no other
        # sample.
        return levels.round_().mul_(2 / 255).sub_(1)


def glyphs(size: int = 16, *, shared_faces: bool = False) -> Glyphs:
    """Tasks of one character each: 547 letters and digits in the 22 usable faces that ship with matplotlib.

    Every sample is one face and a small random affine change. The pictures are drawn at the first call, in
    some seconds, and cached on disk ($PYMGAN_CACHE, or the user's cache folder).

    Args:
        size: side of the samples in pixels.
        shared_faces: False draws queries in faces that do not occur in the support, True draws both in all
            faces.

    Returns:
        Samples [1, size, size] in [-1, 1], ink bright; split into 487, 20 and 40 classes.

    Raises:
        ValueError: a size below 8.
        FileNotFoundError: matplotlib was installed without its fonts.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise ValueError(f"expected size to be a whole number >= 8, got {size!r}")
    return Glyphs(load_bank(size), size, shared_faces=bool(shared_faces))


def glyphs32(*, shared_faces: bool = False) -> Glyphs:
    """`glyphs` at 32x32."""
    return glyphs(32, shared_faces=shared_faces)


def _parts() -> dict[str, tuple[int, ...]]:
    order = hashed_order(ALPHABET, "glyphs")
    test, validation, train = order[:TEST], order[TEST : TEST + VALIDATION], order[TEST + VALIDATION :]
    return {
        "train": tuple(sorted(train)),
        "validation": tuple(sorted(validation)),
        "test": tuple(sorted(test)),
    }


def _shuffled(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each task's rows [T, faces] in random order, those that do not exist (-1) at the end."""
    keys = np.where(rows >= 0, rng.random(rows.shape), 2.0)
    return np.take_along_axis(rows, keys.argsort(1), axis=1)


def _cycle(order: np.ndarray, start: np.ndarray, length: np.ndarray, count: int) -> np.ndarray:
    """`count` entries of each task's order [T, faces], round and round within [start, start + length)."""
    return np.take_along_axis(order, start[:, None] + np.arange(count) % length[:, None], axis=1)


def _affine(count: int, rng: np.random.Generator) -> Tensor:
    """Small random affine maps from sample to picture coordinates, both in [-1, 1], float32 [count, 2, 3]."""
    drawn = rng.uniform(-1, 1, size=(5, count))
    turn, scale, shear = TURN * drawn[0], np.exp(LOG_SCALE * drawn[1]), SHEAR * drawn[2]
    shift = 2 * SHIFT * drawn[3:]
    cos, sin = np.cos(turn), np.sin(turn)
    # The picture goes through scale * turn * shear and then the shift; a sample looks back through the
    # inverse.
    inverse = np.array([[cos + shear * sin, sin - shear * cos], [-sin, cos]]) / scale
    offset = -np.einsum("ijn,jn->in", inverse, shift)
    maps = np.concatenate((inverse, offset[:, None]), axis=1)
    return torch.from_numpy(np.moveaxis(maps, -1, 0).astype(np.float32))
