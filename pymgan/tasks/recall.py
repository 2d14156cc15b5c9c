"""The tasks that a run was trained on, found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .base import TaskDistribution
from .folders import from_folder

__all__ = ["recall"]


def recall(
    name: str,
    fingerprint: str,
    shape: Sequence[int],
    known: Sequence[TaskDistribution] = (),
    folders: Sequence[str] = (),
) -> TaskDistribution:
    """The one distribution of a name and a fingerprint.

    Args:
        name: of the distribution; that of a folder is the folder's own, without the way there.
        fingerprint: `TaskDistribution.fingerprint`.
        shape: of one sample; images of folders are read in it.
        known: distributions of that name that need no folder.
        folders: where to look, each one of folders of images; that of the name in the working directory without.

    Raises:
        ValueError: there is none of the name, or only such with other data or another split.
    """
    places = [place for place in folders if Path(place).resolve().name == name]
    if not known and not places and Path(name).is_dir():
        places = [name]
    image = len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2]
    found = [*known, *(from_folder(place, size=shape[1], channels=shape[0]) for place in places if image)]
    for distribution in found:
        if distribution.fingerprint == fingerprint:
            return distribution
    if not found:
        raise ValueError(
            f"expected the tasks {name!r}, samples {list(shape)}, that the run was trained on, got neither "
            f"built-in tasks nor a folder of images of that name{' among ' + ', '.join(folders) if folders else ''}; "
            "say where the folder is (--folders); tasks that a script made are known to that script alone"
        )
    where = ", ".join(places) or "the built-in tasks"
    raise ValueError(
        f"expected the tasks {name!r} that the run was trained on ({fingerprint[:12]}), got other data "
        f"or another split of that name in {where} ({found[0].fingerprint[:12]}); "
        "give the folder of the same data (--folders), or train on these"
    )
