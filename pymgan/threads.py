"""Torch's threads beside the engine's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .contract import Engine

__all__ = ["one_torch_thread"]


@contextlib.contextmanager
def one_torch_thread(engine: Engine) -> Iterator[None]:
    """One torch thread while the cpu engine works; nothing changes for engines that are made of torch
    operations.

    The engine has the cores. Torch's own threads would spin on them between its small operations, and would
    cut sums into other pieces on a machine with other cores.
    """
    before = torch.get_num_threads()
    if engine.name == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
