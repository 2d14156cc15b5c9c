"""`pymgan env`: everything that a bug report needs."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from ._version import __version__

__all__ = ["report"]

_PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "tqdm",
    "matplotlib",
    "scikit-learn",
    "tensorboard",
    "pillow",
    "triton",
)


def report() -> str:
    """Versions, instruction sets and engines as lines a person can read."""
    from .engine import available_threads, engines, instruction_sets

    built, supported, chosen = instruction_sets()
    lines = [
        f"pymgan {__version__}",
        f"Python {platform.python_version()} on {platform.platform()} ({sys.executable})",
    ]
    lines += [f"{name:<14}{_version(name)}" for name in _PACKAGES]
    lines += [
        "",
        f"cores         {available_threads()} usable",
        f"instructions  built: {', '.join(built)}; this machine runs: {', '.join(supported)}; chosen: "
        f"{chosen}",
        "",
        "engines",
    ]
    for engine in engines():
        lines.append(
            f"  {engine.name:<12}{'available' if engine.available else 'not available'}: {engine.reason}"
        )
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
