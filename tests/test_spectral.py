"""Spectral norms beside the battery: derivatives with u and v held, torch's own module, what is refused, files."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import orthogonal, spectral_norm

import pymgan
from pymgan.arch_config import gan_from_config, gan_to_config
from pymgan.contract import Data, Rng, Schedule
from pymgan.gan import GAN
from pymgan.plan import compile_plan
from pymgan.reference import ReferenceEngine
from pymgan.reference_spectral import Vectors
from tests.spectral import games

F64 = torch.float64
TASKS, STEPS = 2, 3
GAMES = {name: (gan, loop) for name, gan, loop in games()}
LOOP = ("play", "optimisers", "fakes", "reals")


class Held(ReferenceEngine):
    """With u and v of the first run in all later ones."""

    held: list[Vectors]
    recording = True

    def _iterate(self, step: int, phi: Tensor, u: Tensor) -> Vectors:
        if not self.recording:
            return self.held[step]
        vectors = super()._iterate(step, phi, u)
        self.held = [*getattr(self, "held", []), vectors]
        return vectors


@pytest.mark.parametrize("name", GAMES)
def test_finite_differences_with_u_and_v_held(name: str) -> None:
    gan, loop = GAMES[name]
    engine = Held(gan, **{key: loop[key] for key in LOOP if key in loop}, eps=1e-2)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=F64, generator=generator)

    phi = gan.parameters_vector().double() + 0.1 * normal(TASKS, engine.parameters)
    data = Data(
        normal(TASKS, STEPS, engine.reals, *engine.sample), None, normal(TASKS, STEPS, engine.fakes, 3)
    )
    schedule = Schedule(torch.full((2,), 0.1), kind=torch.arange(STEPS) % len(engine.optimisers))
    rng = Rng(5, torch.arange(TASKS))
    v, direction = normal(TASKS, engine.parameters), normal(TASKS, engine.parameters)
    direction /= direction.norm()

    def objective(phi: Tensor) -> Tensor:
        return (engine.adapt(phi, data, schedule, rng, state=state).phi * v).sum()

    state = engine.initial_state(TASKS, phi)
    engine.held = []
    objective(phi)
    engine.recording = False
    pulled = engine.pullback(engine.adapt(phi, data, schedule, rng, state=state, keep=True).saved, v).v0
    step = 1e-5
    difference = (objective(phi + step * direction) - objective(phi - step * direction)) / (2 * step)
    assert float((pulled * direction).sum() - difference) == pytest.approx(0, abs=2e-8 * float(v.norm()))

    # What is held matters: with u and v free to move the difference is another one.
    engine.recording = True
    free = (objective(phi + step * direction) - objective(phi - step * direction)) / (2 * step)
    assert abs(float(free - difference)) > 1e-6


@pytest.mark.parametrize("engine", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("name", ["plain", "images"])
def test_scores_are_those_of_torchs_own_module(name: str, engine: str) -> None:
    """W / sigma with the same u and v, through Wasserstein's L_D = mean of fakes - mean of reals."""
    gan, _ = GAMES[name]
    gan = GAN(gan.generator, gan.discriminator, gan.latent, loss="wasserstein")
    built = pymgan.compile(gan, engine=engine, fakes=4, reals=4, dtype=F64)
    state = built.initial_state(1)
    data = Data(torch.randn(1, 4, *built.sample, dtype=F64), None, torch.randn(1, 4, 3, dtype=F64))
    phi = gan.parameters_vector().double()
    result = built.gradients(phi[None], data, Rng(0, torch.zeros(1, dtype=torch.int64)), state=state)

    module, u, at = copy.deepcopy(gan.discriminator).double(), state.spectral[0], 0
    for layer in module.modules():
        if parametrize.is_parametrized(layer):
            norm: Any = layer.parametrizations["weight"][0]
            matrix = norm._reshape_weight_to_matrix(layer.parametrizations["weight"].original).detach()
            own = u[at : at + len(matrix)]
            at += len(matrix)
            for _ in range(norm.n_power_iterations):
                right = nn.functional.normalize(matrix.T @ own, dim=0)
                own = nn.functional.normalize(matrix @ right, dim=0)
            norm._u.copy_(own), norm._v.copy_(right)
    with torch.no_grad():
        fake = copy.deepcopy(gan.generator).double()(data.noise[0])
        scores = module.eval()(torch.cat((fake, data.real[0]))).flatten()
    expected = scores[:4].mean() - scores[4:].mean()
    assert float(result.loss_d[0]) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_a_run_in_two_calls_is_the_run_in_one(engine: str) -> None:
    """u moves from step to step, whoever is active, and goes on where it was."""
    gan, _ = GAMES["plain"]
    built = pymgan.compile(gan, engine=engine, dtype=F64)
    phi, rng = gan.parameters_vector().double()[None], Rng(1, torch.zeros(1, dtype=torch.int64))
    real = torch.randn(1, 1, built.reals, *built.sample, dtype=F64)
    nobody = torch.tensor([[True, True], [False, False], [True, False], [True, True]])

    def run(steps: slice, phi: Tensor, state: Any) -> Any:
        schedule = Schedule(torch.tensor([0.1, 0.1]), nobody[steps])
        return built.adapt(phi, Data(real.expand(-1, len(nobody[steps]), -1, -1)), schedule, rng, state=state)

    whole = run(slice(0, 4), phi, None)
    assert not torch.equal(built.initial_state(1, phi).spectral, built.initial_state(1).spectral)
    first = run(slice(0, 2), phi, None)
    second = run(slice(2, 4), first.phi, first.state)
    assert torch.equal(second.phi, whole.phi)
    assert torch.equal(second.state.spectral, whole.state.spectral)
    assert not torch.equal(first.state.spectral, whole.state.spectral)


def test_what_is_refused() -> None:
    g, d = nn.Linear(3, 4), nn.Linear(4, 1)

    def refuses(generator: nn.Module, discriminator: nn.Module, message: str) -> None:
        with pytest.raises((ValueError, NotImplementedError), match=message):
            compile_plan(GAN(nn.Sequential(generator), nn.Sequential(discriminator), (3,)))

    refuses(spectral_norm(nn.Linear(3, 4)), d, "expected no spectral_norm")
    refuses(g, orthogonal(nn.Linear(4, 1)), "expected no parametrizations but spectral_norm")
    refuses(g, orthogonal(nn.Conv1d(1, 1, 4)), "expected no param")
    refuses(g, torch.nn.utils.spectral_norm(nn.Linear(4, 1)), "parametrizations.spectral_norm")
    refuses(g, nn.Sequential(spectral_norm(nn.Linear(4, 3), dim=1), nn.Linear(3, 1)), "default dim")


def test_state_is_checked() -> None:
    gan, _ = GAMES["plain"]
    built = pymgan.compile(gan, engine="cpu")
    state = built.initial_state(2)
    assert tuple(state.spectral.shape) == (2, 17 + 3 + 1)
    state.spectral = state.spectral[:, 1:]
    data = Data(torch.zeros(2, 1, built.reals, *built.sample))
    with pytest.raises(ValueError, match=r"state.spectral: expected \[2, 21\]"):
        built.adapt(
            gan.parameters_vector(), data, Schedule(torch.ones(2)), Rng(0, torch.arange(2)), state=state
        )


def test_networks_as_data() -> None:
    gan, _ = GAMES["images"]
    again = gan_from_config(gan_to_config(gan))
    assert str(compile_plan(again)) == str(compile_plan(gan))
    assert torch.equal(compile_plan(again).spectral(), compile_plan(gan).spectral())


def test_loaded_networks_have_norms_of_their_own_weights() -> None:
    """A discriminator that has been loaded is within its bound: sigma is its weights' own."""
    gan, _ = GAMES["plain"]
    gan = gan_from_config(gan_to_config(gan))
    gan.load_vector(3 * torch.randn(len(gan.parameters_vector())))
    gan.discriminator.eval()
    for layer in gan.discriminator.modules():
        if parametrize.is_parametrized(layer):
            assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) == pytest.approx(1.0, abs=0.05)
