"""What every test file shares."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

# Before anything imports matplotlib: no test needs a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# Workers share the cores (pytest-xdist, see pyproject.toml). Before torch is imported, which reads it.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import hypothesis
import torch
from xdist.scheduler import LoadScopeScheduling

# What kernels are held against is exact to float32, cuDNN's convolutions too.
torch.backends.cudnn.allow_tf32 = False

# Before anything imports triton: without a device its kernels run in its interpreter.
if torch.cuda.is_available():
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns of another default to come
else:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples on every run and machine: a failure here is a failure there.
hypothesis.settings.register_profile("pymgan", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pymgan")


# "case-engine", as the tests of the battery are parametrised.
_OF_CASE = re.compile(
    r".*\[(.+?)-(?:(?:cpu-\w+|cuda-host|torch)-float\d\d|cpu|cuda|torch|triton|reference)\]$"
)


class ByCase(LoadScopeScheduling):
    """Every test by itself, but those of one case of the battery on one worker: the oracle runs once for all engines."""

    def _split_scope(self, nodeid: str) -> str:
        found = _OF_CASE.match(nodeid)
        return found[1] if found else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByCase:
    """Which worker runs what."""
    return ByCase(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where torch sees no CUDA device, those marked `exhaustive` where nobody asks for them."""
    if "exhaustive" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
