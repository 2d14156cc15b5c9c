"""The tasks of a run, found again by name and fingerprint, and what `python -m pymgan.rl2 gan` does with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face import TINY
from PIL import Image

import pymgan
from pymgan.rl2.__main__ import main
from pymgan.rl2.studies import gan as study
from pymgan.tasks import from_arrays, from_folder, of_run, rings


def letters(root: Path, *, level: int = 0) -> Path:
    for name in "abcd":
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), level + 10 * number + ord(name), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_builtin_tasks_are_found() -> None:
    tasks = rings()
    assert of_run("rings", tasks.fingerprint, (2,)).fingerprint == tasks.fingerprint
    with pytest.raises(
        ValueError, match=r"got other data or another split of that name in the built-in tasks"
    ):
        of_run("rings", "of an older version", (2,))


def test_a_folder_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = letters(tmp_path / "data" / "letters")
    other = letters(tmp_path / "other" / "letters", level=5)
    tasks = from_folder(root, size=8, channels=3)
    wanted: Any = ("letters", tasks.fingerprint, tasks.sample_shape)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"'letters'.*got neither built-in tasks nor a folder .* \(--folders\)"
    ):
        of_run(*wanted)
    with pytest.raises(ValueError, match=r"got other data or another split of that name in .*other"):
        of_run(*wanted, [str(other)])
    for folders in ([str(root)], [str(other), "data/letters"], [str(tmp_path), str(root)]):
        assert of_run(*wanted, folders).fingerprint == tasks.fingerprint
    monkeypatch.chdir(tmp_path / "data")
    assert of_run(*wanted).fingerprint == tasks.fingerprint
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(ValueError, match="other data or another split of that name in letters"):
        of_run(*wanted)


def test_tasks_of_a_script_are_not_mistaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(letters(tmp_path / "letters").parent)
    tasks = from_arrays([np.zeros((3, 2))] * 3, name="letters")
    with pytest.raises(ValueError, match=r"expected the tasks 'letters', samples \[2\], .* script"):
        of_run("letters", tasks.fingerprint, tasks.sample_shape)


def test_the_study_of_a_run_wants_the_runs_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = letters(tmp_path / "data" / "letters")
    letters(tmp_path / "other" / "letters", level=5)
    tasks = from_folder(root, size=8, channels=3)
    options = TINY | {"shots": 2, "queries": 2, "test_tasks": 2, "engine": "cpu"}
    with pytest.warns(UserWarning, match="replacement"):
        pymgan.train(tasks, "mlp:4", out=tmp_path / "run", **options)

    def reached(setting: study.Setting, **_: Any) -> Any:
        raise ValueError(f"reached with {setting.tasks.fingerprint}")

    monkeypatch.setattr(study, "study", reached)
    command = ["gan", "--run", str(tmp_path / "run"), "--no-progress"]
    for place, more, said in (
        (tmp_path / "data", [], f"reached with {tasks.fingerprint}"),
        (tmp_path / "other", [], "other data or another split"),
        (tmp_path / "other", ["--folders", str(root)], f"reached with {tasks.fingerprint}"),
        (tmp_path, [], "say where the folder is (--folders)"),
    ):
        monkeypatch.chdir(place)
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
