"""``python -m tests.oracle_table``: engine and instruction set, case, error, torch float32's own error, their ratio.

One line for each case and engine, with the quantity that comes nearest to its bound (or passes it); ``--all`` prints every
quantity. ``--seed`` draws other games and inputs. ``--engine triton --draws 1`` is the triton engine (without a
device, where TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import sys

import torch

from tests.battery import compare
from tests.engines import all_engines, make
from tests.oracle_cases import cases
from tests.triton_interpreter import hasten


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; the exit code is 1 if a quantity is out of bounds."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle_table", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of games and inputs (default: the tests' own)")
    parser.add_argument("--engine", default="", help="only engines whose name contains this")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument(
        "--all", action="store_true", help="every quantity, not only the one nearest to its bound"
    )
    parser.add_argument("--draws", type=int, help="the first few of each case only (default: all)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the nets are tiny
    engines = {name: build for name, build in all_engines().items() if options.engine in name}
    if options.engine == "triton":
        engines = {"triton": make("triton")}
        hasten()
    print(f"{'engine':20} {'case':38} {'quantity':20} {'error':>9} {'torch f32':>9}   ratio")
    failed = compared = 0
    for case in cases(options.seed):
        if options.case not in case.name:
            continue
        for name, build in engines.items():
            rows = compare(build, case, options.draws)
            compared += len(rows)
            failed += sum(not row.ok for row in rows)
            shown = rows if options.all else [max(rows, key=lambda row: row.ratio / row.bound)]
            for row in shown:
                print(f"{name:20} {row}", flush=True)
    print(f"{compared} comparisons, {failed} out of bounds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
