"""A cache of arrays on disk.

It is never needed: whatever is wrong with it becomes a warning, and the caller computes anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

__all__ = ["directory", "load", "store"]

_DIGEST = hashlib.sha256().digest_size


def directory() -> Path:
    """Where cached files go: $PYMGAN_CACHE, or pymgan in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("PYMGAN_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    # A relative XDG_CACHE_HOME is to be ignored, says its specification. Without a home folder `~` stays as
    # it is.
    return (Path(base) if base and os.path.isabs(base) else Path(os.path.expanduser("~/.cache"))) / "pymgan"


def load(name: str) -> dict[str, np.ndarray] | None:
    """The arrays stored under a name; None where there are none, or (with a warning) damaged ones."""
    path = directory() / f"{name}.cache"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(f"cannot read the cache ({error}); computing it again", stacklevel=2)
        return None
    digest, body = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        warnings.warn(f"the cached file {path} is damaged; computing it again", stacklevel=2)
        return None
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return dict(arrays)


def store(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep arrays under a name.

    A reader never sees half a file, also when several processes write at once.
    """
    body = io.BytesIO()
    np.savez(body, **cast("dict[str, Any]", arrays))
    data = body.getvalue()
    folder = directory()
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=name, suffix=".part", delete=False) as file:
            temporary = file.name
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(temporary, folder / f"{name}.cache")
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        warnings.warn(
            f"cannot write the cache in {folder} ({error}); set PYMGAN_CACHE to a folder that can be written",
            stacklevel=2,
        )
