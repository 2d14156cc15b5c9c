"""``python -m bench once``: one call of one engine's pass, and nothing else, for tools that look at a whole process.

The call stands between cudaProfilerStart and cudaProfilerStop, after one that compiles and warms up, so that ncu, with
``--profile-from-start off``, sees this call's kernels alone. compute-sanitizer looks at both calls.
"""

from __future__ import annotations

import argparse

from . import machine
from .__main__ import add_pass, check_device, chosen


def main(argv: list[str]) -> int:
    """Returns 0 when the result is finite, 1 when it is not."""
    parser = argparse.ArgumentParser(
        prog="python -m bench once",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", required=True, action="append", metavar="NAME", help="one")
    parser.add_argument("--engine", required=True, metavar="NAME", help="of ours")
    add_pass(parser)
    args = parser.parse_args(argv)
    check_device(parser, args.device)

    import torch

    from . import accelerator
    from .probe import Entry

    accelerator.prepare(args.device)
    case = chosen(parser, args)[0]
    entry = Entry(case, args.which, machine.cores(), args.device, engine=args.engine, storage=args.storage)
    try:
        step, _ = entry.build(case.problem())
    except ValueError as refusal:  # of an engine that does not exist or cannot run here
        parser.error(str(refusal))
    step.run()
    with accelerator.watched(args.device):
        result = step.run()
    finite = bool(torch.isfinite(step.read(result)).all())
    print(
        f"{case.name}, {args.engine}, pass {args.which}: {'finite' if finite else 'expected finite numbers, got others'}"
    )
    return 0 if finite else 1
