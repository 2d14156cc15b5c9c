"""Rivals of the kind of `meta`, or of each other: their names in a run, on disk and on resuming."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from face import TINY, tiny_run

import pymgan
from pymgan.finish import table
from pymgan.settings import distinct_names

FIRST = pymgan.MAML(inner_steps=2, samples=4, order=1)
FAST = pymgan.Reptile(inner_steps=2, inner_lr=(0.2, 0.1), ema=0.9)


def test_rivals_of_one_kind_go_by_what_differs(tmp_path: Path) -> None:
    rivals = (FIRST, "reptile", FAST)
    run = tiny_run(tmp_path, rivals=rivals, steps=2)
    names = {"maml", "maml order=1", "reptile", "reptile ema=0.9 inner_lr=0.2,0.1"}
    assert {row["method"] for row in run.history} == names
    assert {entry.name for entry in (tmp_path / "events").iterdir()} == names
    assert run.summary is not None
    assert set(run.summary["test"]) == {"tasks", "before", "after", *names - {"maml"}}
    assert run.summary["settings"]["steps"].keys() == names
    lines = table(run.summary).splitlines()
    assert len({line.index("±") for line in lines[1:]}) == 1  # a long name moves no column

    (tmp_path / "summary.json").unlink()
    again = tiny_run(tmp_path, rivals=rivals, steps=2)  # resumed: the names are those of the checkpoint
    assert again.summary is not None
    assert again.summary["test"] == run.summary["test"]
    assert again.history == run.history
    with pytest.raises(
        pymgan.SettingsChanged, match=r"methods\.maml order=1\.order: 1 in the folder, absent now"
    ):
        tiny_run(tmp_path, rivals=("reptile", FAST), steps=2)


def test_names_do_not_depend_on_the_order_of_keys() -> None:
    configs = [method.to_config() for method in (TINY["meta"], FIRST, pymgan.Reptile(), FAST)]
    assert distinct_names(configs) == distinct_names(json.loads(json.dumps(configs, sort_keys=True)))


def test_equal_methods_are_refused() -> None:
    for rivals in ((TINY["meta"],), (FAST, FAST)):
        with pytest.raises(ValueError, match=r"expected methods.*differ from each other, got two equal"):
            tiny_run(rivals=rivals)


def test_the_default_rivals_go_with_every_meta() -> None:
    run = tiny_run(meta=pymgan.Joint(inner_steps=2), rivals=("joint", "scratch"), steps=1)
    assert run.summary is not None
    assert set(run.summary["test"]) == {"tasks", "before", "after", "scratch"}
