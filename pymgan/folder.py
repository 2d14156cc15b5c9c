"""The run folder: one writer at a time, and files that agree with the checkpoint after any kind of end.

config.json              what was asked for; a resumed run must ask for the same
checkpoint.safetensors   the whole state (pymgan/checkpoint.py)
metrics.jsonl            one row a line; rows beyond the checkpoint's step are cut off when a run resumes
events/<method>/         TensorBoard
controller.safetensors   the controller, if the run learns one (pymgan/rl2/training.py)
samples.png controller.png summary.json of a finished run
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from . import checkpoint
from .errors import CheckpointError, FolderInUse

__all__ = ["CHECKPOINT", "SUMMARY", "RunFolder", "jsonable", "read_rows"]

CHECKPOINT = "checkpoint.safetensors"
SUMMARY = "summary.json"

Row = dict[str, Any]


def jsonable(value: Any) -> Any:
    """The same with None for every number that is not finite, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class RunFolder:
    """A run folder held for writing. Use as a context manager, or call `close`.

    Raises:
        FolderInUse: another process holds it.
        NotADirectoryError: `path` is a file.
        OSError: it cannot be made or written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"expected a folder for the run, got the file {self.path}; choose another out="
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] | None = open(self.path / ".lock", "ab")  # noqa: SIM115 - held while the run lasts
        except OSError as error:
            raise checkpoint.cannot_write(self.path, error) from error
        if not _try_lock(self._lock):
            self._lock.close()
            self._lock = None
            raise FolderInUse(
                f"another process is training in {self.path}; wait for it or choose another out="
            )
        for stale in self.path.glob(".*.tmp"):  # of a killed process: nobody else can be writing here
            stale.unlink(missing_ok=True)
        self._metrics: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back. The lock file stays: removing it would race with the next run's lock."""
        if self._metrics is not None:
            with contextlib.suppress(
                OSError
            ):  # rows since the last checkpoint: a resumed run writes them again
                self._metrics.close()
            self._metrics = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def config(self) -> Row | None:
        return read_json(self.path / "config.json")

    def write_json(self, name: str, value: Row) -> None:
        checkpoint.atomic_write(
            self.path / name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
        )

    def append(self, row: Row) -> None:
        """Add one row to metrics.jsonl. It is on disk after the next `save`."""
        path = self.path / "metrics.jsonl"
        try:
            if self._metrics is None:
                self._metrics = open(path, "ab")  # noqa: SIM115 - closed by close()
            self._metrics.write((json.dumps(row) + "\n").encode())
        except OSError as error:
            raise checkpoint.cannot_write(path, error) from error

    def rows(self) -> list[Row]:
        return read_rows(self.path)

    def cut(self, keep: Callable[[Row], bool]) -> list[Row]:
        """Drop rows of metrics.jsonl that `keep` rejects, and a line that a crash cut; returns the rest."""
        rows = self.rows()
        kept = [row for row in rows if keep(row)]
        text = "".join(json.dumps(row) + "\n" for row in kept).encode()
        path = self.path / "metrics.jsonl"
        if path.exists() and path.read_bytes() != text:
            checkpoint.atomic_write(path, text)
        return kept

    def save(self, tensors: dict[str, Tensor], state: Row) -> None:
        """Write the rows that belong to the checkpoint, and then it: it never runs ahead of the metrics."""
        if self._metrics is not None:
            try:
                self._metrics.flush()
                os.fsync(self._metrics.fileno())
            except OSError as error:
                raise checkpoint.cannot_write(self.path / "metrics.jsonl", error) from error
        checkpoint.save(self.path / CHECKPOINT, tensors, state, kind="run")

    def restore(self) -> tuple[dict[str, Tensor], Row] | None:
        """The checkpoint, or None before the first one."""
        path = self.path / CHECKPOINT
        return checkpoint.load(path, kind="run") if path.exists() else None


def read_json(path: Path) -> Row | None:
    """A JSON object, or None when there is no such file.

    Raises:
        CheckpointError: it is something else.
    """
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}); the folder is not a pymgan run, or it is damaged"
        ) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_rows(folder: Path) -> list[Row]:
    """The rows of metrics.jsonl, without a last line that a crash has cut."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return list(_parse(path.read_bytes().split(b"\n")))


def _parse(lines: Iterable[bytes]) -> Iterable[Row]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _try_lock(file: IO[bytes]) -> bool:
    """An exclusive lock that the system drops when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _try_lock_windows(file)
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _try_lock_windows(file: IO[bytes]) -> bool:
    import importlib

    msvcrt: Any = importlib.import_module("msvcrt")
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
