"""Unrolled GANs: G's gradient through D's steps is the derivative of what it descends, and training is a function of its inputs.

Finite differences use losses alone, and autograd goes through steps that are written out here: neither shares a derivative with
an engine.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import pymgan
from pymgan import cli
from pymgan.contract import Data, Engine, Rng
from pymgan.unrolled import Unrolled, unrolled_gradient
from pymgan.unrolled_ring import DEVIATION, RADIUS, Study, centres, ring, ring_gan

F64 = torch.float64
TASKS, SHOTS, FAKES, LATENT = 3, 4, 5, 3
ENGINES = ("cpu", "torch", "reference")
OPTIMISERS = {"sgd": 0.3, "adam": 0.05}  # and rates at which D moves far enough to matter
STEP = 1e-5
TOLERANCE = 2e-8  # of the gradient: rounding 1e-11, truncation of central differences through Adam 2e-9
BETAS, EPS = (0.5, 0.99), 1e-8


def gan(loss: str = "nonsaturating") -> pymgan.GAN:
    """Smooth, so that no kink is between the two sides of a difference."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return pymgan.GAN(
            nn.Sequential(nn.Linear(LATENT, 6), nn.Tanh(), nn.Linear(6, 2)),
            nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)),
            latent=(LATENT,),
            loss=loss,
        )


def compiled(engine: str, optimiser: str, dtype: torch.dtype = F64, loss: str = "nonsaturating") -> Engine:
    return pymgan.compile(
        gan(loss),
        fakes=FAKES,
        reals=SHOTS,
        optimisers=(optimiser,),
        betas=BETAS,
        eps=EPS,
        dtype=dtype,
        engine=engine,
        threads=1,
    )


@dataclass(frozen=True)
class Inputs:
    """T GANs and what they see; `inner` for up to 4 unrolled steps."""

    phi: Tensor
    real: Tensor
    noise: Tensor
    inner: Data

    def first(self, steps: int) -> Data:
        assert self.inner.noise is not None
        return Data(self.inner.real[:, :steps], noise=self.inner.noise[:, :steps])


def inputs() -> Inputs:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=generator)

    start = gan().parameters_vector().double()
    return Inputs(
        start + 0.3 * normal(TASKS, len(start)),
        normal(TASKS, SHOTS, 2) + 0.5,
        normal(TASKS, FAKES, LATENT),
        Data(normal(TASKS, 4, SHOTS, 2) + 0.5, noise=normal(TASKS, 4, FAKES, LATENT)),
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("objective", ["game", "saddle"])
@pytest.mark.parametrize(("steps", "fresh"), [(0, False), (1, False), (3, False), (3, True)])
def test_finite_differences(engine: str, optimiser: str, objective: str, steps: int, fresh: bool) -> None:
    built, x = compiled(engine, optimiser), inputs()
    split = built.generator_parameters

    def at(phi: Tensor) -> pymgan.UnrolledGradient:
        return unrolled_gradient(
            built,
            phi,
            x.real,
            x.noise,
            steps=steps,
            rate=OPTIMISERS[optimiser],
            objective=objective,
            inner=x.first(steps) if fresh else None,
        )

    result = at(x.phi)
    assert bool(result.valid.all())
    assert bool((result.generator.norm(dim=1) > 1e-3).all())
    direction = torch.zeros_like(x.phi)
    direction[:, :split] = torch.randn(
        TASKS, split, dtype=F64, generator=torch.Generator().manual_seed(steps)
    )
    direction /= direction.norm(dim=1, keepdim=True)
    sides = [at(x.phi + sign * STEP * direction).loss_g for sign in (1, -1)]
    error = (sides[0] - sides[1]) / (2 * STEP) - (result.generator * direction[:, :split]).sum(1)
    assert bool((error.abs() <= TOLERANCE * result.generator.norm(dim=1)).all()), error


def by_autograd(
    game: pymgan.GAN,
    phi: Tensor,
    x: Inputs,
    task: int,
    steps: int,
    optimiser: str,
    objective: str,
    fresh: bool,
) -> tuple[Tensor, Tensor]:
    """(G's unrolled gradient, D's ordinary one) of one task: D's steps are torch operations, and autograd goes through them."""
    split = sum(p.numel() for p in game.generator.parameters())
    theta_g, theta_d = (half.clone().requires_grad_() for half in phi[task].tensor_split([split]))

    def network(module: nn.Sequential, theta: Tensor, x: Tensor) -> Tensor:
        parts = theta.split([p.numel() for p in module.parameters()])
        named = {
            name: part.view_as(p) for (name, p), part in zip(module.named_parameters(), parts, strict=True)
        }
        result: Tensor = functional_call(module, named, (x,))
        return result

    def losses(theta_d: Tensor, real: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        fake = network(game.discriminator, theta_d, network(game.generator, theta_g, z))
        on_real = network(game.discriminator, theta_d, real)
        return F.softplus(-fake).mean(), F.softplus(fake).mean() + F.softplus(-on_real).mean()

    ordinary = torch.autograd.grad(losses(theta_d, x.real[task], x.noise[task])[1], theta_d)[0]
    moved, mean, square, rate = theta_d, 0.0, 0.0, OPTIMISERS[optimiser]
    for k in range(steps):
        batch = x.real[task], x.noise[task]
        if fresh:
            assert x.inner.noise is not None
            batch = x.inner.real[task, k], x.inner.noise[task, k]
        gradient = torch.autograd.grad(losses(moved, *batch)[1], moved, create_graph=True)[0]
        if optimiser == "adam":
            mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
            square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
            gradient = (mean / (1 - BETAS[0] ** (k + 1))) / (square / (1 - BETAS[1] ** (k + 1)) + EPS).sqrt()
        moved = moved - rate * gradient
    loss_g, loss_d = losses(moved, x.real[task], x.noise[task])
    return torch.autograd.grad(loss_g if objective == "game" else -loss_d, theta_g)[0], ordinary


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("objective", ["game", "saddle"])
@pytest.mark.parametrize(("steps", "fresh"), [(0, False), (1, False), (3, False), (3, True)])
def test_autograd_through_steps_written_by_hand(
    engine: str, optimiser: str, objective: str, steps: int, fresh: bool
) -> None:
    built, x = compiled(engine, optimiser), inputs()
    game = pymgan.GAN(gan().generator.double(), gan().discriminator.double(), latent=(LATENT,))
    result = unrolled_gradient(
        built,
        x.phi,
        x.real,
        x.noise,
        steps=steps,
        rate=OPTIMISERS[optimiser],
        objective=objective,
        inner=x.first(steps) if fresh else None,
    )
    for task in range(TASKS):
        expected = by_autograd(game, x.phi, x, task, steps, optimiser, objective, fresh)
        for got, wanted in zip((result.generator[task], result.discriminator[task]), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12 * float(wanted.norm()))


@pytest.mark.parametrize("engine", ENGINES)
def test_no_steps_is_the_ordinary_gradient(engine: str) -> None:
    built, x = compiled(engine, "sgd"), inputs()
    split = built.generator_parameters
    rng = Rng(seed=0, tasks=torch.arange(TASKS))
    ordinary = built.gradients(x.phi, Data(x.real, noise=x.noise), rng)
    result = unrolled_gradient(built, x.phi, x.real, x.noise, steps=0)
    assert torch.equal(torch.cat((result.generator, result.discriminator), 1), ordinary.gradient)
    assert torch.equal(result.loss_g, ordinary.loss_g)
    assert torch.equal(result.loss_d, ordinary.loss_d)
    still = unrolled_gradient(built, x.phi, x.real, x.noise, steps=3, rate=0.0)
    torch.testing.assert_close(still.generator, result.generator, rtol=1e-12, atol=1e-14)
    both = built.gradients(x.phi, Data(x.real, noise=x.noise), rng, full=True)
    saddle = unrolled_gradient(built, x.phi, x.real, x.noise, steps=0, objective="saddle")
    torch.testing.assert_close(saddle.generator, -both.gradient[1, :, :split])
    # What flows through D is no rounding: a gradient at phi_K that leaves it out is another one.
    ahead = unrolled_gradient(built, x.phi, x.real, x.noise, steps=4, rate=0.3)
    assert bool(
        ((ahead.generator - result.generator).norm(dim=1) > 0.01 * result.generator.norm(dim=1)).all()
    )


def test_through_steps_is_more_than_the_gradient_at_their_end() -> None:
    built, x = compiled("cpu", "sgd"), inputs()
    rng, inner = Rng(seed=0, tasks=torch.arange(TASKS)), x.first(4)
    schedule = pymgan.Schedule(rate=torch.tensor([0.0, 0.3]), active=torch.tensor([False, True]))
    ahead = built.adapt(x.phi, inner, schedule, rng).phi
    direct = built.gradients(ahead, Data(x.real, noise=x.noise), rng).gradient[
        :, : built.generator_parameters
    ]
    total = unrolled_gradient(built, x.phi, x.real, x.noise, steps=4, rate=0.3, inner=inner).generator
    assert bool(((total - direct).norm(dim=1) > 0.05 * direct.norm(dim=1)).all())


def trained(count: int = 6, *, tasks: int = TASKS, rows: slice = slice(None), **options: object) -> Unrolled:
    x = inputs()
    arguments = {"steps": 3, "batch": SHOTS, "rates": (0.01, 0.02), "inner": "adam", "dtype": torch.float32}
    trainer = Unrolled(gan(), tasks=tasks, phi=x.phi[rows].float(), **{**arguments, **options})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(3)
    for _ in range(count):
        real = torch.randn(TASKS, SHOTS, 2, generator=generator)
        noise = torch.randn(TASKS, SHOTS, LATENT, generator=generator)
        assert bool(
            trainer.step(
                real[rows].to(trainer.engine.dtype), noise[rows].to(trainer.engine.dtype)
            ).valid.all()
        )
    return trainer


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_training_is_the_same_bit_for_bit(inner: str, steps: int) -> None:
    first = trained(inner=inner, steps=steps).parameters
    assert torch.equal(first, trained(inner=inner, steps=steps).parameters)
    assert torch.equal(first, trained(inner=inner, steps=steps, threads=3).parameters)
    alone = trained(inner=inner, steps=steps, tasks=1, rows=slice(1, 2)).parameters
    assert torch.equal(first[1], alone[0])  # the others are not there for it
    assert not torch.equal(first, trained(0).parameters)


@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_engines_train_alike(engine: str) -> None:
    expected = trained(engine="cpu", dtype=F64).parameters
    torch.testing.assert_close(trained(engine=engine, dtype=F64).parameters, expected, rtol=0, atol=1e-9)


def test_generator_sees_the_step_that_the_discriminator_takes() -> None:
    """With Adam inside, from D's own moments: L_D after one unrolled step is L_D at D's next parameters."""
    trainer = trained(steps=1, dtype=F64, objective="saddle", rates=(0.0, 0.02))
    x = inputs()
    real, noise = x.real, x.noise[:, :SHOTS]
    foreseen = -trainer.step(real, noise).loss_g
    torch.testing.assert_close(trainer.gradient(real, noise).loss_d, foreseen, rtol=1e-6, atol=0)


def test_a_failure_stays_with_its_gan() -> None:
    x = inputs()
    broken = x.phi.float()
    broken[1] = math.inf
    trainer = Unrolled(gan(), tasks=TASKS, phi=broken, steps=2, batch=SHOTS)
    sound = Unrolled(gan(), tasks=TASKS, phi=x.phi.float(), steps=2, batch=SHOTS)
    for _ in range(3):
        result = trainer.step(x.real.float(), x.noise[:, :SHOTS].float())
        sound.step(x.real.float(), x.noise[:, :SHOTS].float())
        assert result.valid.tolist() == [True, False, True]
    assert torch.equal(trainer.parameters[[0, 2]], sound.parameters[[0, 2]])
    assert bool(trainer.parameters[1].isinf().all())


def test_starts_from_the_modules_and_samples() -> None:
    game = gan()
    trainer = Unrolled(game, tasks=2, batch=SHOTS)
    assert torch.equal(trainer.parameters, game.parameters_vector().expand(2, -1))
    z = torch.randn(2, 7, LATENT, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(trainer.sample(z), game.generator(z).detach())


def test_bad_input() -> None:
    built, x = compiled("cpu", "sgd"), inputs()
    good = {"steps": 2}
    for changes, message in (
        ({"steps": -1}, "expected a whole number from 0, got -1"),
        ({"steps": True}, "expected a whole number from 0"),
        ({"rate": math.nan}, "expected a finite number from 0, got nan"),
        ({"objective": "minimax"}, "expected one of game, saddle, got 'minimax'"),
        ({"inner": Data(x.inner.real)}, r"expected z \[3, 2, 5, \.\.\.\], got None"),
        ({"inner": x.first(3)}, "expected 2 steps, as many as `steps`, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            unrolled_gradient(built, x.phi, x.real, x.noise, **{**good, **changes})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"real: expected \[T, 4, 2\], got \[3, 3, 2\]"):
        unrolled_gradient(built, x.phi, x.real[:, 1:], x.noise, steps=2)
    with pytest.raises(ValueError, match=r"noise: expected \[3, 5, 3\], got \[3, 4, 3\]"):
        unrolled_gradient(built, x.phi, x.real, x.noise[:, 1:], steps=2)
    with pytest.raises(TypeError, match=r"expected torch.float64, got torch.float32"):
        unrolled_gradient(built, x.phi.float(), x.real, x.noise, steps=2)
    for changes, message in (
        ({"tasks": 0}, "tasks: expected a whole number from 1, got 0"),
        ({"batch": 2.0}, "batch: expected a whole number from 1, got 2.0"),
        ({"rates": 0.1}, "rates: expected two numbers, of G and D, got 0.1"),
        ({"rates": (0.1, -0.1)}, "rates: expected a finite number from 0, got -0.1"),
        ({"inner_rate": math.inf}, "inner_rate: expected a finite number from 0, got inf"),
        ({"inner": "momentum"}, "inner: expected one of adam, sgd, got 'momentum'"),
        ({"objective": ""}, "objective: expected one of game, saddle, got ''"),
        ({"phi": x.phi[1:]}, r"phi: expected \[3, \d+\], got \[2, \d+\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Unrolled(gan(), **{"tasks": TASKS, **changes})  # type: ignore[arg-type]


def test_ring() -> None:
    points = ring(4000, torch.Generator().manual_seed(0))
    distance, nearest = torch.cdist(points, centres()).min(1)
    assert bool((torch.bincount(nearest, minlength=8) > 400).all())
    assert 0.9 < float(distance.square().mean() / (2 * DEVIATION**2)) < 1.1
    torch.testing.assert_close(centres().norm(dim=1), torch.full((8,), RADIUS))
    assert torch.equal(ring_gan(3).parameters_vector(), ring_gan(3).parameters_vector())
    assert not torch.equal(ring_gan(3).parameters_vector(), ring_gan(4).parameters_vector())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sub" / "ring.json"
    command = [
        "unrolled",
        "--unrolled",
        "0",
        "2",
        "--steps",
        "4",
        "--batch",
        "4",
        "--seeds",
        "2",
        "--no-progress",
    ]
    reports = []
    for _ in range(2):
        assert cli.main([*command, "--json", str(file)]) == 0
        reports.append(json.loads(file.read_text()))
        for outcome in reports[-1]["outcomes"]:
            assert outcome.pop("seconds") > 0
    assert reports[0] == reports[1]
    assert reports[0]["settings"]["seeds"] == [0, 1]
    assert [len(outcome["history"]) for outcome in reports[0]["outcomes"]] == [4, 4]
    rows = capsys.readouterr().out.splitlines()
    assert rows[2].startswith("| 0 | ")
    assert rows[3].startswith("| 2 | ")
    for bad, message in (
        (["--steps", "2"], "steps >= 4"),
        (["--seeds", "0"], "seeds"),
        (["--batch", "0"], "batch"),
        (["--unrolled", "-1"], "steps: expected a whole number from 0, got -1"),
    ):
        assert cli.main([*command, *bad]) == 2
        assert message in capsys.readouterr().err


def test_defaults_of_the_command_are_those_of_the_study() -> None:
    options = cli._parser().parse_args(["unrolled"])
    default = Study()
    assert tuple(range(options.seeds)) == default.seeds
    for name in ("unrolled", "steps", "batch", "objective", "inner", "threads"):
        assert getattr(options, name) == getattr(default, name), name
