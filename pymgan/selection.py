"""Which engine is the fastest for a program: measured once a device, and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pymgan.contract import Data, Engine, Objective, Rng, Schedule

__all__ = ["fastest", "memory_file"]

TASKS, STEPS, TURNS = 32, 5, 3  # of the meta-step that is timed

_log = logging.getLogger("pymgan")


def memory_file() -> Path:
    """Where choices are kept: ``engines.json`` in ``PYMGAN_CACHE``, else in the user's cache folder."""
    own = os.environ.get("PYMGAN_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own) if own else cache / "pymgan") / "engines.json"


def fastest(makers: Mapping[str, Callable[[], Engine]], what: str) -> Engine:
    """The engine whose meta-step takes the least time.

    Args:
        makers: by name; one that cannot make or run the program (an exception) is out.
        what: everything that the choice depends on: the program, the devices, the versions.

    Raises:
        Exception: the first maker's, if none of them can.
    """
    if len(makers) == 1:
        return next(iter(makers.values()))()
    key = hashlib.sha256("\n".join([*sorted(makers), what]).encode()).hexdigest()
    known = _remembered()
    if known.get(key) in makers:
        return makers[known[key]]()
    engines: dict[str, Engine] = {}
    seconds: dict[str, float] = {}
    failures: list[Exception] = []
    for name, make in makers.items():
        try:
            engines[name] = make()
            seconds[name] = _meta_step_seconds(engines[name])
        except Exception as failure:  # also what a kernel's compiler raises
            _log.info("engine %s is out: %s", name, failure)
            failures.append(failure)
    if not seconds:
        raise failures[0]
    best = min(seconds, key=lambda name: seconds[name])
    _log.info(
        "engine %s is the fastest: %s", best, ", ".join(f"{n} {s * 1e3:.2f} ms" for n, s in seconds.items())
    )
    _remember(key, best)
    return engines[best]


def _meta_step_seconds(engine: Engine) -> float:
    """Median of `TURNS`, after one that is not counted."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=engine.dtype).to(engine.device)

    phi = 0.05 * normal(engine.parameters)
    data = Data(real=normal(TASKS, STEPS, engine.reals, *engine.sample).tanh())
    schedule = Schedule(rate=torch.full((2,), 1e-3, dtype=engine.dtype, device=engine.device))
    objective = Objective(query=normal(TASKS, engine.reals, *engine.sample).tanh(), losses=(1.0, 1.0))
    rng = Rng(0, torch.arange(TASKS))
    seconds = []
    for _ in range(1 + TURNS):
        started = time.perf_counter()
        engine.meta_gradient(phi, data, schedule, rng, objective)
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def _remembered() -> dict[str, str]:
    """What is not readable is measured again."""
    try:
        known = json.loads(memory_file().read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, name: str) -> None:
    """Where it cannot be written, the next process measures again."""
    file = memory_file()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.write_text(json.dumps({**_remembered(), key: name}, indent=1))
        new.replace(file)
