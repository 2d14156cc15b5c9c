"""What a meta-step of the cuda engine asks of global memory: ``python -m tests.traffic`` prints the table of docs/cuda.md.

Counted from its lists. Each operand of each instruction counts once, as in `bytes_min` of the bench, but only where it does not
lie in shared memory; snapshots that are copied between the two count too. Caches see more requests than this, since tiles read
their operands again, and global memory fewer, since caches keep some.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pymgan
from bench.cases import CASES, Case
from tests.cuda_host import CudaHostEngine

OPERANDS = (
    "a0 b0 a1 b1 bias scale dot ref q g theta moment rate_scale "
    "out pre dot_out c_g c_d cc_g cc_d stats moment_next v v_moment d_scale"
)
SHARED = 227 << 10  # bytes that a block of an H200 may have
SLOTS = {"temps": "temp", "v": "cotangent"}  # buffers of a task that are a slot


class Traffic(NamedTuple):
    """Of one task's meta-step."""

    instructions: int
    mflop: float
    megabytes: float
    shared_kib: float


def engine_of(case: Case, shared: int, precision: str = "float32") -> CudaHostEngine:
    """The case's engine on the host, as a device with this much shared memory would have it."""
    return CudaHostEngine(
        pymgan.GAN(*case.networks(0), latent=(case.latent,)),
        fakes=case.batch,
        reals=case.batch,
        play="simultaneous",
        optimisers=("sgd",),
        momentum=0.9,
        eps=1e-8,
        storage="all",
        shared=shared,
        precision=precision,
    )


def shared_buffers(engine: CudaHostEngine, steps: int, tasks: int = 1) -> dict[str, int]:
    """Elements of a task's buffers that lie in shared memory in a meta-step along both players' losses."""
    shape = (steps, 0, engine.reals, (1.0, 1.0), True, False, False)
    launch = engine._prepared("meta_gradient", tasks, shape)
    return {name: elements for name, elements, shared in launch.buffers if shared and elements}


def traffic(engine: CudaHostEngine, steps: int) -> Traffic:
    """Of a second-order meta-step along both players' losses."""
    program = engine.program
    shared = shared_buffers(engine, steps)
    near = {SLOTS[name] for name in shared if name in SLOTS}
    # The inner loop's snapshots lie where v will be; the pull-back's is a copy.
    step_near = near | ({"phi", "phi_next"} if "v" in shared or "before a step" in shared else set())
    pull_near = near | ({"phi"} if "before the step" in shared else set())
    snapshot = 4 * engine.parameters
    found = [0, 0, 0]  # instructions, flop, bytes

    def add(procedure: Any, inside: set[str]) -> None:
        values = procedure.values
        for i in procedure.code:
            found[0] += 1
            found[1] += i.flops
            for name in OPERANDS.split():
                ref = getattr(i, name)
                if ref is None or values[ref.value].slot in inside:
                    continue
                value = values[ref.value]
                if ref.tensor >= 0:
                    t = program.tensors[ref.tensor]
                    count = t.n * t.taps * t.k
                elif value.shape == "parameters":
                    count = value.elements
                else:
                    count = max(1, min(i.rows, value.rows)) * value.columns
                found[2] += 4 * count

    both = ["GD", "GD"]
    for k in range(steps):
        add(program.step, step_near)
        add(program.pull(both, ["G", "D"] if k == 0 else both, False, False, "sgd"), pull_near)
        found[2] += snapshot * (("phi" in step_near) + ("phi" in pull_near))
    add(program.gradients(True), step_near)
    return Traffic(found[0], found[1] / 1e6, found[2] / 1e6, sum(shared.values()) / 256)


def cases() -> dict[str, Case]:
    """By the name that docs/cuda.md has for it."""
    wide = {"generator_widths": (64, 256, 128, 64, 1), "discriminator_widths": (1, 64, 128, 256, 1)}
    return {
        "ring-mlp": CASES["ring-mlp"],
        "glyph-mlp": CASES["glyph-mlp"],
        "glyph-dcgan x4": CASES["glyph-dcgan"].altered(**wide),
    }


def row(name: str, found: Traffic) -> str:
    """A line of the table."""
    return f"| `{name}` | {found.instructions} | {found.mflop:,.0f} | {found.shared_kib:.0f} | {found.megabytes:,.1f} |"


if __name__ == "__main__":
    for name, case in cases().items():
        print(row(name, traffic(engine_of(case, SHARED), case.inner_steps)))
