"""Random networks and games: every layer, in any order that fits, under every loss, penalty, optimiser and form of step.

    python -m tests.random_plans 10000 [--seed N]

compares the compiled engine in float64 with the oracle on each, and prints the worst. `tests/test_random_plans.py` runs a few.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import pymgan
import pymgan.spectral as spectral
from pymgan.contract import OPTIMISERS, Data, Rng, Schedule
from pymgan.gan import GAN, LOSSES, PENALTIES, SMOOTHED, Penalty
from pymgan.nn import Concat, Residual, Take
from pymgan.reference import ReferenceEngine
from tests.oracle_cases import ACTIVATIONS, STORAGE
from tests.parameters import leaves, parameters

F64 = torch.float64
TASKS = 2
LARGEST = 48  # values of a sample anywhere
WRONG = 1e-7  # relative; float64 and badly conditioned networks: rounding reaches 1e-10
Shape = tuple[int, ...]
Random = np.random.Generator


# ---- networks ----


def _activation(r: Random) -> nn.Module:
    if r.random() < 0.2:
        return nn.GELU(str(r.choice(["none", "tanh"])))
    return ACTIVATIONS[str(r.choice(list(ACTIVATIONS)))](r)


def _norm(r: Random, shape: Shape) -> nn.Module | None:
    eps, affine = float(r.choice([0.1, 0.5])), bool(r.integers(2))
    dims = int(r.integers(1, len(shape) + 1))
    kind = r.choice(["layer", "group", "instance"])
    if kind == "layer":
        return (
            nn.LayerNorm(shape[-dims:], eps, elementwise_affine=affine)
            if math.prod(shape[-dims:]) > 1
            else None
        )
    if kind == "group":
        groups = int(r.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0]))
        return nn.GroupNorm(groups, shape[0], eps, affine) if math.prod(shape) > groups else None
    if len(shape) == 1 or math.prod(shape[1:]) == 1:
        return None
    return (nn.InstanceNorm1d, nn.InstanceNorm2d)[len(shape) - 2](shape[0], eps, affine=affine)


def _convolution(r: Random, shape: Shape) -> nn.Module:
    dims = len(shape) - 1
    kinds = ((nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d))[dims - 1]

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(n) for n in r.integers(low, high + 1, dims))

    return kinds[int(r.integers(2))](
        shape[0],
        int(r.integers(1, 6)),
        each(1, 3),
        each(1, 2),
        each(0, 1),
        dilation=each(1, 2),
        bias=bool(r.integers(2)),
    )


def _resize(r: Random, shape: Shape) -> nn.Module:
    dims, kind = len(shape) - 1, r.choice(["pool", "nearest", "linear", "shuffle"])
    if kind == "pool":
        pool = (nn.AvgPool1d, nn.AvgPool2d)[dims - 1]
        return pool(2, int(r.integers(1, 3)), int(r.integers(2)), count_include_pad=bool(r.integers(2)))
    if kind == "shuffle" and dims == 2:
        return nn.PixelShuffle(2)
    if kind == "linear":
        mode = ("linear", "bilinear")[dims - 1]
        return nn.Upsample(
            scale_factor=float(r.choice([1.5, 2.0])), mode=mode, align_corners=bool(r.integers(2))
        )
    return nn.Upsample(scale_factor=2.0)


def _between_shapes(r: Random, shape: Shape) -> nn.Module:
    """From flat samples to others and back."""
    if len(shape) > 1:
        return nn.Flatten()
    ways = [
        (c, *rest)
        for c in range(1, shape[0] + 1)
        if shape[0] % c == 0
        for rest in [
            (shape[0] // c,),
            *((h, shape[0] // c // h) for h in (1, 2, 3) if shape[0] // c % h == 0),
        ]
    ]
    return nn.Unflatten(1, ways[int(r.integers(len(ways)))])


def _residual(r: Random, shape: Shape) -> nn.Module | None:
    body, out = walk(r, shape, 2, nested=True)
    if out == shape:
        return Residual(*body)
    if len(shape) == 1 and len(out) == 1:
        return Residual(*body, shortcut=nn.Linear(shape[0], out[0]))
    if len(shape) == len(out) and shape[1:] == out[1:]:
        convolution = (nn.Conv1d, nn.Conv2d)[len(shape) - 2]
        return Residual(*body, shortcut=convolution(shape[0], out[0], 1))
    return None


def _layer(r: Random, shape: Shape, nested: bool) -> nn.Module | None:
    flat = len(shape) == 1
    makers: list[Callable[[], nn.Module | None]] = [
        lambda: _activation(r),
        lambda: _norm(r, shape),
        lambda: nn.PReLU(int(r.choice([1, shape[0]]))),
        lambda: nn.Softmax(int(r.integers(1, len(shape) + 1))),
        lambda: nn.Linear(shape[0], int(r.integers(1, 19))) if flat else _convolution(r, shape),
        lambda: nn.Linear(shape[0], int(r.integers(1, 9)), bias=False) if flat else _resize(r, shape),
        lambda: _between_shapes(r, shape),
        lambda: None if nested else _residual(r, shape),
        lambda: Take(int(r.integers(0, shape[0])), shape[0]),
        lambda: (
            None if nested else Concat(*(nn.Sequential(*walk(r, shape, 1, nested=True)[0]) for _ in range(2)))
        ),
    ]
    return makers[int(r.integers(len(makers)))]()


def walk(r: Random, shape: Shape, depth: int, nested: bool = False) -> tuple[list[nn.Module], Shape]:
    """Layers one after the other, and the shape they end with."""
    layers: list[nn.Module] = []
    while len(layers) < depth:
        layer = _layer(r, shape, nested)
        if layer is None:
            continue
        try:
            with torch.no_grad():
                out = tuple(layer(torch.randn(3, *shape)).shape[1:])
        except (RuntimeError, ValueError):  # does not fit
            continue
        if 1 <= math.prod(out) <= LARGEST:
            layers.append(layer)
            shape = out
    return layers, shape


# ---- games ----


@dataclass(frozen=True)
class Draw:
    """One random game, and how its inner loop runs."""

    gan: GAN
    loop: dict[str, Any]
    storage: str
    steps: int


def draw_game(r: Random) -> Draw:
    """A game whose networks have parameters."""
    latent = ((int(r.integers(1, 6)),), (int(r.integers(1, 4)), 2), (2, 1, 2))[
        int(r.choice(3, p=[0.6, 0.2, 0.2]))
    ]
    generator, sample = walk(r, latent, int(r.integers(1, 5)))
    if not any(True for layer in generator for _ in layer.parameters()):
        generator += [nn.Flatten(), nn.Linear(math.prod(sample), int(r.integers(1, 9)))]
        sample = (generator[-1].out_features,)
    discriminator, shape = walk(r, sample, int(r.integers(0, 5)))
    discriminator += [nn.Flatten(), nn.Linear(math.prod(shape), 1)]
    if r.random() < 0.25:
        for layer in leaves(nn.Sequential(*discriminator)):
            if isinstance(layer, spectral.LAYERS) and r.integers(2):
                spectral_norm(layer, n_power_iterations=int(r.integers(1, 3)))
    loss = str(r.choice(LOSSES))
    fakes = int(r.integers(1, 4))
    penalty, reals = None, int(r.integers(1, 4))
    if r.random() < 0.5:
        penalty = Penalty(str(r.choice(PENALTIES)), 0.5, int(r.integers(1, 3)))
        reals = fakes if penalty.between else reals
    kinds = r.choice(OPTIMISERS, int(r.choice([1, 1, 2])), replace=False)
    augment: tuple[str, ...] = ()
    if len(sample) > 1 and math.prod(sample[1:]) > 1 and r.random() < 0.3:
        augment = tuple(a for a in ("brightness", "translation", "cutout") if r.integers(2))
    gan = GAN(
        nn.Sequential(*generator),
        nn.Sequential(*discriminator),
        latent,
        loss=loss,
        label_smoothing=0.1 if loss in SMOOTHED and r.integers(2) else 0.0,
        penalty=penalty,
        augment=augment,
        instance_noise=float(r.choice([0.0, 0.0, 0.2])),
    )
    loop = {
        "fakes": fakes,
        "reals": reals,
        "play": str(r.choice(["simultaneous", "alternating"])),
        "optimisers": tuple(str(kind) for kind in kinds),
        "momentum": 0.5,
        "eps": 1e-2,
    }
    return Draw(gan, loop, str(r.choice(STORAGE)), int(r.integers(1, 3)))


def compare(seed: int, number: int) -> tuple[float, str, Draw]:
    """The worst relative error of one game's results, and which; 0 where it diverges."""
    r = np.random.default_rng([seed, number])
    torch.manual_seed(int(r.integers(2**31)))  # of the layers' own weights, which are not used
    game = draw_game(r)
    oracle = ReferenceEngine(game.gan, **game.loop)
    engine = pymgan.compile(game.gan, engine="cpu", dtype=F64, storage=game.storage, **game.loop)
    phi = parameters(r, game.gan, TASKS).double()
    kind = torch.from_numpy(r.integers(0, len(game.loop["optimisers"]), (TASKS, game.steps)))

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(r.standard_normal(shape))

    data = Data(normal(TASKS, game.steps, game.loop["reals"], *engine.sample))
    rate = torch.from_numpy(r.uniform(0.01, 0.1, (TASKS, game.steps, 2)))
    active = torch.from_numpy(r.random((TASKS, game.steps, 2)) < 0.8)
    schedule = Schedule(rate, active, torch.from_numpy(r.uniform(0.5, 1.5, phi.shape[1])), kind)
    rng = Rng(int(r.integers(2**31)), torch.arange(TASKS))
    z, v = normal(TASKS, 2, *game.gan.latent), normal(TASKS, phi.shape[1])
    of_samples = normal(TASKS, 2, *engine.sample)

    def run(e: Any) -> dict[str, Tensor]:
        adapted = e.adapt(phi, data, schedule, rng, keep=True)
        pulled = e.pullback(adapted.saved, v, rates=True)
        plain = e.pullback(adapted.saved, v)
        batch = Data(data.real[:, 0])
        return {
            "valid": adapted.trace.valid.double(),
            "phi": adapted.phi - phi,
            "spectral": adapted.state.spectral if adapted.state.spectral.numel() else phi[:, :1],
            "v0": pulled.v0,
            "v0 alone": plain.v0,
            "d_rate": pulled.d_rate,
            "d_scale": pulled.d_scale,
            "gradients": e.gradients(phi, batch, rng, full=True).gradient,
            "samples": e.generate(phi, z),
            "generate_vjp": e.generate_vjp(phi, z, of_samples),
        }

    exact, found = run(oracle), run(engine)
    if not exact["valid"].all() or exact["v0"].abs().max() > 1e6:
        return 0.0, "diverged", game
    worst = (0.0, "")
    for name, value in exact.items():
        error = float((found[name] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        worst = max(worst, (math.inf if math.isnan(error) else error, name))
    return *worst, game


def main() -> None:
    """Runs as many as asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started, worst, wrong, diverged = time.monotonic(), (0.0, "", -1), 0, 0
    for number in range(options.first, options.first + options.count):
        try:
            error, quantity, game = compare(options.seed, number)
        except Exception as problem:
            raise RuntimeError(f"plan {number} of seed {options.seed}") from problem
        diverged += quantity == "diverged"
        worst = max(worst, (error, quantity, number))
        if error > WRONG:
            wrong += 1
            print(f"plan {number}: {quantity} is off by {error:.1e}\n{game}", flush=True)
    print(
        f"{options.count} random plans of seed {options.seed}: {wrong} wrong, {diverged} diverged, worst {worst[1]} of plan "
        f"{worst[2]}, {worst[0]:.1e}; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
