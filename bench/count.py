"""``python -m bench count``: the instructions of one task's meta-step, which are the same on a noisy machine.

Counted is what callgrind (of valgrind) sees one thread execute in the three calls of the compiled core that a second-order
meta-step is made of, adapt, gradients, pullback, with procedures made and buffers at hand: the kernels, the interpreter, the
bindings. Not counted are Python's checks around them. There is one task, as all do the same work; it is the case's in all else.
Instructions are not time: what waits for memory is not seen. The instruction set is AVX2, since valgrind knows no AVX-512.

bench/instructions.json holds the counts that tests/test_bench_count.py guards: a case may take a hundredth more. The compiler
decides many an instruction, so the file names it, and a build by another is said, not compared. After a change that is meant to
be, ``python -m bench count --renew`` writes the file anew.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BUDGET = Path(__file__).with_name("instructions.json")
CHILD = Path(__file__).with_name("count_child.py")
COMMAND = "python -m bench count --renew"
ISA = "avx2"
# The child calls MARK of libc, which frees a hash table that nobody made; what valgrind sees entered is SEEN, which it calls.
MARK, SEEN = "hdestroy", "hdestroy_r"
TOLERANCE = 0.01  # the counts repeat to a millionth; another Python or libc moves them by less than this


class NotCounted(Exception):
    """Valgrind is missing, does not work here, or this build has no AVX2."""


def count(case: Any) -> int:
    """Instructions of one task's meta-step of `case`.

    Raises:
        NotCounted: see there.
    """
    import pymgan._core as core

    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise NotCounted("valgrind is not installed")
    if (ISA, True) not in core.instruction_sets():
        raise NotCounted(f"{ISA} is not built or not executable here")
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, "spec.json")
        spec.write_text(json.dumps(_spec(case, Path(folder))), encoding="utf-8")
        out = Path(folder, "out")
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", f"--dump-before={SEEN}"]
        # -I -S: neither the environment nor site-packages, so that the child starts the same everywhere
        done = subprocess.run(
            [*command, sys.executable, "-I", "-S", str(CHILD), str(spec)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if not line.startswith("==")]
            raise NotCounted(f"valgrind ended with {done.returncode}: {' '.join(lines[-1:])}")
        # Part n is what was executed before mark n and after the one before it.
        parts = [Path(f"{out}.{part}") for part in (1, 2)]
        if not all(part.exists() for part in parts):
            raise NotCounted(f"expected two dumps before {SEEN}, got {sum(p.exists() for p in parts)}")
        return _total(parts[1])


def _total(path: Path) -> int:
    """The sum that a file of callgrind's states."""
    found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise NotCounted(f"expected a line of totals in {path.name}, got none")
    return int(found.group(1))


def _spec(case: Any, folder: Path) -> dict[str, Any]:
    """All that the child needs; batches go into files of their own."""
    import pymgan._core as core

    import pymgan
    from pymgan.contract import TRACE
    from pymgan.plan import compile_plan

    problem = case.problem()
    gan = pymgan.GAN(problem.generator, problem.discriminator, latent=(case.latent,))
    plan = compile_plan(gan)
    files = {}
    for name in ("phi", "real", "noise", "query", "query_noise"):
        files[name] = str(folder / name)
        Path(files[name]).write_bytes(
            getattr(problem, name).numpy().tobytes()
        )  # of all tasks; the first is read
    return {
        **files,
        "core": core.__file__,
        "mark": MARK,
        "isa": ISA,
        "networks": [_network(plan.core.generator), _network(plan.core.discriminator)],
        "split": plan.generator_parameters,
        "parameters": plan.parameters,
        "game": {
            "loss": gan.loss,
            "smoothing": gan.label_smoothing,
            "fakes": case.batch,
            "reals": case.batch,
            "alternating": False,
            "optimisers": ["sgd"],
            "momentum": 0.0,
            "betas": (0.0, 0.0),
            "eps": 1e-8,
        },
        "steps": case.inner_steps,
        "batch": case.batch,
        "features": problem.real.shape[-1],
        "latent": case.latent,
        "rate": case.rate,
        "trace": len(TRACE),
    }


def _network(network: Any) -> dict[str, Any]:
    """A network of the plan in the words of its constructor."""
    plain = ("name", "input", "in_shape", "out_shape", "weight", "bias", "attributes")
    rows = [
        {name: getattr(row, name) for name in plain}
        | {"kind": row.kind.name, "activation": row.activation.name}
        for row in network.rows
    ]
    return {"in_shape": network.in_shape, "rows": rows}


def compiler() -> str:
    """What compiled the core, as it says itself; "" where it does not."""
    import pymgan._core as core

    found = re.search(rb"(?:GCC: |clang version )[ -~]+", Path(core.__file__).read_bytes())
    return found.group().decode() if found else ""


def counted_cases() -> list[str]:
    """Not the convolutions: valgrind makes a call of every lane of an FMA, which takes minutes for one task of theirs."""
    from .cases import CASES

    return [name for name, case in CASES.items() if not case.extent]


def budget() -> dict[str, Any]:
    """The file of recorded counts: "counts" by case, and the "compiler" and "isa" that they hold for."""
    recorded: dict[str, Any] = json.loads(BUDGET.read_text(encoding="utf-8"))
    return recorded


def main(argv: list[str]) -> int:
    """Returns 1 when a case takes more than its budget, 2 when nothing could be counted."""
    from . import work
    from .cases import CASES
    from .row import markdown

    parser = argparse.ArgumentParser(
        prog="python -m bench count",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = counted_cases()
    parser.add_argument("--case", action="append", choices=known, help="repeatable; default: all")
    parser.add_argument("--renew", action="store_true", help=f"write the counts into {BUDGET.name}")
    args = parser.parse_args(argv)
    cases = args.case or known
    try:
        counts = {name: count(CASES[name]) for name in cases}
    except NotCounted as reason:
        print(f"not counted: {reason}")
        return 2
    recorded = budget() if BUDGET.exists() else {"compiler": compiler(), "isa": ISA, "counts": {}}
    is_comparable = (recorded["compiler"], recorded["isa"]) == (compiler(), ISA)
    old = recorded["counts"] if is_comparable else {}
    lines = []
    for name, now in counts.items():
        flop = work.gflop(CASES[name], "meta") * 1e9 / CASES[name].tasks
        change = f"{now / old[name] - 1:+.2%}" if name in old else ""
        lines.append([name, f"{now:,}", f"{flop / now:.2f}", f"{old[name]:,}" if name in old else "", change])
    print(markdown(["case", f"instructions ({ISA})", "FLOP each", "budget", "change"], lines))
    if not is_comparable:
        print(f"the budget is not for this build: expected {recorded['compiler']}, got {compiler()}")
    if args.renew:
        kept = {"command": COMMAND, "compiler": compiler(), "isa": ISA, "counts": {**old, **counts}}
        BUDGET.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {BUDGET}")
        return 0
    return 1 if any(now > (1 + TOLERANCE) * old[name] for name, now in counts.items() if name in old) else 0
