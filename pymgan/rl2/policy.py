"""The recurrent policy of RL² (Duan et al. 2016, arXiv 1611.02779): its hidden state is the learning algorithm."""

from __future__ import annotations

import os
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from .. import checkpoint
from ..errors import CheckpointError
from .heads import Heads
from .spaces import encode, symlog, width

__all__ = ["Policy"]


class Policy(nn.Module):
    """A GRU that sees (observation, previous action, previous reward, done flag) and says a distribution and a value.

    Nothing but its hidden state, [N, hidden], is carried from step to step. Whoever plays it keeps the state over the episodes of
    a trial and sets it to zero before the next trial.

    Args:
        observations: space of one observation.
        actions: space of one action.
        hidden: numbers in the hidden state.
    """

    def __init__(
        self, observations: spaces.Space[Any], actions: spaces.Space[Any], *, hidden: int = 64
    ) -> None:
        super().__init__()
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"[rl2] expected hidden >= 1, got {hidden!r}")
        self.observations, self.hidden = observations, hidden
        self.heads = Heads(actions)
        self.inputs = width(observations) + self.heads.encoded + 2
        self.gru = nn.GRU(self.inputs, hidden, batch_first=True)
        self.actor = nn.Linear(hidden, self.heads.outputs)
        self.critic = nn.Linear(hidden, 1)
        for layer in (self.actor, self.critic):  # a uniform policy and a value of zero to begin with
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def see(self, observations: Any, actions: Tensor | None, rewards: Tensor, done: Tensor) -> Tensor:
        """One step's input, [N, inputs].

        Args:
            observations: a batch of N, as the environment returned it.
            actions: the flat actions before, [N, columns]; None before the first.
            rewards: of them, [N].
            done: bool [N], whether they ended an episode.
        """
        seen = encode(self.observations, observations)
        before = torch.zeros(len(seen), self.heads.encoded) if actions is None else self.heads.encode(actions)
        return torch.cat([seen, before, symlog(rewards.float())[:, None], done.float()[:, None]], 1)

    def start(self, count: int) -> Tensor:
        """The hidden state before a trial, [N, hidden]."""
        return torch.zeros(count, self.hidden)

    def forward(
        self, inputs: Tensor, hidden: Tensor, starts: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs L steps.

        Args:
            inputs: [N, L, inputs].
            hidden: [N, hidden], before the first.
            starts: bool [N, L], where a trial begins: the hidden state is zero before that step.

        Returns:
            Outputs for the heads [N, L, outputs], values [N, L], the hidden state after the last step.
        """
        cuts = [0] if starts is None else [0, *(starts[:, 1:].any(0).nonzero().flatten() + 1).tolist()]
        pieces = []
        for first, end in zip(cuts, [*cuts[1:], inputs.shape[1]], strict=True):
            if starts is not None:
                hidden = torch.where(starts[:, first, None], 0.0, hidden)
            piece, last = self.gru(inputs[:, first:end], hidden[None])
            hidden = last[0]
            pieces.append(piece)
        states = torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0]
        return self.actor(states), self.critic(states).squeeze(-1), hidden

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights to one safetensors file, atomically."""
        checkpoint.save(path, self.state_dict(), self._form(), kind="policy")

    def load(self, path: str | os.PathLike[str]) -> Policy:
        """Read what `save` wrote into this policy, which must have the same spaces and hidden state.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, something else, or of a policy for other spaces.
        """
        tensors, form = checkpoint.load(path, kind="policy")
        if form != self._form():
            raise CheckpointError(f"{path}: expected a policy of {self._form()}, got one of {form}")
        self.load_state_dict(tensors)
        return self

    def _form(self) -> dict[str, Any]:
        return {
            "observations": str(self.observations),
            "actions": str(self.heads.space),
            "hidden": self.hidden,
        }
