"""Small pieces that tests of the Python face share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymgan
from pymgan.arch import mlp
from pymgan.tasks import get

# Seconds, not minutes: a tiny GAN on points.
TINY: dict[str, Any] = {
    "meta": pymgan.MAML(inner_steps=2, samples=4),
    "steps": 4,
    "tasks_per_step": 2,
    "shots": 4,
    "queries": 4,
    "rivals": (),
    "test_tasks": 4,
    "engine": "auto",
    "progress": False,
}


def tiny_gan(seed: int = 0) -> pymgan.GAN:
    return mlp((2,), latent=3, widths=(6,), seed=seed)


def tiny_run(out: Path | None = None, **changes: Any) -> pymgan.Run:
    return pymgan.train(get("rings"), tiny_gan(), out=out, **(TINY | changes))
