"""What every test file shares."""

from __future__ import annotations

import os

import pytest

# Before anything imports matplotlib: no test needs a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis

# The same examples on every run and machine: a failure here is a failure there.
hypothesis.settings.register_profile("pymgan", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pymgan")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where torch sees no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
