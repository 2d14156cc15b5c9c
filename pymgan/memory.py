"""Memory of this process."""

from __future__ import annotations

import sys

__all__ = ["peak_memory"]


def peak_memory() -> float:
    """The most memory, in bytes, that this process has held so far; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
