"""Environments that speak gymnasium's vector API; a sub-environment is one problem, an episode or several one trial on it."""

from __future__ import annotations

from .bandit import BernoulliBandits
from .gan_control import GANControl
from .mdp import TabularMDPs
from .minimax import MinimaxGames

__all__ = ["BernoulliBandits", "GANControl", "MinimaxGames", "TabularMDPs"]
