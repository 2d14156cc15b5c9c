"""What every test file shares."""

from __future__ import annotations

import os

import pytest

# Before anything imports matplotlib: no test needs a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis

# Workers share the cores (pytest-xdist, see pyproject.toml).
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

# The same examples on every run and machine: a failure here is a failure there.
hypothesis.settings.register_profile("pymgan", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pymgan")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one case of the battery stay together: the oracle runs once for all engines. Tests marked `gpu` are skipped where
    torch sees no CUDA device."""
    for item in items:
        case = getattr(getattr(item, "callspec", None), "params", {}).get("case")
        if isinstance(getattr(case, "name", None), str):
            item.add_marker(pytest.mark.xdist_group(case.name))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
