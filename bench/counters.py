"""``python -m bench counters DIR``: the hardware's own counters of one call of our engines, read by ncu.

It needs ncu on the PATH and a system that lets it; what it refuses is quoted. Nothing is timed or checked here: the bench does
that, and with --profile it ends with these counters.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine
from .__main__ import add_cases, add_pass, available, check_device, chosen
from .child import ROOT, Budget, end_session

if TYPE_CHECKING:
    from .probe import Entry

# Whole sections, which ncu puts together for each chip: rates against the peaks, memory tables, stalls, registers.
SECTIONS = (
    "SpeedOfLight",
    "ComputeWorkloadAnalysis",
    "MemoryWorkloadAnalysis",
    "Occupancy",
    "LaunchStats",
    "WarpStateStats",
)
METRICS = (
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes.sum",
    "lts__t_bytes.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "sm__inst_executed_pipe_tensor.sum",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
)
LIMIT = 60.0  # seconds for one engine on one case
LAUNCHES = 40  # kernels that are looked at, of engines that launch hundreds; each is run again for every group of counters


def once(entry: Entry) -> list[str]:
    """The command that makes one call of `entry`."""
    case = entry.case
    return [
        *(sys.executable, "-m", "bench", "once", "--case", case.name.split()[0], "--engine", entry.engine),
        *("--device", entry.device, "--pass", entry.which, "--storage", entry.storage),
        *("--tasks", str(case.tasks), "--steps", str(case.inner_steps)),
    ]


def command(ncu: str, entry: Entry, metrics: list[str], path: Path) -> list[str]:
    """ncu over one call; counters go to `path` as CSV. Clocks are left alone, since the card is somebody else's too."""
    sections = [word for section in SECTIONS for word in ("--section", section)]
    chosen = ["--metrics", ",".join(metrics)] if metrics else []
    return [
        *(ncu, "--csv", "--page", "raw", "--log-file", str(path), "--force-overwrite"),
        *("--target-processes", "all", "--profile-from-start", "off", "--clock-control", "none"),
        *("--launch-count", str(LAUNCHES), *sections, *chosen, *once(entry)),
    ]


def known_metrics(said: str) -> tuple[list[str], list[str]]:
    """(those of `METRICS` that this chip has, those that it has not), by what ``ncu --query-metrics`` said."""
    names = {line.split()[0] for line in said.splitlines() if line.strip()}
    has = [metric for metric in METRICS if metric.partition(".")[0] in names]
    return has, [metric for metric in METRICS if metric not in has]


def read(entry: Entry, folder: Path, name: str, limit: float) -> str:
    """One line on what came of it: ``name.ncu.csv`` in `folder`, or ncu's refusal in ``name.ncu.txt``. Nothing is raised.

    Args:
        entry: one of our engines on a CUDA device.
        folder: where the file goes.
        name: of the file.
        limit: seconds.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        return "no counters: ncu is not on the PATH"
    path = (folder / f"{name}.ncu.csv").resolve()
    asked = _ended([ncu, "--query-metrics"], limit)
    has, lacks = known_metrics(asked[1])
    code, said = _ended(command(ncu, entry, has, path), limit)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    counted = any(line.startswith('"') and "Kernel Name" not in line for line in text.splitlines())
    if code == 0 and counted:
        without = f" (not on this chip: {', '.join(lacks)})" if lacks else ""
        return f"counters: {path.name}{without}"
    refusal = path.with_suffix(".txt")
    refusal.write_text(f"exit code {code}\n{said}\n{text}", encoding="utf-8")
    path.unlink(missing_ok=True)
    errors = [line for line in (said + text).splitlines() if line.startswith("==ERROR==")]
    why = f"not done after {limit:.0f} s" if code is None else " ".join(errors[:1]) or f"exit code {code}"
    return f"no counters: ncu: {why} ({refusal.name})"


def _ended(arguments: list[str], limit: float) -> tuple[int | None, str]:
    """(exit code, all that it said); the code is None when it was killed after `limit` seconds."""
    with subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit)
            return process.returncode, said.decode(errors="replace")
        except subprocess.TimeoutExpired:
            end_session(process)
            said, _ = process.communicate()
            return None, said.decode(errors="replace")
        finally:
            end_session(process)


def read_all(entries: Iterable[Entry], folder: Path, budget: Budget) -> None:
    """`read` of each, printed; those whose counters lie there already are left as they are."""
    for entry in entries:
        if budget.is_spent():
            says = "no counters: budget spent (--budget)"
        elif (folder / f"{entry.slug()}.ncu.csv").exists():
            says = "counters: they are there"
        else:
            says = read(entry, folder, entry.slug(), min(LIMIT, budget.left()))
        print(f"{entry.case.name}: {entry.engine}: {says}", flush=True)


def main(argv: list[str]) -> int:
    """Returns 0, also where ncu refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m bench counters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="for NAME.ncu.csv, or NAME.ncu.txt with a refusal"
    )
    add_cases(parser)
    add_pass(parser, device="cuda")
    args = parser.parse_args(argv)
    check_device(parser, args.device)
    from .probe import Entry

    args.folder.mkdir(parents=True, exist_ok=True)
    engines = args.engine or available(parser)
    entries = [
        Entry(case, args.which, machine.cores(), args.device, engine=engine, storage=args.storage)
        for case in chosen(parser, args)
        for engine in engines
    ]
    read_all(entries, args.folder, Budget(args.budget))
    return 0
