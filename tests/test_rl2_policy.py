"""The policy of RL²: what it reads, what it says, and what it remembers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import pymgan
from pymgan.rl2 import Policy
from pymgan.rl2.heads import Heads
from pymgan.rl2.spaces import encode, width

MIXED = spaces.Dict(
    {
        "rate": spaces.Box(-2.0, 4.0, (2,), np.float32),
        "kind": spaces.Discrete(3, start=5),
        "free": spaces.Box(-np.inf, np.inf, (), np.float32),
        "more": spaces.Tuple((spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3))),
    }
)


def outputs_of(heads: Heads, *shape: int) -> torch.Tensor:
    return torch.randn((*shape, heads.outputs), generator=torch.Generator().manual_seed(3))


def test_actions_lie_in_the_space() -> None:
    heads = Heads(MIXED)
    actions = heads.sample(3 * outputs_of(heads, 500), torch.Generator().manual_seed(0))
    batch: Any = heads.to_environment(actions)
    for i in range(500):
        one = {
            "rate": batch["rate"][i],
            "kind": batch["kind"][i],
            "free": np.asarray(batch["free"][i]),
            "more": (batch["more"][0][i], batch["more"][1][i]),
        }
        assert MIXED.contains(one), one
    assert set(batch["kind"].tolist()) == {5, 6, 7}
    assert {batch["rate"].min(), batch["rate"].max()} == {-2.0, 4.0}, "wide noise reaches both bounds"


def test_probability_and_entropy_are_those_of_torch_distributions() -> None:
    heads = Heads(MIXED)
    with torch.no_grad():
        heads.log_std.copy_(torch.tensor([0.3, -1.0, 0.2]))
    outputs = outputs_of(heads, 7, 4)
    actions = heads.sample(outputs.flatten(0, 1), torch.Generator().manual_seed(0)).reshape(7, 4, -1)
    columns, log_prob, entropy = 0, torch.zeros(7, 4), torch.zeros(7, 4)
    sizes = [3, 2, 4, 2, 2, 2]
    for part, size in enumerate(sizes):
        one = torch.distributions.Categorical(logits=outputs[..., columns : columns + size])
        log_prob, entropy = log_prob + one.log_prob(actions[..., part]), entropy + one.entropy()
        columns += size
    normal = torch.distributions.Normal(outputs[..., columns:], heads.log_std.detach().exp())
    log_prob = log_prob + normal.log_prob(actions[..., len(sizes) :]).sum(-1)
    torch.testing.assert_close(heads.log_prob(outputs, actions), log_prob)
    torch.testing.assert_close(heads.entropy(outputs), entropy + normal.entropy().sum(-1))


def test_draws_follow_the_probabilities() -> None:
    heads = Heads(spaces.Discrete(4))
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    drawn = heads.sample(logits.expand(40_000, 4), torch.Generator().manual_seed(1))[:, 0].long()
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    torch.testing.assert_close(share, logits.softmax(0), atol=0.01, rtol=0)
    greedy = heads.sample(logits.expand(3, 4), torch.Generator(), greedy=True)
    assert greedy.flatten().tolist() == [2.0, 2.0, 2.0]


def test_observations_become_numbers() -> None:
    values = {
        "rate": np.array([[0.0, np.e - 1], [-(np.e - 1), 2.0]]),
        "kind": np.array([5, 7]),
        "free": np.array([0.0, 1.0]),
        "more": (np.array([[1, 3], [0, 0]]), np.array([[1, 0, 1], [0, 0, 0]])),
    }
    got = encode(MIXED, values)
    assert got.shape == (2, width(MIXED))
    order = list(MIXED.spaces)  # gymnasium sorts the keys of a dict
    assert order == ["free", "kind", "more", "rate"]
    expected = [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 1]
    torch.testing.assert_close(got[0], torch.tensor(expected, dtype=torch.float32))
    with pytest.raises(NotImplementedError, match="expected a space of Box"):
        encode(spaces.Text(3), ["abc"])


def test_a_new_trial_begins_with_nothing_remembered() -> None:
    policy = Policy(spaces.Discrete(3), spaces.Discrete(2), hidden=8)
    inputs = torch.randn(5, 6, policy.inputs)
    starts = torch.zeros(5, 6, dtype=torch.bool)
    starts[1, 2] = starts[3, 4] = starts[4, 2] = True
    before = torch.randn(5, 8)
    whole = policy(inputs, before, starts)
    for row in range(5):
        cut = [0, *starts[row].nonzero().flatten().tolist()]
        for first, end in zip(cut, [*cut[1:], 6], strict=True):
            hidden = before[row : row + 1] if first == 0 else torch.zeros(1, 8)
            states, last = policy(inputs[row : row + 1, first:end], hidden)
            torch.testing.assert_close(states[0], whole[0][row, first:end])
        torch.testing.assert_close(last[0], whole[1][row])


def test_a_guess_is_judged_by_its_density() -> None:
    policy = Policy(spaces.Discrete(3), spaces.Discrete(2), hidden=8, known=4)
    assert policy.guess is not None
    torch.nn.init.normal_(policy.guess.weight)
    states, known = torch.randn(5, 6, 8), torch.randn(5, 6, 4)
    mean, log_variance = policy.guess(states).chunk(2, -1)
    density = torch.distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(known)
    expected = -density.mean(-1) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(policy.surprise(states, known), expected)
    policy.surprise(states, known).mean().backward()
    assert policy.actor.weight.grad is None


def test_a_critic_with_a_layer_of_its_own_is_not_linear() -> None:
    states = torch.randn(7, 8)
    for critic in (0, 5):
        policy = Policy(spaces.Discrete(3), spaces.Discrete(2), hidden=8, critic=critic)
        torch.nn.init.normal_(policy.critic.weight)
        middle, ends = policy.value(2 * states), policy.value(states) + policy.value(3 * states)
        assert torch.allclose(2 * middle, ends, atol=1e-5) == (critic == 0)


def test_a_policy_is_saved_and_loaded(tmp_path: Path) -> None:
    first, second = (Policy(MIXED, spaces.Discrete(2), hidden=4, known=2, critic=3) for _ in range(2))
    first.save(tmp_path / "policy")
    second.load(tmp_path / "policy")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(pymgan.CheckpointError, match="expected a policy of"):
        Policy(MIXED, spaces.Discrete(3), hidden=4).load(tmp_path / "policy")
