"""Task distributions: what a GAN is meta-learned on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .arrays import from_arrays, to_samples
from .base import TaskBatch, TaskDistribution
from .folders import from_folder, load_images
from .glyph_tasks import Glyphs, glyphs, glyphs32
from .handwriting import digits
from .mixtures import Mixture, Rings, rings
from .pooled import Pooled
from .recall import recall

__all__ = [
    "NAMES",
    "Glyphs",
    "Mixture",
    "Pooled",
    "Rings",
    "TaskBatch",
    "TaskDistribution",
    "digits",
    "from_arrays",
    "from_folder",
    "get",
    "glyphs",
    "glyphs32",
    "load_images",
    "of_run",
    "rings",
    "to_samples",
]

_KNOWN: dict[str, Callable[[], TaskDistribution]] = {
    "glyphs": glyphs,
    "glyphs32": glyphs32,
    "digits": digits,
    "rings": rings,
}

NAMES = tuple(_KNOWN)


def get(name: str) -> TaskDistribution:
    """The distribution of a name, or `from_folder` of a folder that holds one folder of images per class.

    Raises:
        ValueError: neither.
    """
    if name in _KNOWN:
        return _KNOWN[name]()
    if Path(name).is_dir():
        return from_folder(name)
    raise ValueError(
        f"expected tasks to be one of {', '.join(NAMES)}, or a folder of folders of images, got {name!r}"
    )


def of_run(
    name: str, fingerprint: str, shape: Sequence[int], folders: Sequence[str] = ()
) -> TaskDistribution:
    """The tasks that a run was trained on: built-in ones, or those of a folder, found again.

    Args:
        name, fingerprint: as in the run's settings.
        shape: of one sample, as `Run.sample_shape`.
        folders: folders of folders of images, one of which may be the run's; without one of its name, that in the
            working directory is.

    Raises:
        ValueError: there are none of the name, or only such with other data or another split.
    """
    return recall(name, fingerprint, shape, [_KNOWN[name]()] if name in _KNOWN else [], folders)
