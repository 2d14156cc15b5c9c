"""The recurrent policy of RL² (Duan et al. 2016, arXiv 1611.02779): its hidden state is the learning algorithm."""

from __future__ import annotations

import os
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from .. import checkpoint
from ..errors import CheckpointError
from ..meta.base import whole
from .heads import Heads
from .spaces import encode, symlog, width

__all__ = ["Policy"]


class Policy(nn.Module):
    """A GRU that sees (observation, previous action, previous reward, done flag) and says a distribution and a value.

    Nothing but its hidden state, [N, hidden], is carried from step to step. Whoever plays it keeps the state over the episodes of
    a trial and sets it to zero before the next trial.

    Where more is known in training than the policy will see, the hidden state has to tell it, which teaches it what is worth
    remembering (Humplik et al. 2019, arXiv 1905.06424). Neither actions nor values depend on it.

    Args:
        observations: space of one observation.
        actions: space of one action.
        hidden: numbers in the hidden state.
        known: numbers that are known in training.
        critic: units of a layer of the critic's own; with 0 a value is linear in the hidden state.
    """

    def __init__(
        self,
        observations: spaces.Space[Any],
        actions: spaces.Space[Any],
        *,
        hidden: int = 64,
        known: int = 0,
        critic: int = 0,
    ) -> None:
        super().__init__()
        whole("hidden", hidden, least=1)
        for name, value in (("known", known), ("critic", critic)):
            whole(name, value, least=0)
        self.observations, self.hidden, self.known = observations, hidden, known
        self.heads = Heads(actions)
        self.inputs = width(observations) + self.heads.encoded + 2
        self.gru = nn.GRU(self.inputs, hidden, batch_first=True)
        self.actor = nn.Linear(hidden, self.heads.outputs)
        self.judging: nn.Linear | None = nn.Linear(hidden, critic) if critic else None
        self.critic = nn.Linear(critic or hidden, 1)
        self.guess: nn.Linear | None = nn.Linear(hidden, 2 * known) if known else None
        # a uniform policy, a value of zero and a guess of zero to begin with
        for layer in (self.actor, self.critic, self.guess):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.value_mean: Tensor
        self.value_scale: Tensor
        self.register_buffer("value_mean", torch.zeros(()))
        self.register_buffer("value_scale", torch.zeros(()))  # 0 until returns have been seen

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

    def forward(self, inputs: Tensor, hidden: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs L steps.

        Args:
            inputs: [N, L, inputs].
            hidden: [N, hidden], before the first.
            starts: bool [N, L], where a trial begins: the hidden state is zero before that step.

        Returns:
            The hidden states after every step, [N, L, hidden], for `actor`, `value` and `surprise`, and that after the last.
        """
        cuts = [0] if starts is None else [0, *(starts[:, 1:].any(0).nonzero().flatten() + 1).tolist()]
        pieces = []
        for first, end in zip(cuts, [*cuts[1:], inputs.shape[1]], strict=True):
            if starts is not None:
                hidden = torch.where(starts[:, first, None], 0.0, hidden)
            piece, last = self.gru(inputs[:, first:end], hidden[None])
            hidden = last[0]
            pieces.append(piece)
        return torch.cat(pieces, 1) if len(pieces) > 1 else pieces[0], hidden

    def value(self, states: Tensor) -> Tensor:
        """Of what follows, [...], in hidden states [..., hidden]."""
        if self.judging is not None:
            states = torch.tanh(self.judging(states))
        unit: Tensor = self.critic(states).squeeze(-1)
        return self.value_mean + self._unit() * unit

    def surprise(self, states: Tensor, known: Tensor) -> Tensor:
        """How badly hidden states [..., hidden] tell what is known [..., known]: mean -log density of Gaussian guesses, [...];
        0 where nothing has to be told."""
        if self.guess is None:
            return torch.zeros(states.shape[:-1])
        guess: Tensor = self.guess(states)
        mean, log_variance = guess.chunk(2, -1)
        return 0.5 * ((known - mean).square() * (-log_variance).exp() + log_variance).mean(-1)

    @torch.no_grad()
    def rescale(self, returns: Tensor, *, share: float = 0.1) -> None:
        """Move the mean and deviation that values are told in towards those of returns [any number]; values stay what they are.

        A network that has to say 200 saturates what it has in common with the actor (PopArt: van Hasselt et al. 2016, arXiv
        1602.07714).
        """
        first = float(self.value_scale) == 0
        share = 1.0 if first else share
        mean = self.value_mean + share * (returns.mean() - self.value_mean)
        scale = self.value_scale + share * (returns.std() + 1e-6 - self.value_scale)
        old = self._unit()
        self.critic.weight.mul_(old / scale)
        self.critic.bias.copy_((old * self.critic.bias + self.value_mean - mean) / scale)
        self.value_mean.copy_(mean)
        self.value_scale.copy_(scale)

    def _unit(self) -> Tensor:
        return torch.where(self.value_scale > 0, self.value_scale, 1.0)

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
            "known": self.known,
            "critic": self.critic.in_features if self.judging is not None else 0,
        }
