"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) of a recurrent policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..meta.base import number, whole
from .policy import Policy
from .rollout import Rollout

__all__ = ["PPO", "advantages", "against_copies"]


@dataclass(frozen=True, kw_only=True)
class PPO:
    """How a policy learns from a rollout.

    Attributes:
        lr: of Adam; it falls linearly to zero over the run.
        epochs: passes over a rollout.
        minibatches: parts of the environments that a pass takes one after the other, each with all its steps in order.
        discount: of a step; 1 because the return of a whole trial is what counts.
        trace: lambda of generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).
        value_trace: lambda of what values learn from; `trace` without. With a larger one values stay right where advantages of a
            small lambda rest on them (Yuan et al. 2025, arXiv 2503.01491).
        clip: of the probability ratio.
        value_clip: how far a value may move in one rollout, in deviations of the returns; None leaves it free.
        value_weight: of the squared error of the values, in deviations of the returns.
        belief: weight of `Policy.surprise`, where the environment says what is known in training.
        entropy: weight of the entropy bonus; it falls linearly to zero over the run.
        gradient_clip: largest norm of a gradient.
    """

    lr: float = 3e-3
    epochs: int = 3
    minibatches: int = 4
    discount: float = 1.0
    trace: float = 0.9
    value_trace: float | None = None
    clip: float = 0.2
    value_clip: float | None = 0.5
    value_weight: float = 0.5
    belief: float = 0.3
    entropy: float = 0.01
    gradient_clip: float = 0.5

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatches"):
            whole(name, getattr(self, name), least=1)
        for name in ("lr", "value_weight", "belief", "entropy", "clip", "gradient_clip"):
            number(name, getattr(self, name), low=0.0)
        for name in ("discount", "trace", "value_trace"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), low=0.0, below=math.nextafter(1.0, 2.0))
        if self.value_clip is not None:
            number("value_clip", self.value_clip, low=0.0)

    def update(
        self,
        policy: Policy,
        optimiser: torch.optim.Optimizer,
        rollout: Rollout,
        *,
        done: float,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Improve the policy on one rollout, when the fraction `done` of the run is behind it.

        Returns:
            Means over minibatches: loss, value_loss, surprise, entropy, clipped (the share of ratios that were).

        Raises:
            ValueError: the policy has to tell what is known, and the environment did not say it.
        """
        if rollout.known.isnan().any():
            raise ValueError(
                f"[rl2] expected infos['known'] with {policy.known} numbers for each environment, got none"
            )
        for group in optimiser.param_groups:
            group["lr"] = self.lr * (1 - done)
        advantage = advantages(rollout, self.discount, self.trace)
        target = rollout.values + (
            advantage if self.value_trace is None else advantages(rollout, self.discount, self.value_trace)
        )
        played = rollout.played
        advantage = against_copies(advantage, rollout)
        advantage = (advantage - advantage[played].mean()) / (advantage[played].std() + 1e-8)
        policy.rescale(target[played])
        scale = float(policy.value_scale)
        totals = dict.fromkeys(("loss", "value_loss", "surprise", "entropy", "clipped"), 0.0)
        count = len(rollout.inputs)
        size = -(-count // self.minibatches)
        for _ in range(self.epochs):
            order = torch.randperm(count, generator=generator)
            for rows in torch.split(order, size):
                use = played[rows]
                states, _ = policy(rollout.inputs[rows], rollout.hidden[rows], rollout.starts[rows])
                outputs, values = policy.actor(states), policy.value(states)
                log_ratio = policy.heads.log_prob(outputs, rollout.actions[rows]) - rollout.log_prob[rows]
                ratio, gain = log_ratio.exp(), advantage[rows]
                clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
                surrogate = torch.minimum(ratio * gain, clipped * gain)[use].mean()
                value_loss = self._value_loss(values, rollout.values[rows], target[rows], scale)[use].mean()
                entropy = policy.heads.entropy(outputs)[use].mean()
                surprise = policy.surprise(states, rollout.known[rows])[use].mean()
                loss = -surrogate + self.value_weight * value_loss - self.entropy * (1 - done) * entropy
                loss = loss + self.belief * surprise
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(policy.parameters(), self.gradient_clip)
                optimiser.step()
                totals["loss"] += float(loss.detach())
                totals["value_loss"] += float(value_loss.detach())
                totals["surprise"] += float(surprise.detach())
                totals["entropy"] += float(entropy.detach())
                totals["clipped"] += float((ratio != clipped)[use].float().mean())
        return {name: total / (self.epochs * -(-count // size)) for name, total in totals.items()}

    def _value_loss(self, values: Tensor, before: Tensor, target: Tensor, scale: float) -> Tensor:
        error = ((values - target) / scale).square()
        if self.value_clip is None:
            return error
        bound = self.value_clip * scale
        near = before + (values - before).clamp(-bound, bound)
        return torch.maximum(error, ((near - target) / scale).square())


def advantages(rollout: Rollout, discount: float, trace: float) -> Tensor:
    """Generalised advantage estimates [N, L]. They run over the episodes of a trial and stop at its end."""
    surprise = rollout.rewards + discount * rollout.after - rollout.values
    result = torch.empty_like(surprise)
    following = torch.zeros(len(surprise))
    for step in range(surprise.shape[1] - 1, -1, -1):
        following = surprise[:, step] + discount * trace * torch.where(rollout.ends[:, step], 0.0, following)
        result[:, step] = following
    return result


def against_copies(advantage: Tensor, rollout: Rollout) -> Tensor:
    """Advantages [N, L] less the mean of those that the other copies of the same task have at the same step, where there are any:
    it does not depend on one's own actions, and how hard a task is drops out (Kool et al. 2019, leave-one-out)."""
    length = advantage.shape[1]
    _, group = torch.unique(rollout.task, return_inverse=True)
    group = (group * length + torch.arange(length)).flatten()
    flat = torch.where(rollout.played, advantage, 0.0).flatten()
    sums, counts = (
        torch.zeros(int(group.max()) + 1).index_add_(0, group, each)[group]
        for each in (flat, rollout.played.flatten().float())
    )
    others = (sums - flat) / (counts - 1).clamp_min(1)
    return advantage - others.view_as(advantage)
