"""Playing and learning: what a trial is, what is credited to what, and that it works on environments of other people."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pymgan.rl2 import PPO, Learner, Player, Policy, Rollout, learn, play
from pymgan.rl2.environments import BernoulliBandits, TabularMDPs
from pymgan.rl2.ppo import advantages, against_copies


class Counting(VectorEnv[Any, Any, Any]):
    """Two environments whose episodes have 2 and 3 steps; the observation, and what is known, is 100 x episode + step; every
    episode is a task."""

    def __init__(self, mode: AutoresetMode, *, truncate: bool = False, per_trial: int = 1) -> None:
        self.metadata = {"autoreset_mode": mode}
        self.mode, self.truncate, self.per_trial, self.num_envs = mode, truncate, per_trial, 2
        self.lengths = np.array([2, 3])
        self.single_observation_space = spaces.Box(0, 1e6, (1,), np.float64)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, 2)
        self.action_space = batch_space(self.single_action_space, 2)

    def seen(self) -> Any:
        return (100.0 * self.episode + self.time)[:, None]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        if options and "reset_mask" in options:
            self.begin(options["reset_mask"])
        else:
            self.time, self.episode = np.zeros(2, int), np.zeros(2, int)
            self.waiting = np.zeros(2, bool)
        return self.seen(), {"known": self.seen(), "task": self.episode}

    def begin(self, which: Any) -> None:
        self.time, self.episode = np.where(which, 0, self.time), self.episode + which

    def step(self, actions: Any) -> Any:
        resetting = self.waiting if self.mode == AutoresetMode.NEXT_STEP else np.zeros(2, bool)
        self.begin(resetting)
        self.time = self.time + ~resetting
        done = (self.time == self.lengths) & ~resetting
        reward = np.where(resetting, 0.0, 1.0 + self.episode)
        infos: dict[str, Any] = {"trial_over": done & (self.episode % self.per_trial == self.per_trial - 1)}
        self.waiting = done
        seen = self.seen()
        if self.mode == AutoresetMode.SAME_STEP and done.any():
            infos["final_obs"] = seen
            self.begin(done)
            seen = self.seen()
        infos |= {"known": seen, "task": self.episode}
        no = np.zeros(2, bool)
        return seen, reward, no if self.truncate else done, done if self.truncate else no, infos


MODES = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)


def rollout_of(env: VectorEnv[Any, Any, Any], steps: int, *, known: int = 0) -> tuple[Policy, Rollout]:
    torch.manual_seed(0)
    policy = Policy(env.single_observation_space, env.single_action_space, hidden=6, known=known)
    torch.nn.init.normal_(policy.critic.weight)
    return policy, Player(env, policy, seed=0).play(steps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per_trial", [1, 2])
def test_steps_of_all_reset_modes_are_the_same(mode: AutoresetMode, per_trial: int) -> None:
    steps = 24
    _, reference = rollout_of(Counting(AutoresetMode.SAME_STEP, per_trial=per_trial), steps)
    policy, rollout = rollout_of(Counting(mode, per_trial=per_trial), steps)
    for row in range(2):
        played = rollout.played[row]
        count = int(played.sum())
        assert count == steps if mode != AutoresetMode.NEXT_STEP else count < steps
        for name in ("rewards", "ends"):
            got, expected = getattr(rollout, name)[row][played], getattr(reference, name)[row][:count]
            assert torch.equal(got, expected), name
        seen = torch.expm1(rollout.inputs[row, played, 0])
        expected = torch.expm1(reference.inputs[row, :count, 0])
        torch.testing.assert_close(seen, expected)
    sizes = np.array([2, 3]) * per_trial
    assert len(rollout.returns) >= steps // 8 + steps // 9
    first = rollout.inputs[:, :, -policy.heads.encoded - 2 :]
    assert not first[rollout.starts].any(), (
        "the first input of a trial knows of no action, reward or end before it"
    )
    if mode != AutoresetMode.NEXT_STEP:
        for row, size in enumerate(sizes):
            assert rollout.starts[row].nonzero().flatten().tolist() == list(range(0, steps, size))
            flagged = rollout.inputs[row, :, -1].nonzero().flatten().tolist()
            episode = size // per_trial
            assert flagged == [s for s in range(1, steps) if s % episode == 0 and s % size]


@pytest.mark.parametrize("mode", MODES)
def test_memory_lasts_for_a_trial_and_no_longer(mode: AutoresetMode) -> None:
    policy, rollout = rollout_of(Counting(mode, per_trial=2), 24)
    values = policy.value(policy(rollout.inputs, rollout.hidden, rollout.starts)[0])
    torch.testing.assert_close(values, rollout.values)
    without = policy.value(policy(rollout.inputs, rollout.hidden)[0])
    assert not torch.allclose(without, rollout.values)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_known_belongs_to_the_step_that_follows_it(mode: AutoresetMode) -> None:
    _, rollout = rollout_of(Counting(mode, per_trial=2), 24, known=1)
    seen = torch.expm1(rollout.inputs[..., :1])
    torch.testing.assert_close(rollout.known[rollout.played], seen[rollout.played])
    assert torch.equal(rollout.task[rollout.played], ((seen[rollout.played][:, 0] + 0.5) / 100).long())
    with pytest.raises(ValueError, match=r"expected infos\['known'\] of shape \(2, 3\), got \(2, 1\)"):
        rollout_of(Counting(mode), 24, known=3)


def test_who_only_plays_need_not_know() -> None:
    env = BernoulliBandits(4, arms=3, pulls=5)
    policy = Policy(env.single_observation_space, env.single_action_space, hidden=6, known=3)
    assert play(env, policy, trials=8).isfinite().all()
    optimiser = torch.optim.Adam(policy.parameters())
    with pytest.raises(ValueError, match=r"expected infos\['known'\] with 3 numbers"):
        PPO().update(
            policy, optimiser, Player(env, policy, seed=0).play(5), done=0.0, generator=torch.Generator()
        )


def test_the_hidden_state_learns_to_tell_what_is_known() -> None:
    """As well as the posterior means of the arms do, for whoever has seen the same pulls."""
    env = BernoulliBandits(256, arms=3, pulls=12, reward="regret")
    learner = Learner(env, PPO(minibatches=8, lr=1e-2), updates=60, hidden=24, seed=1)
    learner.run()
    player = Player(env, learner.policy, seed=5)
    player.begin(5)
    rollout = player.play(12)
    states, _ = learner.policy(rollout.inputs, rollout.hidden)
    assert learner.policy.guess is not None
    told = learner.policy.guess(states[:, -1])[:, :3]
    pulled = torch.nn.functional.one_hot(rollout.actions[:, :-1, 0].long(), 3)
    won = (pulled * (rollout.inputs[:, 1:, -2:-1] > 0)).sum(1)
    posterior = (won + 1) / (pulled.sum(1) + 2)
    known = rollout.known[:, -1]
    least = float((posterior - posterior.mean(1, keepdim=True) - known).square().mean())
    assert float((told - known).square().mean().detach()) < 1.1 * least
    assert float(known.square().mean()) > 1.3 * least


@pytest.mark.parametrize("mode", MODES)
def test_a_time_limit_is_not_an_end(mode: AutoresetMode) -> None:
    """What follows a trial that was cut off is worth what the policy thinks of its last state; of one that ended, nothing."""
    policy, ended = rollout_of(Counting(mode), 12)
    assert not ended.after[ended.ends].any()
    policy, cut = rollout_of(Counting(mode, truncate=True), 12)
    row, step = 1, 2  # the third step of an episode of three
    assert cut.ends[row, step]
    hidden = policy(cut.inputs[:, : step + 1], cut.hidden, cut.starts[:, : step + 1])[1][row : row + 1]
    last = policy.see(
        np.array([[3.0]]), cut.actions[row : row + 1, step], cut.rewards[row : row + 1, step], torch.ones(1)
    )
    expected = policy.value(policy(last[:, None], hidden)[0])[0, 0]
    torch.testing.assert_close(cut.after[row, step], expected)


def test_an_environment_that_hides_its_last_observation_says_what_is_missing() -> None:
    class Silent(Counting):
        def step(self, actions: Any) -> Any:
            *values, infos = super().step(actions)
            infos.pop("final_obs", None)
            return *values, infos

    with pytest.raises(ValueError, match="expected infos\\['final_obs'\\]"):
        rollout_of(Silent(AutoresetMode.SAME_STEP, truncate=True), 12)


def test_copies_of_a_task_are_held_against_each_other() -> None:
    """Row by row: the others that play the same task at the same step, as long as they do and are played."""
    torch.manual_seed(2)
    _, rollout = rollout_of(BernoulliBandits(7, arms=2, pulls=5), 5)
    alone = torch.randn(7, 5)
    assert torch.equal(against_copies(alone, rollout), alone), (
        "an environment that says nothing has no copies"
    )
    task = torch.tensor([-3, -3, -3, 2**62, 2**62, 5, 6])[:, None].repeat(1, 5)
    task[1, 3:] = 7  # goes on with a task of its own
    played = torch.ones(7, 5, dtype=torch.bool)
    played[2, 4] = False
    advantage = torch.where(played, alone, torch.nan)
    got = against_copies(advantage, replace(rollout, task=task, played=played))
    for row, step in itertools.product(range(7), range(5)):
        same = [r for r in range(7) if r != row and task[r, step] == task[row, step] and played[r, step]]
        others = sum(float(alone[r, step]) for r in same) / max(1, len(same))
        if played[row, step]:
            assert float(got[row, step]) == pytest.approx(float(alone[row, step]) - others, abs=1e-6)
    harder = advantage + task.double().sin().float()
    again = against_copies(harder, replace(rollout, task=task, played=played))
    paired = torch.tensor([0, 3, 4])
    torch.testing.assert_close(again[paired, :3], got[paired, :3], rtol=0, atol=1e-6)


def test_advantages_are_the_sums_of_the_formula() -> None:
    """Against sum_l (gamma lambda)^l delta_{t+l}, up to the trial's end, in float64."""
    torch.manual_seed(1)
    shape = (3, 7)
    ends = torch.rand(shape) < 0.3
    values, last = torch.randn(shape), torch.randn(3, 1)
    after = torch.where(ends, 0.0, torch.cat([values[:, 1:], last], 1))
    rewards, nothing = torch.randn(shape), torch.zeros(0)
    rollout = Rollout(
        nothing, nothing, nothing, nothing, nothing, values, rewards, ends, after, *[nothing] * 4
    )
    got = advantages(rollout, 0.9, 0.7)
    for row in range(3):
        for step in range(7):
            total, weight = 0.0, 1.0
            for later in range(step, 7):
                delta = rewards[row, later] + 0.9 * after[row, later] - values[row, later]
                total += weight * float(delta)
                weight *= 0.9 * 0.7
                if ends[row, later]:
                    break
            assert float(got[row, step]) == pytest.approx(total, abs=1e-5)


def test_values_learn_from_a_lambda_of_their_own() -> None:
    """With 1, from what was paid until the trial's end; without one, from the advantages'."""
    env = BernoulliBandits(64, arms=3, pulls=6)
    policy = Policy(env.single_observation_space, env.single_action_space, hidden=6)
    torch.nn.init.normal_(policy.critic.weight)
    rollout = Player(env, policy, seed=0).play(6)
    to_go = rollout.rewards.flip(1).cumsum(1).flip(1)
    next_step = rollout.rewards + rollout.after
    before = policy.state_dict()
    for ppo, target in (
        (PPO(trace=0.0, value_trace=1.0, value_clip=None, epochs=1, minibatches=1), to_go),
        (PPO(trace=0.0, value_clip=None, epochs=1, minibatches=1), next_step),
    ):
        fresh = Policy(env.single_observation_space, env.single_action_space, hidden=6)
        fresh.load_state_dict(before)
        optimiser = torch.optim.Adam(fresh.parameters())
        said = ppo.update(fresh, optimiser, rollout, done=0.0, generator=torch.Generator())
        expected = ((rollout.values - target) / fresh.value_scale).square().mean()
        assert said["value_loss"] == pytest.approx(float(expected), rel=1e-3)


def test_learning_is_repeated_to_the_bit_also_when_it_is_cut_in_two() -> None:
    def fresh() -> Learner:
        return Learner(BernoulliBandits(32, arms=3, pulls=6), PPO(), updates=6, hidden=8, seed=4)

    whole, cut = fresh(), fresh()
    for _ in range(6):
        whole.update()
    for _ in range(3):
        cut.update()
    resumed = fresh()
    resumed.restore(*cut.state())
    for _ in range(3):
        resumed.update()
    for a, b in zip(whole.policy.parameters(), resumed.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(cut.policy.critic.weight, whole.policy.critic.weight)


def test_a_better_arm_is_found_within_a_trial() -> None:
    """One of two arms always pays, the other never, anew in every trial: memory helps. The optimum is 5.5 of 6."""

    class OneOfTwo(BernoulliBandits):
        def _draw(self) -> None:
            best = self.np_random.integers(2, size=self.num_envs)
            self.chances = np.stack([best == 0, best == 1], 1).astype(float)

    env = OneOfTwo(256, arms=2, pulls=6)
    policy = learn(env, PPO(lr=1e-2), updates=60, hidden=16, seed=0)
    returns = play(env, policy, trials=2000, seed=99)
    assert float(returns.mean()) == pytest.approx(5.5, abs=0.06)
    again = play(env, policy, trials=2000, seed=99)
    assert torch.equal(returns, again)


@pytest.mark.parametrize("critic", [0, 5])
def test_values_stay_what_they_are_when_their_units_change(critic: int) -> None:
    policy = Policy(spaces.Discrete(3), spaces.Discrete(2), hidden=8, critic=critic)
    torch.nn.init.normal_(policy.critic.weight)
    inputs, hidden = torch.randn(4, 5, policy.inputs), policy.start(4)
    before = policy.value(policy(inputs, hidden)[0])
    for returns in (torch.randn(50) * 30 + 200, torch.randn(50) * 3 - 5):
        policy.rescale(returns)
        torch.testing.assert_close(policy.value(policy(inputs, hidden)[0]), before, atol=1e-3, rtol=1e-4)
    assert float(policy.value_mean) == pytest.approx(0.9 * 200 - 0.1 * 5, abs=12)


@pytest.mark.slow
def test_an_environment_of_gymnasium_itself_is_learned() -> None:
    env = gymnasium.make_vec("CartPole-v1", num_envs=32, vectorization_mode="vector_entry_point")
    before = play(
        env, Policy(env.single_observation_space, env.single_action_space), trials=100, greedy=False
    )
    ppo = PPO(discount=0.99, trace=0.95, lr=5e-3)
    policy = learn(env, ppo, updates=40, rollout=64, hidden=32, seed=0)
    after = play(env, policy, trials=100)
    assert float(after.mean()) > 5 * float(before.mean())
    env.close()


def test_tabular_episodes_of_a_trial_share_their_process() -> None:
    env = TabularMDPs(5, states=4, actions=2, horizon=3, episodes=2)
    _, infos = env.reset(seed=0)
    process, ends, overs = env.transitions.copy(), [], []
    for _ in range(6):
        seen, _, terminated, truncated, infos = env.step(np.zeros(5, int))
        ends.append(bool(terminated.all()))
        overs.append(bool(infos["trial_over"].all()))
        assert not truncated.any()
        assert (seen == 0).all() or not terminated.any()
    assert ends == [False, False, True] * 2
    assert overs == [False] * 5 + [True]
    assert not np.array_equal(process, env.transitions)


@pytest.mark.parametrize("name", ["lr", "clip", "entropy", "belief", "value_trace"])
def test_bad_numbers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name}"):
        PPO(**{name: -1.0})
    with pytest.raises(ValueError, match="expected updates >= 1"):
        learn(BernoulliBandits(2), updates=0)
