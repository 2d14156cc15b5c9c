"""What every engine is asked, and how far it may be from the oracle.

An engine runs the whole contract on a case (`measure`); every number that comes out is a quantity, compared with the float64
oracle over all draws (`compare`). No tolerance is chosen by hand: the engine's RMS error over the draws may be at most twice that
of torch's own float32, with a floor of a few float32 eps.

Conditioning varies by orders of magnitude between draws, so that one draw can make up a whole RMS error; and what torch's error
is on that one draw is luck. So errors are first divided by how exact torch's float32 is around their draw: its RMS error at
several neighbours, the same inputs up to a tenth of a percent. Without that, engines as good as torch failed, and errors of ten
times torch's hid behind the worst draw.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from pymgan.contract import Data, Engine, Pulled
from pymgan.reference import ReferenceEngine
from tests.oracle_cases import Case, Inputs, neighbours, reference, take
from tests.parameters import leaves

Make = Callable[[Case], Engine]
Quantities = dict[str, Tensor]

FACTOR = 2.0
FLOOR = 4 * torch.finfo(torch.float32).eps
# float64 engines are measured against torch's float32 error brought to float64's eps. Four times that: the oracle's own rounding
# counts too, and they are not tuned (long sums run straight through).
EXTRA_64 = 4.0
RATIO_64 = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
AROUND, MEASURED = 8, 4  # neighbours of each draw: for the unit of its errors, and those that engines run on
NEAR = 1e-3
# What one draw's error is, in units of torch's around it, is luck within a factor of a few; a wrong formula is off by thousands.
FACTOR_OF_FEW = 4.0


@dataclass(frozen=True)
class Row:
    """One quantity of one case.

    Attributes:
        error: of the engine, RMS over draws and elements, over the RMS value.
        torch_error: the same of torch's own float32, on the same inputs.
        ratio: RMS over draws of the engine's error, each in units of torch's around that draw.
        bound: twice the same of torch itself, which is about 1.
    """

    case: str
    quantity: str
    error: float
    torch_error: float
    ratio: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.ratio <= self.bound

    def __str__(self) -> str:
        mark = "" if self.ok else "  FAILED"
        numbers = f"{self.error:9.1e} {self.torch_error:9.1e} {self.ratio:7.2f} of {self.bound:.1f}"
        return f"{self.case:38} {self.quantity:20} {numbers}{mark}"


def measure(engine: Engine, case: Case, inputs: Inputs) -> Quantities:
    """Runs the whole contract; every result in float64."""
    x = inputs.to(engine.dtype)
    assert x.data.noise is not None
    found: Quantities = {}
    split = engine.generator_parameters

    def halves(name: str, value: Tensor) -> None:
        found[f"{name}.G"], found[f"{name}.D"] = value[..., :split], value[..., split:]

    real = x.data.real[:, 0] if x.data.indices is None else x.data.real
    indices = None if x.data.indices is None else x.data.indices[:, 0]
    batch = Data(real, indices, x.data.noise[:, 0])
    gradients = engine.gradients(x.phi, batch, x.rng)
    halves("gradient", gradients.gradient)
    found["loss_g"], found["loss_d"] = gradients.loss_g, gradients.loss_d
    full = engine.gradients(x.phi, batch, x.rng, full=True)
    halves("full.L_G", full.gradient[0])
    halves("full.L_D", full.gradient[1])

    adapted = engine.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True)
    assert bool(adapted.trace.valid.all()), f"{case.name}: tasks became invalid"
    assert torch.equal(adapted.state.count, x.state.count + case.steps)
    halves("phi", adapted.phi)
    halves("moved", adapted.phi - x.phi)
    for m, moment in enumerate(_vectors(adapted.state.moments, engine)):
        halves(f"moments.{m}", moment)
    active = x.schedule.active
    active = torch.ones(2, dtype=torch.bool, device=engine.device) if active is None else active
    moves_g, moves_d = active.expand(len(x.phi), case.steps, 2).unbind(-1)
    for name in ("loss_g", "norm_g", "loss_d", "norm_d", "fake_mean", "fake_std", "real_mean", "real_std"):
        found[f"trace.{name}"] = getattr(adapted.trace, name).where(
            moves_g if name.endswith("_g") else moves_d, 0.0
        )

    assert adapted.saved is not None
    pulled = engine.pullback(
        adapted.saved,
        _poisoned(x.cotangents, x.support, engine),
        state_cotangents=None
        if x.state_cotangents is None
        else _poisoned(x.state_cotangents, x.support, engine),
        keep=x.keep,
        support=x.support,
        rates=True,
    )
    for name, value in _pulled(pulled):
        for c, one in enumerate(value):
            kept = name == "v0" and x.keep[c] != "GD"
            if kept:
                other = one[..., split:] if x.keep[c] == "G" else one[..., :split]
                assert not other.any(), f"{case.name}: the half of v0 that was not wanted is not zero"
                found[f"{name}#{c}"] = one[..., :split] if x.keep[c] == "G" else one[..., split:]
            elif name == "d_rate":
                found[f"{name}#{c}"] = one
            elif name == "state_v0":
                for m, moment in enumerate(_vectors(one, engine)):
                    halves(f"{name}.{m}#{c}", moment)
            else:
                halves(f"{name}#{c}", one)
    # Without derivatives of the rates, plain SGD pulls back another way; the oracle has one way only.
    again = type(engine) is not ReferenceEngine or engine.moments > 0
    plain = replace(pulled, v0=pulled.v0[0], d_rate=None, d_scale=None)
    if again:
        plain = engine.pullback(adapted.saved, x.cotangents[0])
    halves("v0.alone", plain.v0)
    assert (plain.state_v0 is None) == (engine.moments == 0)
    for m, moment in enumerate(() if plain.state_v0 is None else _vectors(plain.state_v0, engine)):
        halves(f"state_v0.alone.{m}", moment)
    direct = pulled
    if again:
        direct = engine.pullback(
            adapted.saved, _poisoned(x.cotangents, x.support, engine), keep=x.keep, support=x.support
        )
    for c, half in enumerate(x.keep):
        kept = {"G": slice(0, split), "D": slice(split, None), "GD": slice(None)}[half]
        found[f"v0.direct#{c}"] = direct.v0[c][..., kept]
        assert direct.v0[c].count_nonzero() == direct.v0[c][..., kept].count_nonzero()
    assert plain.d_rate is None
    assert plain.d_scale is None

    z = x.data.noise[:, 0]
    samples = engine.generate(x.phi, z)
    found["samples"] = samples
    pull = engine.generate_vjp(x.phi, z, x.sample_cotangent)
    assert not pull[:, split:].any()
    found["generate_vjp"] = pull[:, :split]
    others = (x.data.real if x.data.indices is None else x.data.real[x.data.indices.long()])[:, 0]
    found["distance"], found["distance.cotangent"] = engine.distance("energy", x.sample_cotangent, others)
    return {name: value.double() for name, value in found.items() if value.numel()}


def _vectors(moments: Tensor, engine: Engine) -> list[Tensor]:
    """The [T, P] of moments [T, engine.moments * P]."""
    return list(moments.split(engine.parameters, -1)) if engine.moments else []


def _poisoned(v: Tensor, support: list[str], engine: Engine) -> Tensor:
    """Whatever lies in a half that `support` says is zero must not matter."""
    v, split = v.clone(), engine.generator_parameters
    for one, half in zip(v, support, strict=True):
        for vector in one.split(engine.parameters, -1):
            if half == "G":
                vector[:, split:] = math.nan
            elif half == "D":
                vector[:, :split] = math.nan
    return v


def _pulled(pulled: Pulled) -> Iterator[tuple[str, Tensor]]:
    for name in ("v0", "state_v0", "d_rate", "d_scale"):
        value = getattr(pulled, name)
        if value is not None:
            yield name, value


def draw_errors(value: Tensor, exact: Tensor) -> Tensor:
    """RMS error of each draw, [T]; infinite where a value is not finite."""
    if value.shape != exact.shape:
        raise AssertionError(f"expected shape {tuple(exact.shape)}, got {tuple(value.shape)}")
    error = (value - exact).reshape(len(exact), -1).square().mean(1).sqrt()
    return error.where(torch.isfinite(error), math.inf)


def rms(x: Tensor) -> float:
    """Root of the mean of the squares."""
    return x.square().mean().sqrt().item()


@dataclass(frozen=True)
class Yardstick:
    """Of one quantity, D = draws times MEASURED.

    Attributes:
        exact: the float64 oracle's value [D, ...].
        size: its RMS value.
        unit: [D], what errors are divided by: torch float32's RMS error around that draw, with the floor.
        torch_errors: [D].
    """

    exact: Tensor
    size: float
    unit: Tensor
    torch_errors: Tensor


@cache
def inputs_of(case: Case) -> Inputs:
    """What engines run on: the draws of a case, each a few times over with small changes."""
    return neighbours(case, MEASURED, NEAR, seed=1)


@cache
def yardsticks(case: Case) -> dict[str, Yardstick]:
    """The oracle's and torch float32's side of the comparison, once in a process for all engines."""
    networks = (case.gan.generator, case.gan.discriminator)
    # torch takes the tasks' convolutions one by one
    slow = any(hasattr(layer, "kernel_size") for network in networks for layer in leaves(network))
    count = AROUND // 2 if slow or reference(case).parameters > 3000 else AROUND
    exact, rounded = _both(case, inputs_of(case))
    around_exact, around_rounded = _both(case, neighbours(case, count, NEAR, seed=2))
    found = {}
    for name, value in exact.items():
        size = rms(value) or 1.0
        around = draw_errors(around_rounded[name], around_exact[name]).view(-1, count).square().mean(1).sqrt()
        floor = FLOOR / FACTOR * value.reshape(len(value), -1).square().mean(1).sqrt()
        unit = torch.maximum(around.repeat_interleave(MEASURED), floor)
        unit = unit.clamp(
            min=0.1 * FLOOR * size
        )  # a draw whose value cancels: half an eps of the usual value
        found[name] = Yardstick(value, size, unit, draw_errors(rounded[name], value))
    return found


def _both(case: Case, inputs: Inputs) -> tuple[Quantities, Quantities]:
    exact, rounded = (
        measure(reference(case, dtype), case, inputs) for dtype in (torch.float64, torch.float32)
    )
    return exact, rounded


def compare(make: Make, case: Case, draws: int | None = None) -> list[Row]:
    """Runs one engine on one case; a row for every quantity. An engine too slow for all draws runs on the first few."""
    engine, sticks = make(case), yardsticks(case)
    inputs, chosen, factor = inputs_of(case), torch.arange(len(inputs_of(case).phi)), FACTOR
    if draws is not None:
        chosen, factor = chosen[: draws * MEASURED : MEASURED], FACTOR * FACTOR_OF_FEW
        inputs = take(inputs, chosen)
    inputs = inputs.on(engine.device)
    measured = {name: value.cpu() for name, value in measure(engine, case, inputs).items()}
    if measured.keys() != sticks.keys():
        raise AssertionError(f"{case.name}: expected {sorted(sticks)}, got {sorted(measured)}")
    rows = []
    for name, stick in sticks.items():
        unit, torch_errors = stick.unit[chosen], stick.torch_errors[chosen]
        errors = draw_errors(measured[name], stick.exact[chosen])
        ratio, bound = rms(errors / unit), factor * max(1.0, rms(torch_errors / unit))
        if engine.dtype == torch.float64:
            ratio, bound = ratio / RATIO_64, bound * EXTRA_64
        rows.append(
            Row(case.name, name, rms(errors) / stick.size, rms(torch_errors) / stick.size, ratio, bound)
        )
    return rows


def check(make: Make, case: Case, draws: int | None = None) -> None:
    """Fails with a line for each quantity that is too far off."""
    failed = [str(row) for row in compare(make, case, draws) if not row.ok]
    assert not failed, "too far from the oracle:\n" + "\n".join(failed)


def fingerprint(quantities: Quantities) -> int:
    """Of all bits: for tests that say two runs are the same."""
    digest = 0
    for name in sorted(quantities):
        digest = zlib.crc32(
            quantities[name].contiguous().numpy().tobytes(), zlib.crc32(name.encode(), digest)
        )
    return digest
