"""Gradient penalties against inner loops made by hand with autograd, a sample at a time, and what a GAN does with its penalty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from face import TINY
from torch import Tensor, nn
from torch.func import functional_call

import pymgan
from pymgan.arch_config import gan_from_config, gan_to_config
from pymgan.contract import Data, Rng, Schedule
from pymgan.gan import GAN, PENALTIES, Penalty
from pymgan.noise import normals
from pymgan.tasks import get

F64 = torch.float64
B, K, RATE, SEED = 3, 3, 0.2, 11
BETWEEN = ("wgan_gp", "zero_centred")


def game(penalty: Penalty | None) -> GAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GAN(
            nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)),
            nn.Sequential(nn.Linear(2, 6), nn.SiLU(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)),
            (2,),
            loss="wasserstein",
            penalty=penalty,
        )


def inputs(gan: GAN) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """phi [1, P], z and real [1, K, B, 2], and a cotangent."""
    numbers = torch.Generator().manual_seed(3)
    phi = 1.5 * gan.parameters_vector().double()[None]
    z, real = (torch.randn(1, K, B, 2, dtype=F64, generator=numbers) for _ in range(2))
    return phi, z, real, torch.randn(phi.shape, dtype=F64, generator=numbers)


def by_hand(gan: GAN, phi: Tensor, z: Tensor, real: Tensor, *, form: str = "exact") -> Tensor:
    """phi_K [P] of K simultaneous steps of SGD.

    form: "frozen" has the gradient of each step right but not its derivative: there the direction in which a penalty pulls is a
    constant. "batch" takes one norm over the batch instead of one for each sample.
    """
    penalty = gan.penalty
    assert penalty is not None
    split = sum(p.numel() for p in gan.generator.parameters())

    def network(module: nn.Module, theta: Tensor, x: Tensor) -> Tensor:
        named, at = {}, 0
        for name, p in module.named_parameters():
            named[name] = theta[at : at + p.numel()].view(p.shape)
            at += p.numel()
        return functional_call(module, named, (x,))  # type: ignore[no-any-return]

    def slope(d: Tensor, x: Tensor) -> Tensor:
        """d score / d sample of one sample."""
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(network(gan.discriminator, d, x[None]).sum(), x, create_graph=True)[0]

    def cost(norm2: Tensor) -> Tensor:
        if penalty.kind == "wgan_gp":
            return penalty.weight * ((norm2 + 1e-12).sqrt() - 1) ** 2
        return penalty.weight * norm2 * (0.5 if penalty.kind in ("r1", "r2") else 1)

    for k in range(K):
        g, d = phi[:split], phi[split:]
        fake = network(gan.generator, g, z[k])
        loss_g = -network(gan.discriminator, d, fake).mean()
        loss_d = network(gan.discriminator, d, fake).mean() - network(gan.discriminator, d, real[k]).mean()
        if k % penalty.every == 0:
            u = torch.special.ndtr(torch.from_numpy(normals(SEED, 7, k, 2**16 - 1, B)).double())[:, None]
            at = {"r1": real[k], "r2": fake}.get(penalty.kind, u * real[k] + (1 - u) * fake)
            slopes = torch.stack([slope(d, x) for x in at])
            norm2 = slopes.square().sum(1)
            if form == "batch":
                share = cost(norm2.sum())
            elif form == "exact":
                share = cost(norm2).mean()
            else:
                leaf = norm2.detach().requires_grad_()
                factor = torch.autograd.grad(cost(leaf).sum(), leaf)[0]
                share = (2 * factor[:, None] * slopes.detach() * slopes).sum(1).mean()
            loss_d = loss_d + penalty.every * share
        step_g = torch.autograd.grad(loss_g, phi, create_graph=True)[0][:split]
        step_d = torch.autograd.grad(loss_d, phi, create_graph=True)[0][split:]
        phi = phi - RATE * torch.cat((step_g, step_d))
    return phi


@pytest.mark.parametrize("engine", ["reference", "cpu", "torch"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("kind", PENALTIES)
def test_by_hand(kind: str, every: int, engine: str) -> None:
    """Ours is the exact one, of one norm a sample; a frozen direction or a norm over the batch would be far from it."""
    gan = game(Penalty(kind, 1.5, every))
    phi, z, real, v = inputs(gan)
    rate = torch.full((2,), RATE, dtype=F64)
    built = pymgan.compile(gan, fakes=B, reals=B, engine=engine, dtype=F64)
    rng = Rng(SEED, torch.tensor([7]))
    ours = built.adapt(phi, Data(real, None, z), Schedule(rate), rng, keep=True)
    assert ours.saved is not None
    pulled = built.pullback(ours.saved, v).v0[0]

    def hand(form: str) -> tuple[Tensor, Tensor]:
        start = phi[0].clone().requires_grad_()
        end = by_hand(gan, start, z[0], real[0], form=form)
        return end.detach(), torch.autograd.grad(end @ v[0], start)[0]

    end, exact = hand("exact")
    torch.testing.assert_close(ours.phi[0], end, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pulled, exact, rtol=1e-9, atol=1e-9)
    same_end, frozen = hand("frozen")
    torch.testing.assert_close(same_end, end)
    assert (frozen - exact).norm() > 0.02 * exact.norm()
    other_end, other = hand("batch")
    assert (other_end - end).norm() > 0.02 * (end - phi[0]).norm()
    assert (other - exact).norm() > 0.02 * exact.norm()


@pytest.mark.parametrize("engine", ["reference", "cpu", "torch"])
@pytest.mark.parametrize("kind", BETWEEN)
def test_as_many_of_both(kind: str, engine: str) -> None:
    with pytest.raises(
        ValueError, match=rf"\[compile\] reals: expected as many as fakes with penalty '{kind}', got 4 and 5"
    ):
        pymgan.compile(game(Penalty(kind)), fakes=5, reals=4, engine=engine)
    pymgan.compile(game(Penalty("r1")), fakes=5, reals=4, engine=engine)


@pytest.mark.parametrize(
    "penalty", [None, *(Penalty(kind, 2, 3) for kind in PENALTIES)], ids=lambda p: p.kind if p else "none"
)
def test_survives_as_data(penalty: Penalty | None, tmp_path: Path) -> None:
    gan = game(penalty)
    again = gan_from_config(gan_to_config(gan))
    assert again.penalty == penalty
    assert gan_to_config(again) == gan_to_config(gan)
    before = gan_to_config(game(None))
    assert "penalty" not in before  # as runs from before penalties have it
    pymgan.FewShot(gan).save(tmp_path / "few.safetensors")
    assert pymgan.FewShot.load(tmp_path / "few.safetensors").gan.penalty == penalty


@pytest.mark.parametrize("kind", ["r1", "wgan_gp"])
def test_survives_a_run_folder(kind: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = TINY | {"steps": 1, "out": tmp_path}
    gan = game(Penalty(kind, 0.5, 2))
    run = pymgan.train(get("rings"), gan, **settings)
    loaded = pymgan.load(tmp_path)
    images = torch.randn(6, 2)  # more than there were fakes in training
    few, same = run.adapt(images), loaded.adapt(images)
    assert few.gan.penalty == same.gan.penalty == gan.penalty
    assert torch.equal(few.sample(3, seed=0), same.sample(3, seed=0))
    with pytest.raises(pymgan.SettingsChanged, match=r"gan\.penalty\.weight: 0\.5 in the folder, 0\.25 now"):
        pymgan.train(get("rings"), game(Penalty(kind, 0.25, 2)), **settings)
