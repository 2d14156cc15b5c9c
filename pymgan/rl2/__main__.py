"""`python -m pymgan.rl2 bandit | mdp`: RL² on problems whose answers are known."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from .learn import Update
from .studies import bandit, mdp


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one study, print its table, and with --json its numbers as the last line."""
    options = vars(_parser().parse_args(arguments))
    study: ModuleType = options.pop("study")
    as_json, progress, threads = (options.pop(name) for name in ("json", "progress", "threads"))
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with _Bar(study.__name__.rsplit(".", 1)[-1], options["updates"], show=progress) as bar:
            result = study.study(**options, callback=bar.update)
    except ValueError as error:
        print(f"pymgan.rl2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(study.table(result))
    if as_json:
        print(json.dumps(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pymgan.rl2", description=__doc__)
    commands = parser.add_subparsers(title="studies", required=True, metavar="bandit | mdp")
    _add(commands, bandit, "Bernoulli bandits", {"arms": 5, "pulls": 10, "problems": 20_000, "hidden": 64})
    shape = {"states": 10, "actions": 5, "horizon": 10, "episodes": 10, "problems": 1000, "hidden": 128}
    _add(commands, mdp, "random tabular MDPs", shape)
    return parser


def _add(commands: Any, study: ModuleType, text: str, numbers: dict[str, int]) -> None:
    parser = commands.add_parser(
        study.__name__.rsplit(".", 1)[-1],
        help=text,
        description=study.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for name, value in {**numbers, "updates": study.UPDATES, "seed": 0}.items():
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--threads", type=int, default=None, help="of torch")
    parser.add_argument("--json", action="store_true", help="the numbers as one JSON object in the last line")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, default=True, help="a bar on stderr"
    )
    parser.set_defaults(study=study)


class _Bar:
    """Updates done, the mean return, the time left."""

    def __init__(self, label: str, total: int, *, show: bool) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=total, desc=label, unit="update", disable=not show, file=sys.stderr, mininterval=1.0
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def update(self) -> Callable[[Update], None]:
        def show(said: Update) -> None:
            self._bar.set_postfix_str(f"return {said.mean_return:.3f}", refresh=False)
            self._bar.update(1)

        return show


if __name__ == "__main__":
    sys.exit(main())
