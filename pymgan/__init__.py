"""Meta-learning for GANs: exact second-order meta-gradients through a compiled engine."""

from __future__ import annotations

# Run from the checkout's root, Python imports this folder; the compiled extension lies in the installed copy.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

from . import metrics, nn, tasks
from ._version import __version__
from .adapt import adapt
from .contract import Data, Engine, Objective, Rng, Schedule
from .engine import compile
from .errors import CheckpointError, FolderInUse, Interrupted, SettingsChanged, TrainingFailed
from .gan import GAN, Penalty
from .loop import Step
from .meta import MAML, Joint, Meta, Reptile, Scratch
from .rl2 import RL2, Controller
from .run import FewShot, Run, load
from .train import train
from .unrolled import Unrolled, UnrolledGradient, unrolled_gradient

__all__ = [
    "GAN",
    "MAML",
    "RL2",
    "CheckpointError",
    "Controller",
    "Data",
    "Engine",
    "FewShot",
    "FolderInUse",
    "Interrupted",
    "Joint",
    "Meta",
    "Objective",
    "Penalty",
    "Reptile",
    "Rng",
    "Run",
    "Schedule",
    "Scratch",
    "SettingsChanged",
    "Step",
    "TrainingFailed",
    "Unrolled",
    "UnrolledGradient",
    "__version__",
    "adapt",
    "compile",
    "load",
    "metrics",
    "nn",
    "tasks",
    "train",
    "unrolled_gradient",
]
