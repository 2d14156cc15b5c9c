"""RL²: a recurrent policy, trained by reinforcement learning over many problems, whose hidden state becomes the
learning algorithm.

Duan et al. 2016, "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning", arXiv 1611.02779.
"""

from __future__ import annotations

from .controller import RL2, Controller
from .controls import Controls
from .learn import Learner, Update, learn
from .policy import Policy
from .ppo import PPO
from .rollout import Player, Rollout, play

__all__ = [
    "PPO",
    "RL2",
    "Controller",
    "Controls",
    "Learner",
    "Player",
    "Policy",
    "Rollout",
    "Update",
    "learn",
    "play",
]
