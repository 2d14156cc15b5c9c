"""GAN training under control: the loop, the environment, the controller and its place in a run."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face import tiny_gan, tiny_run

import pymgan
from pymgan.contract import Data, Rng, Schedule
from pymgan.rl2 import Controls, Update, learn, training
from pymgan.rl2.__main__ import main
from pymgan.rl2.comparison import Bench, best_schedule, table, to_json
from pymgan.rl2.controlled import ControlledLoop
from pymgan.rl2.controls import OBSERVATIONS, REFERENCE
from pymgan.rl2.environments import GANControl
from pymgan.rl2.environments.gan_control import DIVERGED
from pymgan.rl2.start import SharedStart
from pymgan.rl2.steering import SHAPES, FixedSchedule, PolicySteering, RandomSteering
from pymgan.rl2.studies import gan as study
from pymgan.tasks import get

CONTROLS = Controls(optimisers=("sgd", "adam"))
RECIPE = pymgan.RL2(steps=4, updates=3, tasks_per_update=4, hidden=4, controls=CONTROLS)
# Of a run, which tries a grid of schedules at its end: one ratio makes it a short one.
IN_RUN = replace(RECIPE, controls=replace(CONTROLS, ratios=((1, 1),)))


@pytest.fixture(scope="module")
def engine() -> pymgan.Engine:
    return pymgan.compile(tiny_gan(), fakes=4, reals=4, **RECIPE.inner_loop(), engine="cpu", threads=1)


@pytest.fixture(scope="module")
def phi() -> torch.Tensor:
    return tiny_gan().parameters_vector()


def batch(count: int = 6, seed: int = 0, split: str = "train") -> Any:
    return get("rings").split(split).sample(count, 4, 16, np.random.default_rng(seed))


def loop_of(engine: pymgan.Engine, phi: torch.Tensor, tasks: Any, **options: Any) -> ControlledLoop:
    controls = options.pop("controls", CONTROLS)
    return ControlledLoop(engine, controls, phi, tasks.support, tasks.ids, steps=8, **options)


def control(engine: pymgan.Engine, phi: torch.Tensor, count: int = 8, **options: Any) -> GANControl:
    options = {"controls": CONTROLS, "steps": 8, "shots": 4, "queries": 16, "samples": 8} | options
    return GANControl(engine, get("rings").split("train"), phi, count, **options)


def test_what_is_asked_for_is_what_the_engine_does(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    """Eight steps, two at a time, with rates, kinds and ratios of every task's own, against one call of eight, to the bit."""
    tasks, random = batch(), torch.Generator().manual_seed(0)
    loop, turns, traces = loop_of(engine, phi, tasks), [], []
    for _ in range(4):
        change = 2 * torch.rand((6, 2), generator=random, dtype=torch.float64) - 1
        loop.offset = CONTROLS.moved(loop.offset, change)
        kind = torch.randint(2, (6,), generator=random)
        ratio = torch.randint(3, (6,), generator=random)
        turns.append(CONTROLS.turn(loop.offset, kind, ratio, loop.done))
        loop.run(turns[-1])
        traces.append(loop.trace)
    rate, kind, active = (torch.cat([getattr(t, n) for t in turns], 1) for n in ("rate", "kind", "active"))
    whole = engine.adapt(
        phi.expand(6, -1).contiguous(),
        Data(real=tasks.support[:, None].expand(-1, 8, -1, -1)),
        Schedule(rate=rate, kind=kind, active=active),
        Rng(seed=0, tasks=tasks.ids),
    )
    assert torch.equal(loop.phi, whole.phi)
    assert loop.valid.all()
    assert loop.done.tolist() == [8] * 6
    for name in ("loss_g", "loss_d"):
        rows = torch.cat([getattr(trace, name) for trace in traces], 1)
        torch.testing.assert_close(rows, getattr(whole.trace, name))


def test_turns_say_rates_kinds_and_who_moves() -> None:
    offset = torch.tensor([[0.0, math.log(2.0)]] * 3, dtype=torch.float64)
    turn = Controls(optimisers=("sgd", "adam"), every=4).turn(
        offset, torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), torch.tensor([0, 4, 8])
    )
    assert turn.rate[0, 0].tolist() == pytest.approx([REFERENCE["sgd"], 2 * REFERENCE["sgd"]])
    assert turn.rate[2, 3].tolist() == pytest.approx([REFERENCE["adam"], 2 * REFERENCE["adam"]])
    assert turn.kind.tolist() == [[0] * 4, [1] * 4, [1] * 4]
    assert turn.active.all(2)[0].all()
    assert turn.active[1].tolist() == [[True, True], [False, True]] * 2, "1:2 is one update of G for two of D"
    assert turn.active[2].tolist() == [[True, True], [True, False]] * 2
    moved = CONTROLS.moved(torch.tensor([[0.0, 3.3]]), torch.tensor([[-9.0, 1.0]]))
    assert moved.tolist()[0] == pytest.approx([-CONTROLS.change, CONTROLS.span])


@pytest.mark.parametrize("shape", SHAPES)
def test_schedules_follow_their_curves(engine: pymgan.Engine, phi: torch.Tensor, shape: str) -> None:
    loop = loop_of(engine, phi, batch(2), offset=torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    rates = []
    for _ in range(4):
        turn = FixedSchedule(0, 0, (0.0, math.log(3.0)), shape).turn(loop)
        rates.append(turn.rate)
        loop.run(turn)
    part = torch.arange(8).double() / 8
    curve = {
        "constant": torch.ones_like(part),
        "cosine": (1 + (math.pi * part).cos()) / 2,
        "linear": 1 - part,
    }[shape]
    expected = REFERENCE["sgd"] * curve[:, None] * torch.tensor([1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(torch.cat(rates, 1), expected.expand(2, -1, -1), rtol=1e-6, atol=0)
    relative = FixedSchedule(0, 0, (0.0, 0.0), relative=True).turn(loop).rate[:, 0]
    torch.testing.assert_close(relative, REFERENCE["sgd"] * loop.offset.exp())


def test_a_controller_sees_nothing_but_the_support(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    """Two environments with the same tasks but other validation samples: same observations and shown rewards, other rewards."""
    envs = [control(engine, phi, scale=1.0) for _ in range(2)]
    for env in envs:
        env.reset(seed=3)
    envs[1]._query = envs[1]._query.flip(0) + 0.3
    envs[1]._distance = envs[1]._first = envs[1]._loop.distance(envs[1]._query)
    envs[0].action_space.seed(0)
    for _ in range(3):
        action: Any = envs[0].action_space.sample()
        (seen, rewards, *_, infos), (other, others, *_, other_infos) = (env.step(action) for env in envs)
        assert np.array_equal(seen, other)
        assert np.array_equal(infos["seen_reward"], other_infos["seen_reward"])
        assert not np.array_equal(rewards, others)
    assert seen.shape == (8, len(OBSERVATIONS))
    assert np.ptp(seen, 0)[:9].all(), "losses, scores and norms differ between tasks"


def test_rewards_add_up_to_the_area(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    for objective in ("area", "final"):
        env = control(engine, phi, scale=0.5, objective=objective)
        env.reset(seed=1)
        first = env._first.numpy()
        env.action_space.seed(2)
        total, distances, went_well = np.zeros(8), [], np.ones(8, bool)
        for _ in range(4):
            action: Any = env.action_space.sample()
            action["change"] *= 0.2
            _, rewards, ended, _, infos = env.step(action)
            total += rewards
            distances.append(infos["distance"])
            went_well &= ~infos["diverged"]
        assert went_well.sum() >= 4
        assert ended[went_well].all()
        expected = np.mean(distances, 0) if objective == "area" else distances[-1]
        np.testing.assert_allclose(total[went_well], ((first - expected) / 0.5)[went_well], rtol=1e-9)


def test_divergence_ends_an_episode_and_costs(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    env = control(engine, phi, controls=replace(CONTROLS, span=60.0, change=60.0))
    env.reset(seed=0)
    before = env._loop.ids.clone()
    action = {"change": np.zeros((8, 2)), "optimiser": np.zeros(8, int), "ratio": np.zeros(8, int)}
    action["change"][[1, 4]] = 1.0
    _, rewards, ended, _, infos = env.step(action)
    assert infos["diverged"].tolist() == [False, True, False, False, True, False, False, False]
    assert ended.tolist() == infos["diverged"].tolist()
    assert rewards[ended].tolist() == [-1.0, -1.0]
    fresh = env._loop.ids != before
    assert fresh.tolist() == ended.tolist(), "new tasks are there, the others go on"
    assert env._loop.done.tolist() == [0 if each else 2 for each in ended]
    assert env._loop.valid.all()
    seen, *_ = env.step({**action, "change": np.zeros((8, 2))})
    assert np.isfinite(seen).all()


def test_copies_begin_on_the_same_task(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    """With the same start, noise and rates: what follows differs by what is done alone."""
    controls = replace(CONTROLS, span=60.0, change=60.0)

    def start(count: int, random: np.random.Generator) -> torch.Tensor:
        return phi + torch.from_numpy(random.normal(0, 0.1, (count, len(phi)))).float()

    env = GANControl(
        engine,
        get("rings").split("train"),
        start,
        8,
        copies=4,
        controls=controls,
        steps=4,
        shots=4,
        spread=1.0,
    )
    seen, infos = env.reset(seed=0)
    for _ in range(2):  # when all have ended together, all begin together
        task = infos["task"]
        assert len(set(task)) == 2
        assert (task == task[::4].repeat(4)).all()
        for row in range(8):
            assert np.array_equal(seen[row], seen[row // 4 * 4])
        assert not np.array_equal(seen[0], seen[4])
        action = {"change": np.zeros((8, 2)), "optimiser": np.zeros(8, int), "ratio": np.zeros(8, int)}
        action["change"][[1, 6]] = -0.01, 0.0
        seen, rewards, _, _, infos = env.step(action)
        assert np.array_equal(seen[0], seen[2])
        assert rewards[0] == rewards[2] != rewards[1]
        assert rewards[4] == rewards[5] != rewards[6]
        assert np.array_equal(infos["task"], task)
        action["change"] *= 0
        seen, *_, infos = env.step(action)
        assert len(set(infos["task"]) | set(task)) == 4
    action["change"][3] = 1.0  # diverges
    task = infos["task"]
    _, _, ended, _, infos = env.step(action)
    assert ended.nonzero()[0].tolist() == [3]
    assert (infos["task"] != task).nonzero()[0].tolist() == [3]
    assert infos["task"][3] not in task
    with pytest.raises(ValueError, match="expected num_envs as a multiple of copies = 3, got 8"):
        control(engine, phi, copies=3)
    with pytest.raises(ValueError, match="expected tasks_per_update as a multiple of copies = 4, got 6"):
        pymgan.RL2(tasks_per_update=6)


def test_a_replaced_task_is_as_good_as_new(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    first, later = batch(6, seed=0), batch(2, seed=9)
    loop, alone = loop_of(engine, phi, first), loop_of(engine, phi, later)
    still = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    loop.act(torch.ones(6, 2), still[1], still[0])
    rows = torch.tensor([False, True, False, False, False, True])
    loop.replace(rows, phi, later.support, later.ids, torch.zeros(2, 2, dtype=torch.float64))
    for _ in range(2):
        loop.act(torch.full((6, 2), 0.3), still[1], still[0])
        alone.act(torch.full((2, 2), 0.3), still[1][:2], still[0][:2])
    assert torch.equal(loop.phi[rows], alone.phi)
    assert torch.equal(loop.observation()[rows], alone.observation())


def test_the_environment_keeps_gymnasiums_rules(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    def trial(seed: int) -> list[Any]:
        env = control(engine, phi, spread=2.0)
        seen, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        rows = [seen]
        for _ in range(6):
            assert env.observation_space.contains(seen)
            seen, *rest, _ = env.step(env.action_space.sample())
            rows += [seen, *rest]
        return rows

    first, second, other = trial(5), trial(5), trial(6)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_a_policy_steers_a_loop_as_it_plays_the_environment(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    """Greedy play in the environment and `PolicySteering` on the same tasks end at the same parameters."""
    env = control(engine, phi, samples=32)
    policy = learn(env, updates=2, hidden=8, seed=1)
    torch.nn.init.normal_(policy.actor.weight)
    from pymgan.rl2 import Player

    player = Player(env, policy, seed=7)
    player.begin(7)
    tasks = env._loop
    bench_loop = ControlledLoop(
        engine, CONTROLS, phi, tasks.support.clone(), tasks.ids.clone(), steps=8, samples=32
    )
    player.play(3, greedy=True)
    steering = PolicySteering(policy)
    steering.begin(bench_loop)
    for _ in range(3):
        bench_loop.run(steering.turn(bench_loop))
    same = env._loop.ids == bench_loop.ids  # those that did not diverge
    assert same.any()
    assert torch.equal(env._loop.phi[same], bench_loop.phi[same])


def test_a_blind_controller_sees_the_time_alone(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    env = control(engine, phi, controls=replace(CONTROLS, observe=study.BLIND))
    env.reset(seed=0)
    env.action_space.seed(0)
    seen, _, _, _, infos = env.step(env.action_space.sample())
    assert (seen == seen[0]).all()
    assert not infos["seen_reward"].any()


def test_the_grid_finds_the_best_of_what_it_tries(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    tasks, tried = batch(8, split="validation"), {}
    bench = Bench(engine, IN_RUN.controls, 4, phi, tasks, torch.zeros(8, 2, dtype=torch.float64))

    def judge(schedule: FixedSchedule) -> float:
        assert schedule not in tried
        tried[schedule] = float(bench.follow(schedule).area.mean())
        return tried[schedule]

    winner, area, count = best_schedule(bench.controls, judge)
    assert count == len(tried) >= 2 * 25
    assert area == min(tried.values()) == tried[winner]
    assert float(bench.follow(winner).area.mean()) == area
    rates = {s.offset for s in tried if (s.kind, s.ratio) == (winner.kind, winner.ratio)}
    for p in range(2):
        inside = min(r[p] for r in rates) < winner.offset[p] < max(r[p] for r in rates)
        assert inside or abs(winner.offset[p]) >= 6 * 1.15, "a winner at the edge widens the grid"


def test_outcomes_tell_failures_from_success(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    tasks = batch(8, split="validation")
    bench = Bench(engine, CONTROLS, 8, phi, tasks, torch.zeros(8, 2, dtype=torch.float64))
    still = bench.follow(FixedSchedule(0, 0, (-40.0, -40.0)))
    assert not still.failed.any()
    torch.testing.assert_close(still.curve[-1], still.curve[0])
    wild = bench.follow(FixedSchedule(0, 0, (60.0, 60.0)))
    assert wild.failed.all()
    assert (wild.curve[-1] >= wild.curve[0]).all()
    assert torch.isfinite(wild.curve).all()
    far = bench.follow(FixedSchedule(1, 0, (12.0, 12.0)))
    assert far.failed.all()
    torch.testing.assert_close(far.curve[-1], DIVERGED * far.curve[0])
    again = bench.follow(RandomSteering(3))
    assert torch.equal(again.curve, bench.follow(RandomSteering(3)).curve)
    assert "still" in table(to_json({"still": still, "wild": wild}, "still"), "still")


@pytest.mark.parametrize("belief", [0.0, 0.3])
def test_a_controller_is_saved_loaded_and_used_elsewhere(tmp_path: Path, belief: float) -> None:
    game, recipe = tiny_gan(), replace(RECIPE, ppo=replace(RECIPE.ppo, belief=belief))
    engine = pymgan.compile(game, fakes=4, reals=4, **RECIPE.inner_loop(), engine="cpu", threads=1)
    said: list[Update] = []
    start = game.parameters_vector()
    learned = recipe.learn(engine, get("rings").split("train"), start, shots=4, callback=said.append)
    assert [update.number for update in said] == [0, 1, 2]
    assert (said[-1].metrics["surprise"] != 0) == (belief > 0)
    learned.save(tmp_path / "controller")
    loaded = pymgan.Controller.load(tmp_path / "controller")
    assert loaded.recipe == recipe
    tasks = batch(3, split="test")
    first, second = (c.adapt(engine, start, tasks.support, tasks.ids) for c in (learned, loaded))
    assert torch.equal(first.phi, second.phi)
    other = pymgan.arch.mlp((1, 4, 4), latent=3, widths=(6,))
    elsewhere = pymgan.compile(other, fakes=5, reals=5, **loaded.recipe.inner_loop(), engine="cpu")
    images = torch.rand(2, 5, 1, 4, 4) * 2 - 1
    there = loaded.adapt(elsewhere, other.parameters_vector(), images, torch.arange(2), steps=6)
    assert there.valid.all()
    with pytest.raises(FileNotFoundError, match="expected a controller"):
        pymgan.Controller.load(tmp_path / "nothing")
    game_file = tmp_path / "few"
    pymgan.FewShot(game).save(game_file)
    with pytest.raises(pymgan.CheckpointError, match="expected a 'controller'"):
        pymgan.Controller.load(game_file)


def test_a_run_with_a_controller(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, controller=IN_RUN)
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names >= {"controller.safetensors", "controller.png", "summary.json"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "controller" in summary["test"]
    assert summary["controller"].keys() >= {"best constant", "random actions", "controller"}
    assert summary["settings"]["controller"]["steps"] == 4
    opened = pymgan.load(tmp_path)
    images = batch(1).support[0]
    few, again = run.adapt(images), opened.adapt(images)
    assert len(few.losses["generator"]) == 4
    assert few.losses == again.losses
    assert torch.equal(few.sample(3, seed=0), again.sample(3, seed=0))
    same = tiny_run(tmp_path, controller=IN_RUN)
    assert same.controller is not None
    with pytest.raises(pymgan.SettingsChanged, match="controller"):
        tiny_run(tmp_path, controller=replace(IN_RUN, updates=5))


@pytest.mark.parametrize("meta_steps", [0, 2])
def test_a_controllers_training_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta_steps: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    recipe = replace(IN_RUN, meta_steps=meta_steps)
    tiny_run(whole, controller=recipe)
    real, calls = training.Bar.advance, []

    def advance(bar: Any, text: str) -> None:
        real(bar, text)
        calls.append(text)
        if text.startswith("return") and sum(each.startswith("return") for each in calls) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training.Bar, "advance", advance)
    with pytest.raises(pymgan.Interrupted, match="update 2 of 3"):
        tiny_run(cut, controller=recipe)
    assert not (cut / "summary.json").exists()
    assert pymgan.load(cut).controller is None, "it has not learned to its end"
    tiny_run(cut, controller=recipe)
    opened = pymgan.load(cut)
    assert torch.equal(opened.start, opened.parameters) == (meta_steps == 0), "it has moved the start, or not"
    assert (cut / "controller.safetensors").read_bytes() == (whole / "controller.safetensors").read_bytes()


def test_a_start_is_learned_along_the_controllers_schedules(engine: pymgan.Engine, phi: torch.Tensor) -> None:
    """The step's gradient is the pull-back through what was done, and steps make adaptation under it better."""
    train = get("rings").split("train")
    options = {"steps": 8, "shots": 4, "queries": 16, "seed": 0}
    start = SharedStart(engine, train, phi, CONTROLS, lr=0.0, **options)
    batch = train.sample(16, 4, 16, np.random.default_rng([0, 103, 0]))
    turns = start._steer(RandomSteering(1), batch.support, batch.ids)
    rate, kind, active = (torch.cat([getattr(t, n) for t in turns], 1) for n in ("rate", "kind", "active"))
    assert kind.unique().numel() == 2, "both optimisers take part"
    adapted = engine.adapt(
        phi.expand(16, -1).contiguous(),
        Data(real=batch.support[:, None].expand(-1, 8, -1, -1)),
        Schedule(rate=rate, kind=kind, active=active),
        Rng(seed=0, tasks=batch.ids),
        keep=True,
    )
    z = engine.noise(Rng(seed=0, tasks=batch.ids), 16, 32, step=8, stream=1)
    value, cotangent = engine.distance("energy", engine.generate(adapted.phi, z), batch.query)
    v = engine.generate_vjp(adapted.phi, z, cotangent)
    pulled = engine.pullback(adapted.saved, v, weight=torch.full((16,), 1 / 16))
    got = start.step(RandomSteering(1), done=0.0)
    assert got == pytest.approx(float(value.mean()), rel=1e-5)
    norm = float(pulled.v0.norm())
    torch.testing.assert_close(start._phi.grad, pulled.v0 * min(1.0, 10 / norm), rtol=1e-3, atol=1e-6 * norm)

    moving = SharedStart(engine, train, phi, CONTROLS, lr=3e-2, **options)
    policy = learn(control(engine, phi), updates=2, hidden=8, seed=1)
    values = [moving.step(PolicySteering(policy), done=0.0) for _ in range(60)]
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:10])
    assert torch.equal(start.phi, phi), "with a rate of zero nothing moves"


def test_families_take_turns_to_teach_a_controller(
    engine: pymgan.Engine, phi: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [study.Setting(engine, get("rings"), start, RECIPE, shots=4) for start in (phi, 0.5 * phi)]
    played: list[torch.Tensor] = []
    reset = GANControl.reset

    def record(env: GANControl, **options: Any) -> Any:
        played.append(env._start)  # type: ignore[arg-type]
        return reset(env, **options)

    monkeypatch.setattr(GANControl, "reset", record)
    learned, cost = study.learn(RECIPE, settings)
    assert [torch.equal(each, phi) for each in played] == [True, False, True]
    assert 0 < cost["outside_engine"] < 1
    alone = RECIPE.learn(engine, get("rings").split("train"), phi, shots=4)
    again, _ = study.learn(RECIPE, settings[:1])
    assert torch.equal(again.policy.actor.weight, alone.policy.actor.weight)
    assert not torch.equal(learned.policy.actor.weight, alone.policy.actor.weight)


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_study_of_a_run(tmp_path: Path, elsewhere: bool) -> None:
    tiny_run(tmp_path / "run")
    small = [
        "--updates",
        "2",
        "--tasks-per-update",
        "4",
        "--steps",
        "2",
        "--test-tasks",
        "6",
        "--no-progress",
    ]
    command = [sys.executable, "-m", "pymgan.rl2", "gan", "--run", str(tmp_path / "run"), *small, "--json"]
    if elsewhere:
        command += ["--sources", str(tmp_path / "run"), str(tmp_path / "run"), "--spread", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    rivals = {
        "best constant",
        "best cosine",
        "best linear",
        "TTUR, Adam",
        "random actions",
        "step counter only",
    }
    if elsewhere:
        names = ("best constant", "best cosine", "TTUR, Adam")
        rivals |= {f"{name} of the sources" for name in names}
    assert result["outcomes"].keys() == {*rivals, "controller"}
    assert len(result["training"]) == 2
    assert 0 < result["training"][0]["outside_engine"] < 1
    assert {each.name for each in (tmp_path / "out").iterdir()} == {
        "controller.safetensors",
        "controller.png",
    }
    learned = pymgan.Controller.load(tmp_path / "out" / "controller.safetensors")
    assert learned.recipe.steps == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pymgan.RL2(steps=5), "expected steps as a multiple of every = 2, got 5"),
        (lambda: Controls(optimisers=("lion",)), "expected optimisers among sgd"),
        (lambda: Controls(ratios=((2, 3),)), "expected ratios as pairs of which one divides the other"),
        (lambda: Controls(observe=("future",)), "expected observe among .*, got 'future'"),
        (lambda: tiny_run(controller="rl3"), "expected controller=None, 'rl2'"),
    ],
)
def test_bad_input_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_engine_without_the_optimisers_is_refused(phi: torch.Tensor) -> None:
    plain = pymgan.compile(tiny_gan(), fakes=4, reals=4, engine="cpu")
    with pytest.raises(ValueError, match="expected an engine compiled with optimisers="):
        loop_of(plain, phi, batch())


def test_a_controller_and_sources_to_learn_one_from_are_too_much(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gan", "--run", "a", "--controller", "b", "--sources", "c"]) == 2
    assert "expected --controller or --sources, got both" in capsys.readouterr().err
