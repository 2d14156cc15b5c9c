"""`pymgan unrolled`: plain and unrolled GANs on eight Gaussians on a circle, the mixture of the paper (arXiv 1611.02163).

What it takes from where, and what came out: docs/unrolled.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .contract import Rng
from .gan import GAN
from .metrics import modes
from .progress import Bar
from .unrolled import Unrolled

__all__ = ["Outcome", "Study", "ring_gan", "table"]

MODES, RADIUS, DEVIATION = 8, 2.0, 0.02
LATENT, WIDTH, GAIN = 256, 128, 1.4
LOOKS = 4  # at the samples, evenly over a training; the last is what counts
SAMPLE_STREAM = 1  # of the noise; stream 0 is the training's


@dataclass(frozen=True)
class Outcome:
    """Of one number of unrolled steps; a list has one entry a seed.

    Attributes:
        unrolled: K.
        modes: of the eight, those with a sample within three deviations, at the end.
        near: the share of samples that are.
        reached: of the eight, those that are the nearest to at least half their fair share of the samples, however far that
            is: one stray sample is not enough, and a generator that is spread out has all eight.
        history: [LOOKS], (steps done, modes, near, reached) along the way.
        failed: steps that had to be left out because something was not finite, of all seeds together.
        seconds: wall time.
    """

    unrolled: int
    modes: list[float]
    near: list[float]
    reached: list[float]
    history: list[tuple[int, list[float], list[float], list[float]]]
    failed: int
    seconds: float


@dataclass(frozen=True)
class Study:
    """The same training for several numbers of unrolled steps; the seeds of one are trained at once, and do not touch each other.

    Attributes:
        unrolled: the Ks.
        seeds: of initial weights, real samples and noise: the same for each K.
        steps: of G, and as many of D.
        batch: B.
        objective, inner: see `pymgan.Unrolled`.
        rates: of G's and D's Adam.
        samples: a seed, when modes are counted.
        threads: of the engine; None takes all cores.
    """

    unrolled: tuple[int, ...] = (0, 1, 5, 10)
    seeds: tuple[int, ...] = tuple(range(8))
    steps: int = 3000
    batch: int = 32
    objective: str = "saddle"
    inner: str = "adam"
    rates: tuple[float, float] = (1e-3, 1e-4)
    samples: int = 2500
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("steps", self.steps, LOOKS), ("samples", self.samples, 1)):
            if value < least:
                raise ValueError(f"expected {name} >= {least}, got {value}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"expected seeds from 0, each once, got {list(self.seeds)}")

    def to_config(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def run(self, unrolled: int, *, progress: bool = False) -> Outcome:
        """Trains a GAN a seed with K = `unrolled`."""
        began = time.perf_counter()
        gans = [ring_gan(seed) for seed in self.seeds]
        trainer = Unrolled(
            gans[0],
            tasks=len(gans),
            phi=torch.stack([gan.parameters_vector() for gan in gans]),
            steps=unrolled,
            batch=self.batch,
            rates=self.rates,
            inner=self.inner,
            objective=self.objective,
            threads=self.threads,
        )
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        rng = Rng(seed=0, tasks=torch.tensor(self.seeds, dtype=torch.int64))
        history: list[tuple[int, list[float], list[float], list[float]]] = []
        failed = 0
        with Bar(f"K = {unrolled}", 0, self.steps, len(gans), show=progress) as bar:
            for step in range(self.steps):
                real = torch.stack([ring(self.batch, generator) for generator in generators])
                noise = trainer.engine.noise(rng, len(gans), self.batch, step=step)
                result = trainer.step(real, noise)
                failed += int((~result.valid).sum())
                loss_g, loss_d = float(result.loss_g.mean()), float(result.loss_d.mean())
                bar.step({"objective": loss_g, "loss_g": loss_g, "loss_d": loss_d}, failed)
                if (step + 1) * LOOKS // self.steps > step * LOOKS // self.steps:
                    history.append((step + 1, *self._look(trainer, rng, step + 1)))
        covered, near, reached = history[-1][1:]
        return Outcome(unrolled, covered, near, reached, history, failed, time.perf_counter() - began)

    def _look(self, trainer: Unrolled, rng: Rng, step: int) -> tuple[list[float], list[float], list[float]]:
        count = len(self.seeds)
        z = trainer.engine.noise(rng, count, self.samples, step=step, stream=SAMPLE_STREAM)
        samples, middle = trainer.sample(z), centres().expand(count, -1, -1)
        score = modes(samples, middle, torch.full((count,), DEVIATION))
        nearest = torch.cdist(samples, middle).argmin(2)
        shares = torch.stack([torch.bincount(row, minlength=MODES) for row in nearest]) / self.samples
        reached = (shares >= 0.5 / MODES).sum(1).double()
        return score.covered.tolist(), score.quality.tolist(), reached.tolist()


def centres() -> Tensor:
    """Of the eight Gaussians, float32 [8, 2]."""
    angle = torch.arange(MODES, dtype=torch.float64) * (2 * math.pi / MODES)
    return (RADIUS * torch.stack((angle.cos(), angle.sin()), 1)).float()


def ring(count: int, generator: torch.Generator) -> Tensor:
    """Samples [count, 2] of the mixture."""
    mode = torch.randint(MODES, (count,), generator=generator)
    return centres()[mode] + DEVIATION * torch.randn(count, 2, generator=generator)


def ring_gan(seed: int) -> GAN:
    """The networks: 256-128-128-2 and 2-128-128-1, ReLU, orthogonal weights of gain 1.4, biases of zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = []
        for inputs, outputs in ((LATENT, 2), (2, 1)):
            layers: list[nn.Module] = []
            for into, out in ((inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, outputs)):
                linear = nn.Linear(into, out)
                nn.init.orthogonal_(linear.weight, gain=GAIN)
                nn.init.zeros_(linear.bias)
                layers += [linear, nn.ReLU()]
            networks.append(nn.Sequential(*layers[:-1]))
    return GAN(networks[0], networks[1], latent=(LATENT,))


def table(outcomes: Sequence[Outcome]) -> str:
    """Mean and deviation over seeds, in Markdown."""
    seeds = len(outcomes[0].modes) if outcomes else 0
    rows = [
        f"| unrolled steps | modes of {MODES} | reached, of {MODES} | samples within 3 deviations "
        f"| wall time, {seeds} seeds, s |",
        "|---|---|---|---|---|",
    ]
    for o in outcomes:
        covered, reached = (_spread(values, 2) for values in (o.modes, o.reached))
        rows.append(f"| {o.unrolled} | {covered} | {reached} | {_spread(o.near, 4)} | {o.seconds:.0f} |")
    return "\n".join(rows)


def _spread(values: Sequence[float], digits: int) -> str:
    x = torch.tensor(values, dtype=torch.float64)
    return f"{float(x.mean()):.{digits}f} ± {float(x.std()) if len(x) > 1 else 0.0:.{digits}f}"
