"""``python -m bench device``: everything that a machine with a GPU is asked for, from a bare checkout, in one command.

The phases, each with a time limit of its own:

    build      pip installs this checkout, without a network, into --site: what follows imports it from there
    battery    the tests marked `gpu`
    bench      python -m bench --device cuda
    profile    python -m bench counters: what ncu reads of our engines; the bench has written their traces
    sanitize   compute-sanitizer (memcheck, racecheck) over one call of a small case, where it is on the PATH

A phase that fails or takes too long does not stop the others; together they end within --limit, and the bench has what the
phases before it did not need. Into --out (default: $OUT, else bench/results/device) go a few small files: rows as JSON, all that
the phases said and profiled in logs.tar.gz, summary.txt. This program needs the standard library alone: pymgan and torch are
imported by what it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import machine
from .child import ROOT, end_session

LIMIT = 530.0  # seconds: nine minutes of device time, less what starting and stopping takes
LAST_WORDS = 8.0  # seconds between a phase's interruption and its end
SPARE = 10.0  # seconds of a phase that are left for a command's last lines once its budget is spent
BUDGET = "{budget}"  # stands in commands for the seconds that they have when they start
STRETCHED = "bench"  # the phase that has what earlier ones did not need
PHASES = {"build": 140.0, "battery": 120.0, "bench": 190.0, "profile": 35.0, "sanitize": 45.0}
WHEELS = ROOT / ".whl"
BUILT_HERE = ("--no-build-isolation", "--config-settings=cmake.define.PYMGAN_CUDA=on")
LARGEST = 16 * 2**20  # bytes of one file that comes back from the machine
SHOWN = 40  # last lines of a phase's output that are shown


@dataclasses.dataclass(frozen=True)
class Phase:
    """One step of the run. `commands` run one after the other until one fails; `limit` is seconds for all of them.

    `is_stretched`: it may take longer, as long as every later phase keeps its own limit.
    """

    name: str
    limit: float
    commands: tuple[tuple[str, ...], ...]
    is_stretched: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a phase ended: "ok", "exit code N", "stopped after N s" or "not run: ..."."""

    name: str
    says: str
    seconds: float

    @property
    def is_ok(self) -> bool:
        return self.says == "ok"


def plan(args: argparse.Namespace, limits: dict[str, float]) -> list[Phase]:
    """The phases that are run, in order."""
    python = sys.executable
    install = (python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--upgrade")
    site = ("--target", str(args.site))
    carried = sorted(WHEELS.glob("*.whl"))
    wheels = tuple(map(str, carried))
    is_built = any(path.name.startswith("pymgan-") for path in carried)
    profile = str(args.out / "logs" / "profile")
    sanitizer = ("compute-sanitizer", "--report-api-errors", "no", "--error-exitcode", "9")
    small = (
        *(python, "-m", "bench", "once", "--device", "cuda", "--engine", args.sanitize),
        *("--case", "glyph-mlp", "--tasks", "2", "--steps", "1"),  # teams and rings: ring-mlp has neither
    )
    commands: dict[str, tuple[tuple[str, ...], ...]] = {
        "build": (
            *(((*install, *site, *wheels),) if wheels else ()),
            # "auto" would leave the engine out where something about the compiler is amiss.
            *(() if is_built else ((*install, *BUILT_HERE, *site, "."),)),
            (python, "-m", "pymgan", "env"),
        ),
        # Warnings are errors where the pins hold; that machine has versions of its own. A line a test, for a run that is stopped.
        "battery": (
            (
                *(python, "-m", "pytest", "-m", "gpu", "-v", "-n", str(args.workers), "-W", "default"),
                *(("-k", args.tests) if args.tests else ()),
            ),
        ),
        "bench": (
            (
                *(python, "-m", "bench", "--device", "cuda", "--commit", args.commit),
                *("--json", str(args.out / "bench.json"), "--profile", profile),
                *("--budget", BUDGET, *args.bench),
            ),
        ),
        "profile": ((python, "-m", "bench", "counters", profile, "--budget", BUDGET),),
        "sanitize": tuple((*sanitizer, "--tool", tool, *small) for tool in ("memcheck", "racecheck")),
    }
    return [
        Phase(name, limits[name], commands[name], is_stretched=name == STRETCHED)
        for name in PHASES
        if name in (args.only or PHASES)
    ]


def run(
    phases: Sequence[Phase],
    logs: Path,
    *,
    limit: float,
    environment: dict[str, str],
    say: Callable[[str], None],
) -> list[Ended]:
    """Runs every phase that still fits into the limit; none of them raises.

    Args:
        phases: in order.
        logs: folder for what each of them says.
        limit: seconds for all together.
        environment: of the commands.
        say: one line, or the end of a phase's output.
    """
    end = time.monotonic() + limit
    ended = []
    for i, phase in enumerate(phases):
        started = time.monotonic()
        left = end - started
        reserved = sum(later.limit for later in phases[i + 1 :])
        left = min(left, max(phase.limit, left - reserved) if phase.is_stretched else phase.limit)
        if left <= 0:
            ended.append(Ended(phase.name, f"not run: the {limit:g} s are spent (--limit)", 0.0))
            continue
        log = logs / f"{phase.name}.log"
        say(f"=== {phase.name}, at most {left:.0f} s")
        says = _run(phase, log, left, environment)
        ended.append(Ended(phase.name, says, time.monotonic() - started))
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        say("\n".join([*lines[-SHOWN:], f"=== {phase.name}: {says}, {ended[-1].seconds:.0f} s"]))
    return ended


def _run(phase: Phase, log: Path, limit: float, environment: dict[str, str]) -> str:
    end = time.monotonic() + limit
    with log.open("ab") as file:
        for words in phase.commands:
            budget = max(1.0, end - time.monotonic() - SPARE)
            command = [f"{budget:.0f}" if word == BUDGET else word for word in words]
            file.write(f"$ {shlex.join(command)}\n".encode())
            file.flush()
            if shutil.which(command[0], path=environment.get("PATH")) is None:
                return f"not run: {command[0]} is not on the PATH"
            with subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # whatever it starts ends with it
            ) as process:
                try:
                    code = process.wait(timeout=max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    # pytest says then what failed, and who has children ends them.
                    process.send_signal(signal.SIGINT)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=LAST_WORDS)
                    return f"stopped after {limit:.0f} s"
                finally:
                    end_session(process)
            if code:
                return f"exit code {code}"
    return "ok"


def pack(logs: Path, out: Path, say: Callable[[str], None]) -> None:
    """Puts `logs` into ``logs.tar.gz``, largest files last, and leaves out what would make it too large to come back."""
    files = sorted((path for path in logs.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    target = out / "logs.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for path in files:
            name = str(path.relative_to(logs))
            # A trace shrinks tenfold or more; a file that would not fit even so is said.
            if target.stat().st_size + path.stat().st_size / 8 > LARGEST:
                say(f"left out of {target.name}, {path.stat().st_size / 1e6:.0f} MB: {name}")
                continue
            archive.add(path, arcname=name)
    shutil.rmtree(logs)


def summary(ended: Sequence[Ended]) -> str:
    """One line a phase, and the sum."""
    lines = [f"{each.name:10} {each.seconds:6.0f} s  {each.says}" for each in ended]
    return "\n".join([*lines, f"{'together':10} {sum(each.seconds for each in ended):6.0f} s"])


def main(argv: list[str]) -> int:
    """Returns 0, or 1 when a phase did not end well."""
    args = _arguments(argv)
    limits = {**PHASES, **dict(args.phase_limit or ())}
    phases = plan(args, limits)
    if args.dry_run:
        for phase in phases:
            more = ", or what is left over" if phase.is_stretched else ""
            print(f"{phase.name}, at most {phase.limit:g} s{more}")
            for command in phase.commands:
                print(f"    {shlex.join(command)}")
        return 0
    logs = args.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(args.site), os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        # The profile finds what the bench has compiled; the bench finds nothing, on a machine that is fresh.
        "TRITON_CACHE_DIR": str(args.site.with_name(args.site.name + "-triton")),
    }

    def say(text: str) -> None:
        print(text, flush=True)

    ended = run(phases, logs, limit=args.limit, environment=environment, say=say)
    text = summary(ended)
    (args.out / "summary.txt").write_text(
        f"commit {args.commit or 'unknown'}: {shlex.join(['python', '-m', 'bench', 'device', *argv])}\n{text}\n",
        encoding="utf-8",
    )
    pack(logs, args.out, say)
    say(text)
    return 0 if all(each.is_ok for each in ended) else 1


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench device",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = Path(os.environ.get("OUT") or ROOT / "bench" / "results" / "device")
    parser.add_argument("--only", action="append", choices=PHASES, help="repeatable; default: all")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="default: $OUT, or %(default)s")
    parser.add_argument(
        "--site",
        type=Path,
        default=Path("/tmp/pymgan-site"),
        metavar="DIR",
        help="where pymgan is installed (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds for all phases (default: %(default)s)"
    )
    parser.add_argument(
        "--phase-limit",
        action="append",
        type=_phase_limit,
        metavar="PHASE=SECONDS",
        help="repeatable; default: " + ", ".join(f"{name}={limit:g}" for name, limit in PHASES.items()),
    )
    parser.add_argument(
        "--workers", type=int, default=12, help="processes of the battery (default: %(default)s)"
    )
    parser.add_argument("--tests", metavar="EXPRESSION", help="of the battery, as pytest's -k takes it")
    parser.add_argument(
        "--sanitize", default="cuda", metavar="ENGINE", help="whom to sanitize (default: %(default)s)"
    )
    parser.add_argument(
        "--commit", default=machine.commit(), metavar="HASH", help="of a checkout without git"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the phases and their commands")
    parser.add_argument("bench", nargs="*", metavar="OPTION", help="after --: more options of the bench")
    args = parser.parse_args(argv)
    args.out, args.site = args.out.resolve(), args.site.resolve()
    return args


def _phase_limit(text: str) -> tuple[str, float]:
    name, _, seconds = text.partition("=")
    try:
        if name in PHASES:
            return name, float(seconds)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected one of {', '.join(PHASES)}, =, and seconds, got {text}")
