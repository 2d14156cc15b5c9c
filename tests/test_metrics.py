"""Metrics against naive loops, closed forms and hand-computed cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, permutations
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import pymgan
from pymgan import metrics
from pymgan.metrics.mmd import BANDWIDTHS
from pymgan.tasks import TaskBatch

TWO_SETS: list[Callable[[Tensor, Tensor], Tensor]] = [
    metrics.energy,
    metrics.mmd2,
    metrics.swd,
    metrics.nearest_support,
]


def normal(*shape: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)) + shift


def by_name(metric: object) -> str:
    return getattr(metric, "__name__", str(metric))


def assert_mean(values: Tensor, expected: float) -> None:
    """The mean over tasks is the expectation up to four standard errors, and those are small."""
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < 4 * error
    assert error < 0.02


# --- energy


def test_energy_is_the_double_loop() -> None:
    a, b = normal(3, 5, 1, 2, 4), normal(3, 7, 1, 2, 4, seed=1, shift=0.3)
    got = metrics.energy(a, b)
    for task in range(3):
        x, y = a[task].flatten(1), b[task].flatten(1)
        across = sum(math.dist(p, q) for p in x.tolist() for q in y.tolist()) / (5 * 7)
        within_x = sum(math.dist(p, q) for p, q in permutations(x.tolist(), 2)) / (5 * 4)
        within_y = sum(math.dist(p, q) for p, q in permutations(y.tolist(), 2)) / (7 * 6)
        assert float(got[task]) == pytest.approx(2 * across - within_x - within_y, rel=1e-12)


def test_energy_of_normals_is_the_closed_form() -> None:
    # x - y is normal with deviation sqrt 2: E|x - y| = 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2)
    shift = 1.5
    across = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    expected = 2 * across - 2 * 2 / math.sqrt(math.pi)
    assert_mean(metrics.energy(normal(20000, 3, 1), normal(20000, 4, 1, seed=1, shift=shift)), expected)


def test_energy_of_one_distribution_is_zero_on_average() -> None:
    assert_mean(metrics.energy(normal(20000, 3, 2), normal(20000, 5, 2, seed=1)), 0.0)


def test_energy_of_points() -> None:
    a, b = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0]]])
    assert float(metrics.energy(a, b)) == pytest.approx(10.0, rel=1e-12)
    assert float(metrics.energy(a, b, epsilon=11.0)) == pytest.approx(2 * 6.0, rel=1e-12)


def test_energy_keeps_its_digits_far_from_zero() -> None:
    a, b = normal(2, 6, 3), normal(2, 6, 3, seed=1)
    assert torch.allclose(metrics.energy(a + 1e6, b + 1e6), metrics.energy(a, b), rtol=1e-8, atol=0)


@pytest.mark.parametrize(("fakes", "reals"), [(5, 7), (1, 4), (4, 1)])
def test_energy_is_what_engines_descend(fakes: int, reals: int) -> None:
    generator, discriminator = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)
    gan = pymgan.GAN(torch.nn.Sequential(generator), torch.nn.Sequential(discriminator), latent=(3,))
    engine = pymgan.compile(gan, dtype=torch.float64)
    a, b = normal(3, fakes, 2), normal(3, reals, 2, seed=1)
    assert torch.allclose(metrics.energy(a, b), engine.distance("energy", a, b)[0].double(), rtol=1e-12)


# --- mmd2


def test_mmd2_is_the_double_loop() -> None:
    a, b = normal(2, 4, 3), normal(2, 6, 3, seed=1, shift=0.5)

    def kernel(p: Tensor, q: Tensor) -> float:
        square = float(((p - q) ** 2).mean())
        return sum(math.exp(-square / (2 * h * h)) for h in BANDWIDTHS) / len(BANDWIDTHS)

    got = metrics.mmd2(a, b)
    for task in range(2):
        x, y = a[task], b[task]
        within_x = sum(kernel(p, q) for p, q in combinations(x, 2)) / 6
        within_y = sum(kernel(p, q) for p, q in combinations(y, 2)) / 15
        across = sum(kernel(p, q) for p in x for q in y) / 24
        assert float(got[task]) == pytest.approx(within_x + within_y - 2 * across, rel=1e-12)


def test_mmd2_of_normals_is_the_closed_form() -> None:
    # x - y is normal with variance 2: E exp(-z^2 / (2 h^2)) = h / sqrt(h^2 + 2) exp(-m^2 / (2 (h^2 + 2)))
    shift, h = 1.0, 0.7
    same = h / math.sqrt(h * h + 2)
    across = same * math.exp(-(shift**2) / (2 * (h * h + 2)))
    got = metrics.mmd2(normal(20000, 3, 1), normal(20000, 4, 1, seed=1, shift=shift), bandwidths=(h,))
    assert_mean(got, 2 * same - 2 * across)


def test_mmd2_of_one_distribution_is_zero_on_average() -> None:
    assert_mean(metrics.mmd2(normal(20000, 3, 2), normal(20000, 5, 2, seed=1)), 0.0)


def test_bandwidths_mean_the_same_in_any_dimension() -> None:
    a, b = normal(3, 4, 2), normal(3, 5, 2, seed=1)
    for metric in (metrics.mmd2, metrics.nearest_support):
        assert torch.allclose(metric(a, b), metric(a.repeat(1, 1, 8), b.repeat(1, 1, 8)), rtol=1e-10)


@pytest.mark.parametrize("metric", [metrics.energy, metrics.mmd2], ids=by_name)
def test_one_sample_is_a_point_distribution(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    point, other = normal(2, 1, 3), normal(2, 1, 3, seed=1)
    # A repeated sample is the same distribution, and its pairs are at distance 0.
    assert torch.allclose(metric(point, other), metric(point.repeat(1, 2, 1), other), atol=1e-5)
    assert bool((metric(point, other) > 0.1).all())
    assert torch.allclose(metric(point, point), torch.zeros(2, dtype=torch.float64), atol=1e-5)


# --- swd


def test_swd_on_a_line_by_hand() -> None:
    # Quantile functions 0,1 on halves and 0,1,2 on thirds differ by 1 on [1/3, 1/2) and [2/3, 1).
    a, b = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[2.0], [0.0], [1.0]]])
    assert float(metrics.swd(a, b)) == pytest.approx(math.sqrt(1 / 6 + 1 / 3), rel=1e-12)


def test_swd_with_equal_counts_pairs_the_sorted_samples() -> None:
    a, b = normal(3, 6, 1), normal(3, 6, 1, seed=1)
    expected = (a.sort(1).values - b.sort(1).values).square().mean((1, 2)).sqrt()
    assert torch.allclose(metrics.swd(a, b), expected, rtol=1e-12)


def test_swd_sees_distributions_and_not_counts() -> None:
    a, b = normal(2, 5, 4), normal(2, 3, 4, seed=1)
    expected = metrics.swd(a, b)
    assert torch.allclose(metrics.swd(a.repeat(1, 3, 1), b), expected, rtol=1e-10)
    assert torch.allclose(metrics.swd(a[:, [3, 0, 4, 1, 2]], b.repeat(1, 4, 1)), expected, rtol=1e-10)
    assert float(metrics.swd(a, a.repeat(1, 7, 1)).abs().max()) < 1e-12


def test_swd_of_a_shift_is_its_length_over_root_dimension() -> None:
    a = normal(1, 9, 16)
    shift = torch.zeros(16, dtype=torch.float64)
    shift[3] = 2.0
    got = float(metrics.swd(a, a + shift, projections=20000))
    assert got == pytest.approx(2.0 / 4, rel=0.02)


def test_swd_projections_are_fixed_unit_vectors() -> None:
    a, b = normal(2, 4, 3), normal(2, 4, 3, seed=1)
    torch.manual_seed(1)
    first = metrics.swd(a, b)
    torch.manual_seed(2)
    assert torch.equal(first, metrics.swd(a, b))
    assert not torch.equal(first, metrics.swd(a, b, seed=1))
    assert torch.allclose(metrics.swd(3 * a, 3 * b), 3 * first, rtol=1e-12)


# --- nearest_support


def test_nearest_support_by_hand() -> None:
    support = torch.tensor([[[0.0, 0.0], [10.0, 0.0]]])
    samples = torch.tensor([[[3.0, 4.0], [10.0, 1.0], [0.0, 0.0]]])
    assert float(metrics.nearest_support(samples, support)) == pytest.approx((5 + 1 + 0) / 3 / math.sqrt(2))


def test_a_copy_of_the_support_is_at_distance_zero() -> None:
    support = normal(2, 5, 1, 4, 4).float()
    assert metrics.nearest_support(support[:, [4, 4, 1]], support).tolist() == [0.0, 0.0]


# --- what all have in common


@pytest.mark.parametrize("metric", TWO_SETS, ids=by_name)
def test_tasks_do_not_mix(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = normal(4, 5, 1, 3, 3), normal(4, 6, 1, 3, 3, seed=1)
    alone = torch.cat([metric(a[task : task + 1], b[task : task + 1]) for task in range(4)])
    got = metric(a.float(), b.float())
    assert got.dtype == torch.float64
    assert got.shape == (4,)
    assert torch.allclose(got, alone, rtol=1e-5, atol=1e-6)
    assert len(set(alone.tolist())) == 4


@pytest.mark.parametrize("metric", TWO_SETS, ids=by_name)
def test_a_shift_is_seen(metric: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = normal(50, 8, 4), normal(50, 8, 4, seed=1)
    near, far = metric(a, b), metric(a + 0.8, b)
    assert float(far.mean() - near.mean()) > 5 * float((far - near).std()) / math.sqrt(50)


@pytest.mark.parametrize("metric", TWO_SETS, ids=by_name)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((2, 3), (2, 3)),
        ((2, 3, 4), (3, 3, 4)),
        ((2, 3, 4), (2, 3, 5)),
        ((2, 0, 4), (2, 3, 4)),
        ((2, 3, 4), (2, 0, 4)),
    ],
)
def test_wrong_shapes(
    metric: Callable[[Tensor, Tensor], Tensor], a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=rf"\[{by_name(metric)}\] expected .*, got \["):
        metric(torch.zeros(a), torch.zeros(b))


def test_wrong_arguments() -> None:
    x = normal(1, 2, 3)
    with pytest.raises(TypeError, match=r"\[energy\] expected tensors of real numbers, got ndarray"):
        metrics.energy(x.numpy(), x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex64"):
        metrics.swd(x.to(torch.complex64), x)
    with pytest.raises(ValueError, match="expected projections >= 1, got 0"):
        metrics.swd(x, x, projections=0)
    with pytest.raises(ValueError, match="expected bandwidths > 0"):
        metrics.mmd2(x, x, bandwidths=(0.5, 0.0))


def test_all_metrics_compare_with_queries_and_support() -> None:
    fake, support, query = normal(2, 6, 3), normal(2, 4, 3, seed=1), normal(2, 5, 3, seed=2)
    batch = TaskBatch(support, query, torch.arange(2), ["a", "b"])
    got = metrics.all_metrics(fake, batch)
    assert list(got) == ["energy", "swd", "mmd2", "nearest_support"]
    assert torch.equal(got["energy"], metrics.energy(fake, query))
    assert torch.equal(got["swd"], metrics.swd(fake, query))
    assert torch.equal(got["mmd2"], metrics.mmd2(fake, query))
    assert torch.equal(got["nearest_support"], metrics.nearest_support(fake, support))


# --- modes


def test_modes_by_hand() -> None:
    centres = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    samples = torch.tensor([[[0.05, 0.0], [0.0, -0.29], [1.0, 0.31], [0.5, 0.5], [0.0, 1.0]]])
    score = metrics.modes(samples, centres, torch.tensor([0.1]))
    assert score.covered.tolist() == [2.0]
    assert score.quality.tolist() == [pytest.approx(3 / 5)]
    wider = metrics.modes(samples, centres, torch.tensor([0.1]), within=3.2)
    assert (wider.covered.item(), wider.quality.item()) == (3.0, pytest.approx(4 / 5))


def test_modes_of_the_mixture_itself() -> None:
    # In the plane a normal is within 3 deviations with probability 1 - exp(-4.5).
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]]).expand(40, 4, 2)
    samples = centres.repeat(1, 100, 1) + 0.2 * normal(40, 400, 2)
    score = metrics.modes(samples, centres, torch.full((40,), 0.2))
    assert score.covered.tolist() == [4.0] * 40
    assert_mean(score.quality, 1 - math.exp(-4.5))


def test_modes_wrong_deviation() -> None:
    with pytest.raises(ValueError, match=r"expected deviation \[1\], got \[2\]"):
        metrics.modes(normal(1, 2, 2), normal(1, 3, 2), torch.ones(2))


# --- summarise


@pytest.mark.parametrize("count", [2, 3, 4, 6, 40, 100])
def test_summarise_is_students_interval(count: int) -> None:
    values = normal(count, seed=count)
    got = metrics.summarise(values)
    low, high = stats.t.interval(0.95, count - 1, loc=float(values.mean()), scale=stats.sem(values.numpy()))
    assert got["mean"] == pytest.approx(float(values.mean()))
    # Exact but for the expansion of the quantile at 3 degrees of freedom.
    assert got["ci95"] == pytest.approx((high - low) / 2, rel=2e-3)


def test_summarise_large_samples_are_normal() -> None:
    values = normal(100_000)
    assert metrics.summarise(values)["ci95"] == pytest.approx(
        NormalDist().inv_cdf(0.975) * float(values.std()) / math.sqrt(100_000), rel=1e-4
    )


def test_summarise_one_value_has_no_interval() -> None:
    got = metrics.summarise([2.5])
    assert got["mean"] == 2.5
    assert math.isnan(got["ci95"])


def test_summarise_wrong_values() -> None:
    with pytest.raises(ValueError, match=r"expected values \[T\], T >= 1, got \[0\]"):
        metrics.summarise([])
    with pytest.raises(ValueError, match=r"got \[2, 2\]"):
        metrics.summarise(torch.zeros(2, 2))
