"""pymgan's own errors. Others that a user can cause are a plain ValueError, TypeError or OSError."""

from __future__ import annotations

__all__ = ["CheckpointError", "FolderInUse", "Interrupted", "SettingsChanged", "TrainingFailed"]


class CheckpointError(ValueError):
    """A file is not a pymgan checkpoint, or not a whole one."""


class FolderInUse(RuntimeError):
    """Another process is writing to the run folder."""


class SettingsChanged(ValueError):
    """A run folder holds a run that was started with other settings."""


class TrainingFailed(RuntimeError):
    """Most tasks became non-finite. The last good state has been saved."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped the training after a whole step; with `out=` its state has been saved."""
