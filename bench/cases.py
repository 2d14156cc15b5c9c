"""The bench's cases: their names and their work are fixed, so that figures of different days can be compared.

A case is K inner steps of simultaneous SGD on every task's support batches, then the game objective on its query batch.
A *pass* is how much of it is computed:

    meta     differentiated through all K steps: theta_G along L_G(phi_K), theta_D along L_D(phi_K), mean over tasks
    first    the gradients at phi_K: dL_G/dtheta_G, dL_D/dtheta_D, mean over tasks; nothing is pulled back
    adapt    the K inner steps alone: phi_K of every task
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pymgan.arch import dcgan

KINKS = Path(__file__).with_name("kinks.json")
Pass = Literal["meta", "first", "adapt"]
PASSES: tuple[Pass, ...] = ("meta", "first", "adapt")


class Gflop(NamedTuple):
    """Work of each pass over a case, in GFLOP, by the merged count (docs/architecture.md)."""

    meta: float
    first: float
    adapt: float


@dataclasses.dataclass(frozen=True)
class Case:
    """One case. Widths include input and output, so ``(16, 64, 2)`` has two layers; of images they are channels."""

    name: str
    tasks: int
    batch: int
    inner_steps: int
    generator_widths: tuple[int, ...]
    discriminator_widths: tuple[int, ...]
    gflop: Gflop | None = None
    """Frozen: recomputing earns nothing. None: what the program counts (an altered case)."""
    rate: float = 0.01
    seed: int = 0
    """Of the numbers; where nothing comes close to a kink of LeakyReLU (bench/kinks.py). It changes no work."""

    extent: int = 0
    """Of square images, made and judged by `pymgan.arch.dcgan`; 0: flat samples, by MLPs."""

    left_out: tuple[int, ...] = ()
    """Numbers of tasks that are drawn in between and dropped, since they come close to a kink (bench/kinks.py)."""

    @property
    def latent(self) -> int:
        return self.generator_widths[0]

    @property
    def sample(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return (self.generator_widths[-1], *[self.extent] * (2 if self.extent else 0))

    def networks(self, seed: int) -> tuple[nn.Sequential, nn.Sequential]:
        """G and D."""
        if self.extent:
            gan = dcgan(self.sample, latent=self.latent, channels=self.generator_widths[-2], seed=seed)
            return gan.generator, gan.discriminator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _mlp(self.generator_widths, tail=[nn.Tanh()]), _mlp(self.discriminator_widths, tail=[])

    def altered(self, **fields: Any) -> Case:
        """This case with other `fields`; its name says so, and its work is no longer the frozen one."""
        changes = {key: value for key, value in fields.items() if getattr(self, key) != value}
        if not changes:
            return self
        name = " ".join([self.name, *(f"{key}={value}" for key, value in changes.items())])
        return dataclasses.replace(self, name=name, gflop=None, **{"left_out": (), **changes})

    def wider(self, times: int) -> Case:
        """This case with `times` as many channels (features, of an MLP) in hidden layers."""

        def widths(old: tuple[int, ...]) -> tuple[int, ...]:
            return (old[0], *(times * n for n in old[1:-1]), old[-1])

        return dataclasses.replace(
            self,
            name=f"{self.name} channels x{times}",
            gflop=None,
            generator_widths=widths(self.generator_widths),
            discriminator_widths=widths(self.discriminator_widths),
        )

    def problem(self, seed: int | None = None) -> Problem:
        """The networks, the parameters and every batch, float32 on the CPU, the same for the same seed (default: the case's)."""
        seed = self.seed if seed is None else seed
        generator, discriminator = self.networks(seed)
        rng = torch.Generator().manual_seed(seed)
        t, k, b = self.tasks + len(self.left_out), self.inner_steps, self.batch
        drawn = Problem(
            case=self,
            generator=generator,
            discriminator=discriminator,
            phi=_vector([*generator.parameters(), *discriminator.parameters()]),
            real=torch.randn(t, k, b, *self.sample, generator=rng).tanh(),
            noise=torch.randn(t, k, b, self.latent, generator=rng),
            query=torch.randn(t, b, *self.sample, generator=rng).tanh(),
            query_noise=torch.randn(t, b, self.latent, generator=rng),
        )
        return drawn.without(self.left_out) if self.left_out else drawn


@dataclasses.dataclass(frozen=True)
class Problem:
    """What every contestant is handed; nobody draws numbers of its own."""

    case: Case
    generator: nn.Sequential
    discriminator: nn.Sequential
    phi: Tensor  # [P], parameters of (G, D) as parameters_to_vector lays them out
    real: Tensor  # [T, K, B, *sample]
    noise: Tensor  # [T, K, B, latent]
    query: Tensor  # [T, B, *sample]
    query_noise: Tensor  # [T, B, latent]

    def to(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> Problem:
        """A copy on `device` whose tensors and networks have `dtype`; this one where nothing changes."""
        if self.phi.device == torch.device(device) and self.phi.dtype == dtype:
            return self
        return dataclasses.replace(
            self,
            generator=copy.deepcopy(self.generator).to(device, dtype),
            discriminator=copy.deepcopy(self.discriminator).to(device, dtype),
            **{name: getattr(self, name).to(device, dtype) for name in ("phi", *_BATCHES)},
        )

    def part(self, start: int, stop: int) -> Problem:
        """The same with tasks `start` to `stop` alone."""
        tasks = range(self.case.tasks)[start:stop]
        return dataclasses.replace(
            self,
            case=self.case.altered(tasks=len(tasks)),
            **{name: getattr(self, name)[start:stop] for name in _BATCHES},
        )

    def without(self, dropped: Sequence[int]) -> Problem:
        """The same but for the batches of the tasks `dropped`, which the case does not count."""
        kept = torch.ones(len(self.real), dtype=torch.bool)
        kept[list(dropped)] = False
        return dataclasses.replace(self, **{name: getattr(self, name)[kept] for name in _BATCHES})


_BATCHES = ("real", "noise", "query", "query_noise")


@dataclasses.dataclass(frozen=True)
class Step:
    """One contestant's way through a pass: what is timed, and how its result is read.

    Attributes:
        run: computes the pass and returns its result in whatever form the contestant has, finished (nothing still queued).
        read: that result as a tensor on the CPU: the meta-gradient [P], or phi_K [T, P] of the pass `adapt`. Not timed.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Tensor]

    def __call__(self) -> Tensor:
        return self.read(self.run())


def _mlp(widths: tuple[int, ...], tail: Iterable[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        layers += [nn.LeakyReLU(0.2)] if i else []
        layers += [nn.Linear(n, m)]
    return nn.Sequential(*layers, *tail)


def _vector(parameters: Iterable[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


# `meta` is the design's count; the program of today does with 2.0362 and 17.3023. The other passes are what it counts, exactly.
RING_MLP = Case(
    "ring-mlp", 32, 32, 5, (16, 64, 64, 2), (2, 64, 64, 1), gflop=Gflop(2.05, 0.49545216, 0.4128768), seed=154
)
GLYPH_MLP = Case(
    "glyph-mlp",
    16,
    20,
    5,
    (32, 256, 256, 256),
    (256, 256, 256, 1),
    gflop=Gflop(17.3, 4.34700288, 3.6225024),
    seed=140,
)
# What the program counts, exactly, in which no tap meets padding. The design says about 41; how it counted is not known.
GLYPH_DCGAN = Case(
    "glyph-dcgan",
    8,
    10,
    5,
    (64, 64, 32, 16, 1),
    (1, 16, 32, 64, 1),
    gflop=Gflop(33.45388544, 8.0535552, 6.711296),
    seed=28,
    extent=32,
)

CASES = {case.name: case for case in (RING_MLP, GLYPH_MLP, GLYPH_DCGAN)}

# What fills a GPU, with its tasks, in the order in which they are run: one that is cut off has had every network.
ON_CUDA = (
    (RING_MLP, 132),
    (GLYPH_MLP, 132),
    (GLYPH_DCGAN.wider(4), 64),
    (RING_MLP, 1056),
    (GLYPH_MLP, 1056),
)


def select(
    names: Sequence[str], device: str, *, tasks: int | None = None, steps: int | None = None
) -> list[Case]:
    """The cases that are run of those `names`, each once.

    Args:
        names: keys of `CASES`.
        device: "cpu", or "cuda", which has variants of its own.
        tasks, steps: instead of the case's own.
    """
    if device == "cpu":
        found = [(CASES[name], CASES[name].tasks) for name in names]
    else:
        found = [(case, own) for case, own in ON_CUDA if case.name.split()[0] in names]
    altered = [case.altered(tasks=tasks or own, inner_steps=steps or case.inner_steps) for case, own in found]
    near: dict[str, list[int]] = json.loads(KINKS.read_text(encoding="utf-8"))
    return [
        dataclasses.replace(case, left_out=tuple(near.get(name, ())))
        for name, case in {case.name: case for case in altered}.items()
    ]
