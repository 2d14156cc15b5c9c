"""What every engine is asked, and how far it may be from the oracle.

An engine runs the whole contract on a case (`measure`); every number that comes out is a quantity, compared with the float64
oracle over all draws (`compare`). The error of a quantity is the RMS of the difference over its RMS value. It may be at most
twice the error of torch's own float32, with a floor of a few float32 eps: no tolerance is chosen by hand.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pymgan.contract import Data, Engine, Pulled
from tests.oracle_cases import Case, Inputs, draw, reference

Make = Callable[[Case], Engine]
Quantities = dict[str, Tensor]

FACTOR = 2.0
FLOOR = 4 * torch.finfo(torch.float32).eps
# float64 engines have no coarser rival to be measured against: twice torch's float32 error at float64's eps, once for the engine
# and once for the oracle's own rounding.
FACTOR_64 = 4.0
RATIO_64 = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Row:
    """One quantity of one case: the engine's error, torch float32's, and what is allowed."""

    case: str
    quantity: str
    error: float
    torch_error: float
    bound: float

    @property
    def ok(self) -> bool:
        return self.error <= self.bound

    def __str__(self) -> str:
        mark = "" if self.ok else "  FAILED"
        return f"{self.case:38} {self.quantity:22} {self.error:9.2e}  torch {self.torch_error:9.2e}  bound {self.bound:9.2e}{mark}"


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
    if case.momentum:
        halves("moments", adapted.state.moments)
    active = torch.ones(1, dtype=torch.bool) if x.schedule.active is None else x.schedule.active
    active = active.expand(len(x.phi), case.steps, 2)
    for player, names in enumerate((("loss_g", "norm_g"), ("loss_d", "norm_d", "fake_mean", "fake_std", "real_mean", "real_std"))):
        for name in names:
            found[f"trace.{name}"] = getattr(adapted.trace, name)[active[..., player]]

    assert adapted.saved is not None
    pulled = engine.pullback(
        adapted.saved,
        _poisoned(x.cotangents, x.support, split),
        state_cotangents=None if x.state_cotangents is None else _poisoned(x.state_cotangents, x.support, split),
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
            else:
                halves(f"{name}#{c}", one)
    plain = engine.pullback(adapted.saved, x.cotangents[0])
    halves("v0.alone", plain.v0)
    if engine.momentum:
        assert plain.state_v0 is not None
        halves("state_v0.alone", plain.state_v0)
    assert plain.d_rate is None and plain.d_scale is None

    z = x.data.noise[:, 0]
    samples = engine.generate(x.phi, z)
    found["samples"] = samples
    pull = engine.generate_vjp(x.phi, z, x.sample_cotangent)
    assert not pull[:, split:].any()
    found["generate_vjp"] = pull[:, :split]
    others = (x.data.real if x.data.indices is None else x.data.real[x.data.indices.long()])[:, 0]
    found["distance"], found["distance.cotangent"] = engine.distance("energy", x.sample_cotangent, others)
    return {name: value.double() for name, value in found.items() if value.numel()}


def _poisoned(v: Tensor, support: list[str], split: int) -> Tensor:
    """Whatever lies in a half that `support` says is zero must not matter."""
    v = v.clone()
    for one, half in zip(v, support, strict=True):
        if half == "G":
            one[:, split:] = math.nan
        elif half == "D":
            one[:, :split] = math.nan
    return v


def _pulled(pulled: Pulled) -> Iterator[tuple[str, Tensor]]:
    for name in ("v0", "state_v0", "d_rate", "d_scale"):
        value = getattr(pulled, name)
        if value is not None:
            yield name, value


def error_of(value: Tensor, exact: Tensor) -> float:
    """RMS error over RMS value, over all draws and elements; absolute where the exact value is zero throughout."""
    if value.shape != exact.shape:
        raise AssertionError(f"expected shape {tuple(exact.shape)}, got {tuple(value.shape)}")
    size = exact.square().mean().sqrt().item()
    error = (value - exact).square().mean().sqrt().item()
    return (error / size if size > 0 else error) if math.isfinite(error) else math.inf


@cache
def inputs_of(case: Case) -> Inputs:
    """A case's inputs, drawn once in a process."""
    return draw(case)


@cache
def exact_of(case: Case) -> Quantities:
    """The float64 oracle's answers."""
    return measure(reference(case, torch.float64), case, inputs_of(case))


@cache
def torch_of(case: Case) -> Quantities:
    """Those of torch's own float32."""
    return measure(reference(case, torch.float32), case, inputs_of(case))


def compare(make: Make, case: Case) -> list[Row]:
    """Runs one engine on one case; a row for every quantity."""
    engine = make(case)
    measured, exact, rival = measure(engine, case, inputs_of(case)), exact_of(case), torch_of(case)
    if measured.keys() != exact.keys():
        raise AssertionError(f"{case.name}: expected {sorted(exact)}, got {sorted(measured)}")
    rows = []
    for name, value in exact.items():
        error, torch_error = error_of(measured[name], value), error_of(rival[name], value)
        if engine.dtype == torch.float64:
            bound = max(FACTOR_64 * torch_error, FLOOR) * RATIO_64
        else:
            bound = max(FACTOR * torch_error, FLOOR)
        rows.append(Row(case.name, name, error, torch_error, bound))
    return rows


def check(make: Make, case: Case) -> None:
    """Fails with a line for each quantity that is too far off."""
    failed = [str(row) for row in compare(make, case) if not row.ok]
    assert not failed, "too far from the oracle:\n" + "\n".join(failed)


def fingerprint(quantities: Quantities) -> int:
    """Of all bits: for tests that say two runs are the same."""
    digest = 0
    for name in sorted(quantities):
        digest = zlib.crc32(quantities[name].contiguous().numpy().tobytes(), zlib.crc32(name.encode(), digest))
    return digest
