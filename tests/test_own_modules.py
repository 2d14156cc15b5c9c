"""What is a user's own in the networks of a GAN: names are kept, and whatever the engine would not compute is refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import pymgan
from pymgan.arch_config import build, describe
from tests.face import TINY


def discriminator() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1))


def generator() -> nn.Sequential:
    inner = nn.Sequential(OrderedDict(wide=nn.Linear(4, 6), act=nn.Tanh()))
    return nn.Sequential(OrderedDict(first=nn.Linear(3, 4), inner=inner, last=nn.Linear(6, 2)))


class Doubled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(x)


class Named(nn.Sequential):
    """Computes what a Sequential does."""


def hooked(network: nn.Sequential) -> nn.Module:
    network.register_forward_hook(lambda module, inputs, output: 2.0 * output)
    return network


def hooked_within(network: nn.Sequential) -> nn.Module:
    network.inner.register_forward_pre_hook(lambda module, inputs: None)
    return network


def replaced(network: nn.Sequential) -> nn.Module:
    network.first.forward = lambda x: x  # type: ignore[method-assign, union-attr]
    return network


def with_parameter(network: nn.Sequential) -> nn.Module:
    network.register_parameter("gain", nn.Parameter(torch.ones(1)))
    return network


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (hooked, "generator: expected no hooks, .* got hooks"),
        (hooked_within, "generator layer inner: expected no hooks"),
        (replaced, "layer 0: .* got a forward of its own"),
        (with_parameter, "generator: .* with 'gain' of its own"),
        (lambda network: Doubled(*network), "generator: .* got a Doubled with a forward of its own"),
    ],
)
def test_what_would_not_be_computed_is_refused(
    change: Callable[[nn.Sequential], nn.Module], got: str
) -> None:
    gan = pymgan.GAN(change(generator()), discriminator(), latent=(3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=got):
        pymgan.compile(gan, fakes=2, reals=2, engine="cpu")


def test_a_subclass_that_computes_the_same_is_fine() -> None:
    gan = pymgan.GAN(Named(*generator()), discriminator(), latent=(3,))
    engine = pymgan.compile(gan, fakes=2, reals=2, engine="cpu")
    z = torch.randn(1, 5, 3)
    torch.testing.assert_close(engine.generate(gan.parameters_vector(), z)[0], gan.generator(z[0]))


def test_networks_that_share_a_layer_are_refused() -> None:
    layer = nn.Linear(2, 2)
    gan = pymgan.GAN(nn.Sequential(layer), nn.Sequential(layer, nn.Linear(2, 1)), latent=(2,))
    with pytest.raises(ValueError, match=r"shared with layer 0: Linear.* of the generator"):
        pymgan.compile(gan, fakes=2, reals=2, engine="cpu")


def test_names_are_kept() -> None:
    network = generator()
    again = build(describe(network))
    assert list(again.state_dict()) == list(network.state_dict())
    again.load_state_dict(network.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(again(x), network(x))
    assert all(len(row) == 2 for row in describe(discriminator()))  # as run folders had it before


def test_an_adapted_generator_with_names_is_loaded_again(tmp_path: Path) -> None:
    gan = pymgan.GAN(generator(), discriminator(), latent=(3,))
    run = pymgan.train(pymgan.tasks.rings(), gan, out=tmp_path / "run", **TINY)
    few = run.adapt(torch.randn(4, 2))
    few.save(tmp_path / "few.safetensors")
    loaded = pymgan.FewShot.load(tmp_path / "few.safetensors")
    z = torch.randn(5, 3)
    assert torch.equal(loaded.generator(z), few.generator(z))
    assert list(pymgan.load(tmp_path / "run").before().generator.state_dict()) == list(
        few.generator.state_dict()
    )
