"""What ``python -m bench count`` runs under valgrind: the three calls of one task's meta-step, on the compiled core alone.

The standard library only: importing torch under valgrind takes minutes, and nothing of it is counted. Calls a function of libc
that nobody else does (MARK in count.py) where valgrind shall write down what it counted so far:

    everything before | the meta-step | the end

Run as ``python -I -S count_child.py SPEC``; SPEC is the JSON file that count.py writes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from typing import Any

ALIGNMENT = 64


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    core = load(spec["core"])
    mark = getattr(ctypes.CDLL(None), spec["mark"])
    engine = core.CpuEngine32(plan(core, spec), core.Game(**spec["game"]), "all", spec["isa"])
    if engine.isa != spec["isa"]:
        raise RuntimeError(f"expected instruction set {spec['isa']}, got {engine.isa}")
    step = MetaStep(engine, spec, tasks=1)
    mark()
    step.run()
    mark()
    if not step.is_valid():
        raise RuntimeError(
            "expected a task that stays finite, got one that stopped, whose instructions are too few"
        )


def load(path: str) -> Any:
    """The compiled core from its file, past the package, which imports torch."""
    found = importlib.util.spec_from_file_location("pymgan._core", path)
    if found is None or found.loader is None:
        raise ImportError(f"expected an extension module, got {path}")
    core = importlib.util.module_from_spec(found)
    found.loader.exec_module(core)
    return core


def plan(core: Any, spec: dict[str, Any]) -> Any:
    networks = [
        core.Network(network["in_shape"], [core.PlanRow(**row) for row in network["rows"]])
        for network in spec["networks"]
    ]
    return core.Plan(*networks, spec["split"], spec["parameters"])


class MetaStep:
    """One meta-step over `tasks` tasks: its buffers, filled as pymgan/cpu_engine.py fills them, and its calls."""

    def __init__(self, engine: Any, spec: dict[str, Any], tasks: int) -> None:
        self.engine = engine
        self.buffers: list[Any] = []
        P, K, B = spec["parameters"], spec["steps"], spec["batch"]
        features, latent = spec["features"], spec["latent"]
        halves = {"support": ["GD", "GD"], "keep": ["G", "D"], "rates": False}
        for k in range(K):  # makes the procedures, which no meta-step but the first does
            engine.program.pull(halves["support"], halves["keep"] if k == 0 else halves["support"])
        engine.program.gradients(full=True)
        self.valid = (ctypes.c_uint8 * tasks)()
        numbers, count, done = (
            (ctypes.c_int64 * tasks)(*values) for values in (range(tasks), [0] * tasks, [])
        )
        rate = (ctypes.c_double * (tasks * K * 2))(*[spec["rate"]] * (tasks * K * 2))
        weight = (ctypes.c_double * tasks)(*[1 / tasks] * tasks)
        self.buffers += [numbers, count, done, rate, weight]
        phi, cotangents = self.empty(tasks * P), self.empty(2 * tasks * P)
        every = {
            "tasks": tasks,
            "threads": 1,
            "seed": 0,
            "task_numbers": ctypes.addressof(numbers),
            "count": ctypes.addressof(count),
        }
        inner = {
            **every,
            "steps": K,
            "real": self.read(spec["real"], tasks * K * B * features),
            "real_task": K * B * features,
            "real_step": B * features,
            "noise": self.read(spec["noise"], tasks * K * B * latent),
            "noise_task": K * B * latent,
            "noise_step": B * latent,
            "rate": ctypes.addressof(rate),
            "valid": ctypes.addressof(self.valid),
            "saved": self.empty(tasks * engine.saved_elements(K)),
        }
        self.adapt = {
            **inner,
            "phi0": self.read(spec["phi"], P),
            "phi0_task": 0,
            "phi": phi,
            "trace": self.empty(tasks * K * spec["trace"]),
            "done": ctypes.addressof(done),
            "workspace": self.empty(engine.adapt_workspace(1)),
        }
        self.gradients = {
            **every,
            "full": True,
            "real": self.read(spec["query"], tasks * B * features),
            "real_task": B * features,
            "noise": self.read(spec["query_noise"], tasks * B * latent),
            "noise_task": B * latent,
            "phi": phi,
            "phi_task": P,
            "gradient": cotangents,
            "trace": self.empty(tasks * spec["trace"]),
            "workspace": self.empty(engine.gradients_workspace(True, 1)),
        }
        self.pullback = {
            **inner,
            **halves,
            "v": cotangents,
            "weight": ctypes.addressof(weight),
            "v0": self.empty(2 * P),
            "workspace": self.empty(
                engine.pullback_workspace(*halves.values(), scaled=False, steps=K, threads=1)
            ),
        }

    def run(self) -> None:
        self.engine.adapt(self.adapt)
        self.engine.gradients(self.gradients)
        self.engine.pullback(self.pullback)

    def is_valid(self) -> bool:
        return all(self.valid)

    def empty(self, elements: int) -> int:
        """Address of a float32 buffer."""
        raw = (ctypes.c_char * (4 * elements + ALIGNMENT))()
        self.buffers.append(raw)
        return -(-ctypes.addressof(raw) // ALIGNMENT) * ALIGNMENT

    def read(self, path: str, elements: int) -> int:
        """Address of the first `elements` float32 of a file."""
        address = self.empty(elements)
        with open(path, "rb") as file:
            data = file.read(4 * elements)
        if len(data) != 4 * elements:
            raise ValueError(f"expected {4 * elements} bytes in {path}, got {len(data)}")
        ctypes.memmove(address, data, len(data))
        return address


if __name__ == "__main__":
    main(sys.argv[1])
