"""`pymgan.adapt` is a torch operation: its gradients are those of the same steps written with autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import pymgan
from pymgan.arch import mlp
from pymgan.reference import ReferenceEngine

TASKS, SHOTS, STEPS = 2, 4, 3


@pytest.fixture
def engine() -> ReferenceEngine:
    return ReferenceEngine(mlp((2,), latent=3, widths=(5,), seed=2), fakes=SHOTS, reals=SHOTS)


@pytest.fixture
def support() -> Tensor:
    return torch.randn(TASKS, SHOTS, 2, generator=torch.Generator().manual_seed(0))


def start(engine: ReferenceEngine) -> Tensor:
    return engine.gan.parameters_vector().double()


def test_gradients_in_phi_rates_and_scale(engine: ReferenceEngine, support: Tensor) -> None:
    phi = start(engine).requires_grad_()
    rates = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    scale = torch.full((engine.parameters,), 1.1, dtype=torch.float64, requires_grad=True)

    def adapted(phi: Tensor, rates: Tensor, scale: Tensor) -> Tensor:
        return pymgan.adapt(engine, phi, support, steps=STEPS, rates=rates, scale=scale)

    assert torch.autograd.gradcheck(adapted, (phi, rates, scale), eps=1e-6, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (2,), (STEPS, 2), (TASKS, STEPS, 2)])
def test_rates_broadcast(engine: ReferenceEngine, support: Tensor, shape: tuple[int, ...]) -> None:
    rates = torch.full(shape, 0.1, dtype=torch.float64, requires_grad=True)
    result = pymgan.adapt(engine, start(engine), support, steps=STEPS, rates=rates)
    plain = pymgan.adapt(engine, start(engine), support, steps=STEPS)
    assert torch.equal(result, plain)
    result.square().sum().backward()
    assert rates.grad is not None
    assert rates.grad.shape == shape
    assert not plain.requires_grad


@pytest.mark.parametrize("optimiser", ["adam", ("sgd", "adam", "sgd"), "extragradient"])
def test_gradients_through_the_chosen_optimiser(support: Tensor, optimiser: str | tuple[str, ...]) -> None:
    engine = ReferenceEngine(
        mlp((2,), latent=3, widths=(5,), seed=2),
        fakes=SHOTS,
        reals=SHOTS,
        optimisers=("sgd", "adam", "extragradient"),
        eps=1e-2,
    )
    phi = start(engine).requires_grad_()

    def adapted(phi: Tensor) -> Tensor:
        return pymgan.adapt(engine, phi, support, steps=STEPS, rates=0.02, optimiser=optimiser)

    assert torch.autograd.gradcheck(adapted, (phi,), eps=1e-6, atol=1e-7, rtol=1e-4)
    assert not torch.allclose(adapted(phi), pymgan.adapt(engine, phi, support, steps=STEPS, rates=0.02))
    of_gan = pymgan.adapt(engine.gan, phi.detach().float(), support, optimiser=optimiser, steps=STEPS)
    assert of_gan.shape == (TASKS, engine.parameters)


def test_one_start_per_task_and_explicit_noise(engine: ReferenceEngine, support: Tensor) -> None:
    phi = start(engine).expand(TASKS, -1).clone().requires_grad_()
    noise = torch.randn(TASKS, STEPS, SHOTS, 3, dtype=torch.float64)
    result = pymgan.adapt(engine, phi, support, steps=STEPS, noise=noise)
    (gradient,) = torch.autograd.grad(result[0].sum(), phi)
    assert bool((gradient[0] != 0).any())
    assert not bool((gradient[1] != 0).any())  # tasks do not touch each other


def test_backward_can_be_repeated(engine: ReferenceEngine, support: Tensor) -> None:
    phi = start(engine).requires_grad_()
    result = pymgan.adapt(engine, phi, support, steps=STEPS).square().sum()
    first = torch.autograd.grad(result, phi, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(result, phi)[0])


def test_double_backward_raises(engine: ReferenceEngine, support: Tensor) -> None:
    phi = start(engine).requires_grad_()
    result = pymgan.adapt(engine, phi, support, steps=STEPS).square().sum()
    (gradient,) = torch.autograd.grad(result, phi, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_bad_input(engine: ReferenceEngine, support: Tensor) -> None:
    phi = start(engine)
    for steps in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="steps >= 1"):
            pymgan.adapt(engine, phi, support, steps=steps)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected support \[T, 4, 2\], got \[2, 4, 3\]"):
        pymgan.adapt(engine, phi, torch.zeros(TASKS, SHOTS, 3))
    with pytest.raises(ValueError, match=r"expected support"):
        pymgan.adapt(engine, phi, support[:, :3])
    with pytest.raises(ValueError, match=r"expected phi \[\d+\]"):
        pymgan.adapt(engine, phi[1:], support)
    with pytest.raises(ValueError, match="finite and at least 0"):
        pymgan.adapt(engine, phi, support, rates=-0.1)
    with pytest.raises(ValueError, match="expected rates"):
        pymgan.adapt(engine, phi, support, rates=torch.zeros(3))
    with pytest.raises(ValueError, match="expected rates"):
        pymgan.adapt(engine, phi, support, rates=torch.zeros(7, 2))
    with pytest.raises(ValueError, match=r"expected optimiser among sgd, .* got 'adam'"):
        pymgan.adapt(engine, phi, support, optimiser="adam")
    with pytest.raises(ValueError, match="expected optimiser as a name or 5 of them, got 2"):
        pymgan.adapt(engine, phi, support, optimiser=["sgd", "sgd"])
    with pytest.raises(ValueError, match="expected tasks"):
        pymgan.adapt(engine, phi, support, tasks=torch.arange(5))
