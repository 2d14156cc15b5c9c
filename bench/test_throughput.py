"""``python -m pytest -n 0 bench/``: throughput of our engine per case and pass, by pytest-benchmark, on all cores.

Kept over time with ``--benchmark-autosave`` and ``--benchmark-compare``. Each result is checked against the oracle first. A plain
``python -m pytest`` collects tests/ alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import machine, ours, work
from bench.cases import CASES, PASSES, Pass
from bench.oracle import Oracle


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", list(CASES))
def test_throughput(benchmark: Any, name: str, which: Pass) -> None:
    case = CASES[name]
    problem = case.problem()
    step, _ = ours.build(problem, "cpu", which, threads=machine.cores())
    oracle_error = Oracle(problem, which).check(step())
    benchmark(step.run)
    benchmark.extra_info |= {"tasks": case.tasks, "threads": machine.cores(), "oracle_error": oracle_error}
    if benchmark.stats is not None:  # None with --benchmark-disable
        gflops = work.gflop(case, which) / benchmark.stats.stats.median
        benchmark.extra_info |= {"gflops": gflops, "device": machine.device(), "commit": machine.commit()}
