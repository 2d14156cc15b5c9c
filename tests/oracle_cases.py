"""Cases of the battery: random games, and inputs that every engine can represent exactly.

All inputs are drawn in float32, so that a float32 engine and the float64 oracle start from the same numbers. Draws in which a
pre-activation comes close to a kink (a ReLU at 0, the hinge at 1) anywhere on the trajectory are left out: there float32 and
float64 may rightly take different sides. So are draws that diverge; where too many do, all rates are halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from pymgan.contract import OPTIMISERS, Data, Engine, Rng, Schedule, State
from pymgan.gan import GAN
from pymgan.reference import ReferenceEngine
from pymgan.reference_augment import Disturbance, disturb
from pymgan.reference_optimisers import MOMENTS
from pymgan.reference_spectral import Vectors
from tests.augmented import games as augmented_games
from tests.convolutions import GAMES
from tests.extragradient import games as extragradient_games
from tests.layers import games as layered_games
from tests.parameters import parameters
from tests.penalties import games as penalised_games
from tests.spectral import games as spectral_games
from tests.watch import watch

DRAWS = 32
SPARE = 16  # draws beyond those, for the ones that are left out
NEAREST = 1e-5  # to a kink, in units of the layer's size
LARGEST = 30.0  # gradient norm
WIDTHS = (1, 2, 3, 17, 63)
STORAGE = ("all", "phi", "every:2", "nested")
Generator = np.random.Generator

ACTIVATIONS: dict[str, Callable[[Generator], nn.Module]] = {
    "leaky_relu": lambda r: nn.LeakyReLU(float(r.choice([0.2, 0.01, 0.0, -0.3, 1.5]))),
    "relu": lambda r: nn.ReLU(),
    "elu": lambda r: nn.ELU(float(r.choice([1.0, 0.5, 2.0]))),
    "silu": lambda r: nn.SiLU(),
    "softplus": lambda r: nn.Softplus(*((1.0, 20.0), (2.0, 3.0), (0.5, 20.0))[r.integers(3)]),
    "tanh": lambda r: nn.Tanh(),
    "sigmoid": lambda r: nn.Sigmoid(),
    "identity": lambda r: nn.Identity(),
}


@dataclass(frozen=True, eq=False)
class Case:
    """One game and how its inner loop runs.

    Attributes:
        real: "repeat" (one batch, stride 0 in K), "steps" (a batch for each step) or "pool" (indices into a pool).
        masks: "" (everyone moves), "critic" (G every second step) or "random" (per task and step).
        zero_head: players whose last Linear starts at zero: scores are exactly 0, or samples are.
        zero_rate: the rate of the middle step is 0 for both players; its derivative is not.
        optimisers: with several of them, each task and step has one of its own.
        eps: not the default, with which what is rounded in a gradient near zero decides the draw: there the direction of an
            adaptive step turns within sqrt(eps).
    """

    name: str
    gan: GAN
    fakes: int = 4
    reals: int = 4
    steps: int = 3
    play: str = "simultaneous"
    optimisers: tuple[str, ...] = ("sgd",)
    momentum: float = 0.9
    eps: float = 1e-2
    storage: str = "all"
    real: str = "repeat"
    masks: str = ""
    scale: bool = False
    zero_head: str = ""
    zero_rate: bool = False
    seed: int = 0

    @property
    def moments(self) -> int:
        """Of the optimisers' state."""
        return max(MOMENTS[kind] for kind in self.optimisers)

    def inner_loop(self) -> dict[str, Any]:
        """How its steps go, in the words of `pymgan.compile`."""
        return {
            "fakes": self.fakes,
            "reals": self.reals,
            "play": self.play,
            "optimisers": self.optimisers,
            "momentum": self.momentum,
            "eps": self.eps,
        }


@dataclass(frozen=True)
class Inputs:
    """Everything that the contract takes, T = DRAWS tasks, float32."""

    phi: Tensor
    state: State
    data: Data
    schedule: Schedule
    rng: Rng
    cotangents: Tensor  # [C, T, P]
    state_cotangents: Tensor | None
    support: list[str]
    keep: list[str]
    sample_cotangent: Tensor  # [T, fakes, *sample]

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same numbers in another dtype."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(dtype)

        assert self.data.noise is not None
        return replace(
            self,
            phi=self.phi.to(dtype),
            state=replace(
                self.state, moments=self.state.moments.to(dtype), spectral=self.state.spectral.to(dtype)
            ),
            data=Data(self.data.real.to(dtype), self.data.indices, self.data.noise.to(dtype)),
            cotangents=self.cotangents.to(dtype),
            state_cotangents=move(self.state_cotangents),
            sample_cotangent=self.sample_cotangent.to(dtype),
        )

    def on(self, device: torch.device) -> Inputs:
        """The same numbers on a device, but for what a state counts."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device)
            if not isinstance(value, (Data, Schedule)):
                return value
            return replace(value, **{item.name: move(getattr(value, item.name)) for item in fields(value)})

        state = replace(self.state, moments=move(self.state.moments), spectral=move(self.state.spectral))
        others = {
            item.name: move(getattr(self, item.name)) for item in fields(Inputs) if item.name != "state"
        }
        return replace(self, state=state, **others)


# ---- architectures ----


def _stack(rng: Generator, names: Iterator[str], widths: list[int], biases: bool) -> list[nn.Module]:
    """Linear layers through `widths` with an activation, now and then two, between them."""
    layers: list[nn.Module] = []
    for i, (inner, outer) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(inner, outer, bias=biases and bool(rng.random() < 0.85)))
        if i < len(widths) - 2:
            layers.append(ACTIVATIONS[next(names)](rng))
            if rng.random() < 0.25:  # a row of its own: no Linear for it to be fused with
                layers.append(ACTIVATIONS[next(names)](rng))
    return layers


def random_gan(rng: Generator, names: Iterator[str], loss: str, smoothing: float) -> GAN:
    """Odd widths, one to three hidden layers, sometimes images, an activation first or last, or no bias at all."""
    latent, sample = ((int(rng.choice((1, 2, 3, 5, 17))),), (int(rng.choice((1, 2, 3, 17))),))
    hidden = [[int(rng.choice(WIDTHS)) for _ in range(rng.integers(1, 4))] for _ in range(2)]
    image = rng.random() < 0.4
    if image:
        sample = ((1, 2, 3), (3, 5), (4, 4))[rng.integers(3)]
    size = math.prod(sample)
    biases = bool(rng.random() < 0.8)
    generator = _stack(rng, names, [*latent, *hidden[0], size], biases)
    if rng.random() < 0.3:
        latent = (1, *latent)
        generator.insert(0, nn.Flatten())
    if rng.random() < 0.25:
        generator.insert(0, ACTIVATIONS[next(names)](rng))
    if rng.random() < 0.6:
        generator.append(nn.Tanh())
    if image:
        generator.append(nn.Unflatten(1, sample))
    discriminator = _stack(rng, names, [size, *hidden[1], 1], biases)
    if image:
        discriminator.insert(0, nn.Flatten())
    if rng.random() < 0.25:
        discriminator.insert(0, ACTIVATIONS[next(names)](rng))
    if rng.random() < 0.3:
        discriminator.append(ACTIVATIONS[next(names)](rng))
    return GAN(
        nn.Sequential(*generator), nn.Sequential(*discriminator), latent, loss=loss, label_smoothing=smoothing
    )


def _names(start: int) -> Iterator[str]:
    """All activations in turn, so that none is left to chance."""
    known = list(ACTIVATIONS)
    while True:
        yield known[start % len(known)]
        start += 1


LOSSES = (
    ("nonsaturating", 0.0),
    ("nonsaturating", 0.1),
    ("hinge", 0.0),
    ("least_squares", 0.0),
    ("least_squares", 0.2),
    ("wasserstein", 0.0),
)


@cache
def cases(seed: int = 0) -> tuple[Case, ...]:
    """Every loss, play and optimiser on a random architecture, then games chosen by hand. Another seed draws other games."""
    found = []
    for i in range(24):
        loss, smoothing = LOSSES[i % 6]
        rng = np.random.default_rng([seed, i])
        play, kind = (("simultaneous", "alternating")[i // 6 % 2], ("sgd", "momentum")[i // 12])
        fakes, reals = (int(rng.choice((1, 2, 5, 8))) for _ in range(2))
        found.append(
            Case(
                f"random-{i:02d}-{loss}{'-smooth' if smoothing else ''}",
                random_gan(rng, _names(3 * i + seed), loss, smoothing),
                fakes=fakes,
                reals=reals,
                steps=(3, 1, 3, 10, 3)[i % 5],
                play=play,
                optimisers=(kind,),
                storage=STORAGE[i % 4 if i % 3 else 0],
                real=("repeat", "steps", "pool")[i % 3],
                masks=("", "", "critic", "random")[int(rng.integers(4))],
                scale=bool(rng.random() < 0.5),
                zero_rate=bool(rng.random() < 0.2),
                seed=1000 * seed + i,
            )
        )
    return (*found, *_chosen(seed))


def _mlp(
    *widths: int, between: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.2), last: nn.Module | None = None
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner, outer in pairwise(widths):
        layers += [nn.Linear(inner, outer), between()]
    layers.pop()
    return nn.Sequential(*layers, *([last] if last is not None else []))


def _chosen(seed: int) -> Iterator[Case]:
    smooth = {"between": nn.SiLU}
    plain = GAN(_mlp(3, 17, 4, last=nn.Tanh()), _mlp(4, 17, 1), (3,))
    yield Case("batch-1", plain, fakes=1, reals=1, seed=seed)
    yield Case("ten-steps", plain, steps=10, play="alternating", storage="nested", seed=seed)
    for play in ("simultaneous", "alternating"):
        for kind in ("sgd", "momentum"):
            for masks in ("critic", "random"):
                name = f"masks-{masks}-{play}{'-momentum' if kind == 'momentum' else ''}"
                moves: dict[str, Any] = {"optimisers": (kind,), "momentum": 0.5, "masks": masks}
                yield Case(name, plain, steps=4, play=play, storage="phi", seed=seed, **moves)
    for loss in ("nonsaturating", "hinge", "least_squares", "wasserstein"):
        game = GAN(_mlp(3, 17, 4, last=nn.Tanh(), **smooth), _mlp(4, 17, 1, **smooth), (3,), loss=loss)
        for head in ("D", "GD"):
            play = "alternating" if head == "GD" else "simultaneous"
            yield Case(f"zero-head-{head}-{loss}", game, play=play, zero_head=head, seed=seed)
    for loss in ("saturating", "relativistic"):
        game = GAN(_mlp(3, 17, 4, last=nn.Tanh(), **smooth), _mlp(4, 17, 1, **smooth), (3,), loss, 0.1)
        for play in ("simultaneous", "alternating"):
            yield Case(f"{loss}-{play}", game, reals=7, play=play, masks="random", seed=seed)
    for name in ACTIVATIONS:
        rng = np.random.default_rng([seed, 77])

        def again(name: str = name, rng: Generator = rng) -> nn.Module:
            return ACTIVATIONS[name](rng)

        # each activation inside, alone in a row, and last of both players
        generator = nn.Sequential(nn.Linear(2, 5), again(), again(), nn.Linear(5, 3), again())
        discriminator = nn.Sequential(again(), nn.Linear(3, 6), again(), nn.Linear(6, 1), again())
        yield Case(f"everywhere-{name}", GAN(generator, discriminator, (2,)), scale=True, seed=seed)
    no_bias = GAN(
        nn.Sequential(nn.Linear(2, 17, bias=False), nn.Tanh(), nn.Linear(17, 2, bias=False)),
        nn.Sequential(nn.Linear(2, 17, bias=False), nn.Softplus(), nn.Linear(17, 1, bias=False)),
        (2,),
        loss="least_squares",
    )
    yield Case("no-bias", no_bias, fakes=3, reals=7, scale=True, seed=seed)
    narrow = GAN(_mlp(1, 1, 1, 1, **smooth), _mlp(1, 1, 1, **smooth), (1,))
    moves = {"optimisers": ("momentum",), "momentum": 0.5, "play": "alternating"}
    yield Case("width-1", narrow, fakes=1, reals=2, steps=3, seed=seed, **moves)
    linear = GAN(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(2, 1)), (3,), loss="least_squares")
    yield Case("linear", linear, seed=seed)
    wide = GAN(_mlp(17, 63, 63, 63, last=nn.Tanh()), _mlp(63, 63, 63, 1), (17,))
    yield Case("wide", wide, fakes=17, reals=16, steps=3, seed=seed)
    for i, (name, make_game) in enumerate(GAMES.items()):
        yield Case(
            f"conv-{name}",
            make_game(),
            fakes=(5, 4, 3)[i % 3],
            reals=(4, 1, 6)[i % 3],
            steps=3 if name.startswith("only") else 2,  # torch takes a task's convolutions one by one
            play=("simultaneous", "alternating")[(i // 2) % 2],
            optimisers=(("momentum",) if i == 3 else ("sgd",)),
            storage=STORAGE[i % 4],
            real=("repeat", "steps", "pool")[i % 3],
            masks="random" if i % 3 == 1 else "",
            scale=i % 2 == 1,
            seed=seed,
        )
    yield Case("zero-rate", plain, steps=3, zero_rate=True, scale=True, seed=seed)
    yield from _optimisers(seed)
    for name, penalised, loop in penalised_games():
        yield Case(f"penalty-{name}", penalised, seed=seed, **loop)
    for name, augmented, loop in augmented_games():
        yield Case(f"augment-{name}", augmented, seed=seed, **loop)
    for name, game, loop in extragradient_games():
        yield Case(f"extragradient-{name}", game, seed=seed, **loop)
    for name, layered, loop in layered_games():
        yield Case(f"layers-{name}", layered, seed=seed, **loop)
    for name, normed, loop in spectral_games():
        yield Case(f"spectral-{name}", normed, seed=seed, **loop)


def _optimisers(seed: int) -> Iterator[Case]:
    """Every kind alone in both plays, then engines whose schedule chooses."""
    game = GAN(_mlp(3, 17, 4, last=nn.Tanh(), between=nn.SiLU), _mlp(4, 17, 3, 1, between=nn.SiLU), (3,))
    kinds = [kind for kind in OPTIMISERS if kind != "sgd"]
    for i, kind in enumerate(kinds):
        for play in ("simultaneous", "alternating"):
            yield Case(
                f"{kind}-{play}",
                game,
                steps=4,
                play=play,
                optimisers=(kind,),
                storage=STORAGE[i % 4],
                masks="random" if play == "alternating" else "",
                scale=play == "simultaneous",
                zero_rate=i % 2 == 0,
                seed=seed,
            )
    for play, chosen in (
        ("simultaneous", OPTIMISERS),
        ("alternating", ("adam", "sgd", "optimistic")),
        ("simultaneous", ("sgd", "normalised")),
    ):
        name = f"switching-{len(chosen)}-{play}"
        yield Case(name, game, steps=6, play=play, optimisers=chosen, masks="random", scale=True, seed=seed)


# ---- inputs ----


def reference(case: Case, dtype: torch.dtype = torch.float64) -> ReferenceEngine:
    """The oracle of a case, or with float32 torch's own."""
    return ReferenceEngine(case.gan, **case.inner_loop(), dtype=dtype)


@cache
def draw(case: Case, draws: int = DRAWS) -> Inputs:
    """Fresh inputs of a case; the same ones for the same case."""
    engine = reference(case)
    for attempt in range(6):
        rng = np.random.default_rng([case.seed, *case.name.encode()])
        inputs = _draw(case, engine, rng, draws + SPARE, 2.0**-attempt)
        good = torch.nonzero(margin(case, engine, inputs) > NEAREST).flatten()
        if len(good) >= draws:
            return take(inputs, good[:draws])
    raise AssertionError(f"{case.name}: only {len(good)} of {draws + SPARE} draws are well posed")


def _draw(case: Case, engine: ReferenceEngine, rng: Generator, T: int, slower: float) -> Inputs:
    K, P = case.steps, engine.parameters

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape)).float()

    indices = None
    if case.real == "pool":
        real = normal(23, *engine.sample)
        indices = torch.from_numpy(rng.integers(0, 23, (T, K, case.reals)).astype(np.int32))
    elif case.real == "steps":
        real = normal(T, K, case.reals, *engine.sample)
    else:
        real = normal(T, 1, case.reals, *engine.sample).expand(T, K, case.reals, *engine.sample)
    rate = torch.from_numpy(rng.uniform(0.02, 0.3, (T, K, 2))).float() * (_pace(case) * slower)
    if case.zero_rate:
        rate[:, K // 2] = 0
    active = None
    if case.masks == "critic":
        active = torch.ones(K, 2, dtype=torch.bool)
        active[::2, 0] = False
    elif case.masks == "random":
        active = torch.from_numpy(rng.random((T, K, 2)) < 0.6)
    width = case.moments * P
    cotangents = normal(4, T, P)
    moments, count = 0.1 * normal(T, width), torch.from_numpy(rng.integers(0, 9, T))
    # of a generator of its own: who plays has nothing to do with the numbers
    choices = np.random.default_rng([case.seed, 2, *case.name.encode()])
    kinds = len(case.optimisers)
    kind = torch.from_numpy(choices.integers(0, kinds, (T, K))) if kinds > 1 else 0
    before = torch.from_numpy(choices.integers(0, kinds, T))
    for m, moment in enumerate(moments.view(T, case.moments, P).unbind(1) if width else ()):
        squares = [(name, m) in (("rmsprop", 0), ("adam", 1)) for name in case.optimisers]
        moment.copy_(torch.where(torch.tensor(squares)[before, None], moment.abs(), moment))
    updates = torch.from_numpy(choices.integers(0, 6, (T, 2))) if width else torch.zeros(T, 2).long()
    return Inputs(
        phi=parameters(rng, case.gan, T, case.zero_head),
        state=State(
            moments, count, updates, before[:, None].expand(T, 2).clone(), engine.spectral.u.repeat(T, 1)
        ),
        data=Data(real, indices, normal(T, K, case.fakes, *engine.latent)),
        schedule=Schedule(
            rate, active, torch.from_numpy(rng.uniform(0.5, 1.5, P)).float() if case.scale else None, kind
        ),
        rng=Rng(int(rng.integers(2**62)), torch.arange(T)),
        cotangents=cotangents,
        state_cotangents=normal(4, T, width) if width else None,
        support=["GD", "G", "GD", "D"],
        keep=["GD", "GD", "G", "D"],
        sample_cotangent=normal(T, case.fakes, *engine.sample),
    )


def _pace(case: Case) -> float:
    """Steps of about one length whoever makes them: momentum adds them up, an adaptive step moves all parameters by its rate."""
    slowed = {"momentum": 1 - case.momentum, "nesterov": 1 - case.momentum, "rmsprop": 0.1, "adam": 0.1}
    return min(slowed.get(kind, 1.0) for kind in case.optimisers)


def take(inputs: Inputs, tasks: Tensor) -> Inputs:
    """Some of the tasks."""
    data, schedule = inputs.data, inputs.schedule
    per_task = schedule.active is not None and schedule.active.ndim == 3
    assert data.noise is not None
    picked = (data.real, data.indices[tasks]) if data.indices is not None else (data.real[tasks], None)
    if data.indices is None and data.real.stride(1) == 0:  # indexing made a copy: a stride of 0 again
        picked = (data.real[tasks][:, :1].expand(-1, *data.real.shape[1:]), None)
    return replace(
        inputs,
        phi=inputs.phi[tasks],
        state=State(*(getattr(inputs.state, item.name)[tasks] for item in fields(State))),
        data=Data(*picked, data.noise[tasks]),
        schedule=Schedule(
            schedule.rate[tasks],
            schedule.active[tasks] if per_task else schedule.active,
            schedule.scale,
            schedule.kind[tasks] if isinstance(schedule.kind, Tensor) else schedule.kind,
        ),
        rng=Rng(inputs.rng.seed, inputs.rng.tasks[tasks]),
        cotangents=inputs.cotangents[:, tasks],
        state_cotangents=None if inputs.state_cotangents is None else inputs.state_cotangents[:, tasks],
        sample_cotangent=inputs.sample_cotangent[tasks],
    )


def draw_far(case: Case, draws: int) -> Inputs:
    """Inputs for finite differences: the draws that stay farthest from every kink."""
    engine = reference(case)
    inputs = _draw(case, engine, np.random.default_rng([case.seed, 1, *case.name.encode()]), 16 * draws, 0.5)
    return take(inputs, margin(case, engine, inputs).argsort(descending=True, stable=True)[:draws])


def neighbours(case: Case, count: int, distance: float, seed: int) -> Inputs:
    """[T * count] tasks: each draw `count` times over, every number moved by about `distance` of itself.

    Conditioned like the original, but rounded in other ways. Zeros stay zeros; what tasks share stays as it is. A neighbour that
    comes close to a kink is the original itself.
    """
    inputs = draw(case)
    inputs = take(inputs, torch.arange(len(inputs.phi)).repeat_interleave(count))
    moved = _moved(inputs, torch.full((len(inputs.phi),), distance), seed)
    far = margin(case, reference(case), moved) > NEAREST
    return _moved(inputs, distance * far, seed)


def _moved(x: Inputs, distance: Tensor, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def near(value: Tensor, tasks: int = 0) -> Tensor:
        by = distance.view(*[1] * tasks, -1, *[1] * (value.ndim - 1 - tasks))
        return value * (1 + by * torch.randn(value.shape, generator=generator))

    assert x.data.noise is not None
    real = x.data.real
    if x.data.indices is None:
        real = near(real[:, :1]).expand(real.shape) if real.stride(1) == 0 else near(real)
    return replace(
        x,
        phi=near(x.phi),
        state=replace(x.state, moments=near(x.state.moments)),
        data=Data(real, x.data.indices, near(x.data.noise)),
        cotangents=near(x.cotangents, 1),
        state_cotangents=None if x.state_cotangents is None else near(x.state_cotangents, 1),
        sample_cotangent=near(x.sample_cotangent),
    )


def steps_of(schedule: Schedule, steps: slice) -> Schedule:
    """Some of the inner steps."""
    active, kind = schedule.active, schedule.kind
    return Schedule(
        schedule.rate[:, steps],
        None if active is None else active[..., steps, :],
        schedule.scale,
        kind[..., steps] if isinstance(kind, Tensor) else kind,
    )


def margin(case: Case, engine: ReferenceEngine, inputs: Inputs) -> Tensor:
    """[T], how close each task's trajectory comes to a point where a derivative jumps, in units of that layer's size.

    Exact hits do not count: both sides take the same branch there. -1 for a trajectory that diverges.
    """
    x = inputs.to(torch.float64)
    assert x.data.noise is not None
    T, K = len(x.phi), case.steps
    nearest = torch.full((T,), math.inf, dtype=torch.float64)
    phi, state, split = x.phi, x.state, engine.generator_parameters
    calm = torch.ones(T, dtype=torch.bool)
    penalty = case.gan.penalty
    between = penalty is not None and penalty.between
    drawn = between or bool(case.gan.augment) or case.gan.instance_noise > 0

    def look(
        theta_g: Tensor,
        theta_d: Tensor,
        norms: Vectors,
        z: Tensor,
        real: Tensor,
        draws: list[tuple[Tensor, Disturbance]],
    ) -> list[Tensor]:
        seen: list[Tensor] = []
        g, d = (
            engine._named(*pair)
            for pair in ((case.gan.generator, theta_g), (case.gan.discriminator, theta_d))
        )
        d = engine.spectral.used(d, norms)
        both = torch.cat((watch(case.gan.generator, g, z, seen), real))
        for u, numbers in draws:
            given = disturb(case.gan, both, case.fakes, numbers)
            fake, real = given[: case.fakes], given[case.fakes :]
            if between:
                share = u.view(-1, *[1] * (real.ndim - 1))
                watch(engine.spectral.module, d, share * real + (1 - share) * fake, seen)
            score = watch(engine.spectral.module, d, given, seen).reshape(-1)
            if case.gan.loss == "hinge":
                seen += [score[: case.fakes] + 1, score[case.fakes :] - 1]
        return [a.flatten() for a in seen]

    for k in range(K):
        at = slice(k, k + 1)
        one = Data(
            x.data.real if x.data.indices is not None else x.data.real[:, at],
            None if x.data.indices is None else x.data.indices[:, at],
            x.data.noise[:, at],
        )
        after = engine.adapt(phi, one, steps_of(x.schedule, at), x.rng, state=state)
        real = one.real[:, 0] if one.indices is None else one.real[one.indices[:, 0].long()]
        # what D is given, and where a penalty looks: in this step, and (step 0) when gradients alone are asked for
        at_steps = (state.count.tolist(), [0] * T)[: 2 if drawn else 1]
        draws = [(engine._mix(x.rng, steps), engine._disturbance(x.rng, steps)) for steps in at_steps]
        norms = engine._iterate(k, phi, state.spectral)
        for d in (phi[:, split:], after.phi[:, split:]):
            for a in vmap(look)(phi[:, :split], d, norms, x.data.noise[:, k], real, draws):
                size = a.abs().where(a != 0, math.inf) / a.square().mean().sqrt().clamp(min=1e-30)
                nearest = torch.minimum(nearest, size.min(dim=1).values)
        calm &= after.trace.valid & ((after.trace.norm_g < LARGEST) & (after.trace.norm_d < LARGEST))[:, 0]
        phi, state = after.phi, after.state
    return nearest.where(calm, -1.0)


def make_reference(dtype: torch.dtype) -> Callable[[Case], Engine]:
    """The reference engine as the battery wants engines: made from a case."""
    return lambda case: reference(case, dtype)
