"""What D is given in training: augmented samples and noisy ones, looked at through a D that says one number of its sample."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from face import TINY
from torch import Tensor, nn

import pymgan
from pymgan.arch_config import gan_from_config, gan_to_config
from pymgan.contract import Data, Engine, Rng, Schedule
from pymgan.gan import AUGMENTATIONS, GAN
from pymgan.noise import normals
from pymgan.tasks import get

F64 = torch.float64
SEED = 5
ENGINES = ("reference", "cpu", "torch")
SHAPES = ((1, 16), (2, 7), (2, 4, 5), (1, 12, 6))


def game(shape: tuple[int, ...], *, convolves: bool = False, **more: Any) -> GAN:
    """G's sample is its z, D's score a sum of its sample's numbers with weights."""
    size = math.prod(shape)
    one = nn.Conv1d if len(shape) == 2 else nn.Conv2d
    head = one(shape[0], 1, shape[1:]) if convolves else nn.Linear(size, 1)  # type: ignore[arg-type]
    return GAN(
        nn.Sequential(nn.Linear(size, size), nn.Unflatten(1, shape)),
        nn.Sequential(head) if convolves else nn.Sequential(nn.Flatten(), head),
        (size,),
        loss="wasserstein",
        **more,
    )


def looking(engine: Engine, at: Tensor) -> Tensor:
    """phi [len(at), P] with which G gives z and D says the number `at` of its sample."""
    size = math.prod(engine.sample)
    g = torch.cat((torch.eye(size, dtype=F64).flatten(), torch.zeros(size, dtype=F64))).expand(len(at), -1)
    d = nn.functional.one_hot(at, size).to(F64)
    return torch.cat((g, d, torch.zeros(len(at), 1, dtype=F64)), 1)


def given(
    gan: GAN, fake: Tensor, real: Tensor, tasks: Tensor, *, steps: int = 1, engine: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """[len(tasks), steps, *sample]: what D is given of one generated and of one real sample."""
    built = pymgan.compile(gan, fakes=1, reals=1, dtype=F64, engine=engine)
    size, T = math.prod(built.sample), len(tasks) * math.prod(built.sample)
    data = Data(
        real.to(F64).expand(T, steps, 1, *built.sample), None, fake.to(F64).view(-1).expand(T, steps, 1, size)
    )
    still = Schedule(torch.zeros(2, dtype=F64))
    phi = looking(built, torch.arange(size).repeat(len(tasks)))
    trace = built.adapt(phi, data, still, Rng(SEED, tasks.repeat_interleave(size))).trace
    numbers = (trace.fake_mean, trace.real_mean)
    fakes, reals = (
        n.view(-1, size, steps).transpose(1, 2).reshape(-1, steps, *built.sample) for n in numbers
    )
    return fakes, reals


def uniform(task: int, step: int, count: int) -> list[float]:
    """The numbers of the stream, as the documentation has them."""
    return torch.special.ndtr(torch.from_numpy(normals(SEED, task, step, 2**16 - 2, count))).tolist()


def by_hand(x: Tensor, augment: tuple[str, ...], numbers: list[float]) -> Tensor:
    """Site by site."""
    extents, at = x.shape[1:], iter(numbers)
    add = next(at) - 0.5 if "brightness" in augment else 0.0
    shift = [0] * len(extents)
    if "translation" in augment:
        farthest = [int(n / 8 + 0.5) for n in extents]
        shift = [math.floor(next(at) * (2 * r + 1)) - r for r in farthest]
    out = torch.zeros_like(x)
    for site in torch.cartesian_prod(*(torch.arange(n) for n in extents)).reshape(-1, len(extents)).tolist():
        origin = [s - by for s, by in zip(site, shift, strict=True)]
        if all(0 <= o < n for o, n in zip(origin, extents, strict=True)):
            out[(slice(None), *site)] = x[(slice(None), *origin)] + add
    if "cutout" in augment:
        block = []
        for n in extents:
            size = (n + 1) // 2
            first = math.floor(next(at) * (n + 1 - size % 2)) - size // 2
            block.append(slice(max(first, 0), first + size))
        out[(slice(None), *block)] = 0
    return out


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("convolves", [False, True], ids=["flat", "conv"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_by_hand(shape: tuple[int, ...], convolves: bool, engine: str) -> None:
    """Every subset (convolutions, slow one by one in torch: all of it), at three tasks and two steps."""
    numbers = torch.Generator().manual_seed(1)
    fake, real = (torch.randn(shape, dtype=F64, generator=numbers) for _ in range(2))
    tasks = torch.tensor([0, 3, 2**40 + 1])
    for chosen in range(1, 8):
        augment = tuple(name for i, name in enumerate(AUGMENTATIONS) if chosen >> i & 1)
        if convolves and len(augment) < 3:
            continue
        found = given(
            game(shape, convolves=convolves, augment=augment), fake, real, tasks, steps=2, engine=engine
        )
        for t, task in enumerate(tasks.tolist()):
            for step in range(2):
                drawn = uniform(task, step, 1 + 2 * (len(shape) - 1))
                for x, seen in zip((fake, real), found, strict=True):
                    torch.testing.assert_close(seen[t, step], by_hand(x, augment, drawn), rtol=0, atol=1e-14)
        assert not torch.equal(found[1][0], found[1][1])  # another task
        assert not torch.equal(found[1][:, 0], found[1][:, 1])  # another step


def near(counts: Tensor, shares: Tensor) -> None:
    """Within five standard deviations of what independent draws give."""
    total = counts.sum()
    assert bool(((counts - total * shares).abs() < 5 * (total * shares * (1 - shares)).sqrt()).all()), counts


def test_shifts_are_uniform_and_zeros_come_in() -> None:
    x = torch.arange(1.0, 17)
    seen = given(game((1, 16), augment=("translation",)), x, x, torch.arange(600))[1].view(-1, 16)
    counts = torch.zeros(5)
    for one in seen:
        shifts = [
            s
            for s in range(-2, 3)
            if bool((one.roll(-s)[max(-s, 0) : 16 - max(s, 0)] == x[max(-s, 0) : 16 - max(s, 0)]).all())
        ]
        assert len(shifts) == 1
        counts[shifts[0] + 2] += 1
        assert int((one == 0).sum()) == abs(shifts[0])
    near(counts, torch.full((5,), 0.2))


def test_blocks_are_half_and_anywhere() -> None:
    x = torch.ones(1, 6, 5)
    seen = given(game((1, 6, 5), augment=("cutout",)), x, x, torch.arange(600))[1].view(-1, 6, 5)
    gone = seen == 0
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None])
    # sizes 3 and 3: as much of a block around any of the 6 and 5 sites as lies inside
    for lines in (rows, columns):
        n = lines.shape[1]
        middle = (lines * torch.arange(n)).sum(1) / lines.sum(1)
        blocks = [sorted({max(c - 1, 0), c, min(c + 1, n - 1)}) for c in range(n)]
        counts = torch.tensor([float((middle == sum(b) / len(b)).sum()) for b in blocks])
        assert counts.sum() == 600
        near(counts, torch.full((n,), 1 / n))


def test_brightness_is_one_number_of_each_sample() -> None:
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    added = (
        given(game((2, 5), augment=("brightness",)), x, x, torch.arange(600))[1].view(-1, 2, 5) - x
    ).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added), rtol=0, atol=1e-6)
    assert added.abs().max() <= 0.5
    near(torch.histc(added[:, 0], 5, -0.5, 0.5), torch.full((5,), 0.2))


def test_what_is_shifted_in_is_not_brightened() -> None:
    x = torch.ones(1, 16)
    seen = given(game((1, 16), augment=("brightness", "translation")), x, x, torch.arange(60))[1].view(-1, 16)
    assert int((seen == 0).any(1).sum()) > 30


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("convolves", [False, True], ids=["flat", "conv"])
def test_noise_is_another_of_each_sample(convolves: bool, engine: str) -> None:
    shape, task = (2, 7), 9
    gan = game(shape, convolves=convolves, instance_noise=0.25)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    both = given(gan, x, x, torch.tensor([task]), steps=2, engine=engine)
    for step in range(2):
        drawn = torch.from_numpy(normals(SEED, task, step, 2**16 - 3, 28)).view(2, *shape)
        for seen, z in zip(both, drawn, strict=True):
            torch.testing.assert_close(seen[0, step], x + 0.25 * z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_fake_and_real_samples_of_a_number_are_augmented_alike(engine: str) -> None:
    """Where G makes the real samples, D has nothing to learn; with another draw for either, or with noise, it would have."""
    shape, B = (2, 6), 4
    x = torch.randn(1, B, 12, dtype=F64, generator=torch.Generator().manual_seed(0))
    for noise in (0.0, 0.1):
        gan = game(shape, augment=AUGMENTATIONS, instance_noise=noise)
        built = pymgan.compile(gan, fakes=B, reals=B, dtype=F64, engine=engine)
        phi = looking(built, torch.tensor([3]))
        batch = Data(x.view(1, B, *shape), None, x)
        pull = built.gradients(phi, batch, Rng(SEED, torch.tensor([2]))).gradient[0, -13:-1].abs().max()
        assert pull > 0.01 if noise else pull < 1e-14
        # gradients see step 0
        trace = built.adapt(
            phi,
            Data(x.view(1, 1, B, *shape), None, x[None]),
            Schedule(torch.zeros(2, dtype=F64)),
            Rng(SEED, torch.tensor([2])),
        ).trace
        losses = built.gradients(phi, batch, Rng(SEED, torch.tensor([2])))
        assert torch.equal(losses.loss_g, trace.loss_g[:, 0])


@pytest.mark.parametrize("engine", ["cpu", "torch"])
def test_fewer_of_one_kind(engine: str) -> None:
    """Sample i of each kind has number i, whoever are more."""
    shape = (1, 8)
    gan = game(shape, augment=("brightness",))
    for fakes, reals in ((1, 3), (3, 1)):
        built = pymgan.compile(gan, fakes=fakes, reals=reals, dtype=F64, engine=engine)
        data = Data(torch.zeros(1, 1, reals, *shape, dtype=F64), None, torch.zeros(1, 1, fakes, 8, dtype=F64))
        phi = looking(built, torch.tensor([0]))
        trace = built.adapt(
            phi, data, Schedule(torch.zeros(2, dtype=F64)), Rng(SEED, torch.tensor([4]))
        ).trace
        drawn = torch.tensor(uniform(4, 0, 3), dtype=F64) - 0.5
        torch.testing.assert_close(trace.fake_mean[0, 0], drawn[:fakes].mean())
        torch.testing.assert_close(trace.real_mean[0, 0], drawn[:reals].mean())


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_themselves_stay_as_they_are(engine: str) -> None:
    shape = (1, 8)
    plain, augmented = game(shape), game(shape, augment=AUGMENTATIONS, instance_noise=1.0)
    z = torch.randn(1, 3, 8, dtype=F64)
    samples = []
    for gan in (plain, augmented):
        built = pymgan.compile(gan, dtype=F64, engine=engine)
        samples.append(built.generate(looking(built, torch.tensor([0])), z))
    assert torch.equal(*samples)


def test_nothing_is_drawn_without() -> None:
    """Neither instruction nor number of a game that asks for none."""
    augmented = str(
        pymgan.compile(game((1, 8), augment=("cutout",), instance_noise=0.1), engine="torch").program.step
    )  # type: ignore[attr-defined]
    plain = str(pymgan.compile(game((1, 8)), engine="torch").program.step)  # type: ignore[attr-defined]
    assert " augment " in augmented
    assert "x.noise" in augmented
    assert " augment " not in plain
    assert "draw" not in plain
    assert "noisy" not in plain


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (3, 1, 1)])
def test_samples_without_extents(shape: tuple[int, ...], engine: str) -> None:
    size = math.prod(shape)
    gan = GAN(
        nn.Sequential(nn.Linear(2, size), nn.Unflatten(1, shape)),
        nn.Sequential(nn.Flatten(), nn.Linear(size, 1)),
        (2,),
        augment=("cutout",),
    )
    with pytest.raises(
        ValueError, match=r"augment: expected samples \(C, H, W\) or \(C, L\) for cutout, got \("
    ):
        pymgan.compile(gan, engine=engine)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"augment": "cutout"}, TypeError, r"augment: expected a tuple of names, got 'cutout'"),
        ({"augment": None}, TypeError, r"augment: expected a tuple of names, got None"),
        (
            {"augment": ("color",)},
            ValueError,
            r"augment: expected some of brightness, translation, cutout in this order, got \('color',\)",
        ),
        ({"augment": ("cutout", "brightness")}, ValueError, r"in this order"),
        ({"augment": ("cutout", "cutout")}, ValueError, r"in this order"),
        ({"instance_noise": -0.1}, ValueError, r"instance_noise: expected a finite number from 0, got -0.1"),
        (
            {"instance_noise": math.nan},
            ValueError,
            r"instance_noise: expected a finite number from 0, got nan",
        ),
        ({"instance_noise": math.inf}, ValueError, r"instance_noise"),
        ({"instance_noise": True}, ValueError, r"instance_noise"),
        ({"instance_noise": "1"}, ValueError, r"instance_noise"),
    ],
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=rf"\[GAN\] .*{message}"):
        game((1, 8), **changes)


@pytest.mark.parametrize("engine", ENGINES)
def test_streams_of_its_own(engine: str) -> None:
    """Noise that a caller asks for never is the engine's."""
    built = pymgan.compile(game((1, 8)), engine=engine)
    for stream in (2**16 - 1, 2**16 - 2, 2**16 - 3):
        with pytest.raises(ValueError, match=rf"stream: expected .* below {2**16 - 3}, got {stream}"):
            built.noise(Rng(0, torch.arange(2)), 2, 3, stream=stream)
    built.noise(Rng(0, torch.arange(2)), 2, 3, stream=2**16 - 4)


@pytest.mark.parametrize("augment", [(), ("translation",), AUGMENTATIONS], ids=len)
def test_survives_as_data(augment: tuple[str, ...], tmp_path: Path) -> None:
    gan = game((1, 8), augment=augment, instance_noise=0.1 * len(augment))
    again = gan_from_config(gan_to_config(gan))
    assert (again.augment, again.instance_noise) == (gan.augment, gan.instance_noise)
    assert gan_to_config(again) == gan_to_config(gan)
    assert bool(augment) == ("augment" in gan_to_config(gan)) == ("instance_noise" in gan_to_config(gan))
    pymgan.FewShot(gan).save(tmp_path / "few.safetensors")
    few = pymgan.FewShot.load(tmp_path / "few.safetensors").gan
    assert (few.augment, few.instance_noise) == (gan.augment, gan.instance_noise)


def test_survives_a_run_folder(tmp_path: Path) -> None:
    settings: dict[str, Any] = TINY | {"steps": 1, "out": tmp_path}
    gan = pymgan.GAN(
        nn.Sequential(nn.Linear(4, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16))),
        nn.Sequential(nn.Flatten(), nn.Linear(256, 1)),
        (4,),
        augment=("brightness", "cutout"),
        instance_noise=0.1,
    )
    run = pymgan.train(get("glyphs"), gan, **settings)
    loaded = pymgan.load(tmp_path)
    images = torch.rand(6, 1, 16, 16)
    few, same = run.adapt(images), loaded.adapt(images)
    assert (same.gan.augment, same.gan.instance_noise) == (("brightness", "cutout"), 0.1)
    assert torch.equal(few.sample(3, seed=0), same.sample(3, seed=0))
    other = GAN(gan.generator, gan.discriminator, (4,), augment=("brightness", "cutout"), instance_noise=0.2)
    with pytest.raises(pymgan.SettingsChanged, match=r"gan\.instance_noise: 0\.1 in the folder, 0\.2 now"):
        pymgan.train(get("glyphs"), other, **settings)
