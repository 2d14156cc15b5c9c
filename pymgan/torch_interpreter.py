"""Executes an instruction list with torch operations, one for each instruction, over all tasks at once.

The second implementation of the primitives, to be read beside csrc/cpu/interpreter.cpp. It holds no derivative: activations,
losses and their derivatives are evaluated from the formulas that the compiled core exports.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan.frame import Compiled, Frame, Values
from pymgan.spectral import iterated
from pymgan.torch_augment import augmentation_numbers, augmented
from pymgan.torch_formulas import evaluate
from pymgan.torch_spectral import normed, pulled_back, pushed_forward
from pymgan.torch_tables import Tables, normals_of

__all__ = ["Interpreter"]


def _split(samples: Tensor, dimension: int, *sizes: int) -> Tensor:
    """The last dimension in several."""
    return samples.reshape(*samples.shape[:dimension], *sizes)


def _by_site(samples: Tensor, form: Any) -> Tensor:
    """[T, B, features] in torch's order (channel, site) to (site, channel)."""
    return _split(samples, 2, form.channels, form.sites).transpose(2, 3).flatten(2)


def _relative(scores: Tensor, fakes: int) -> Tensor:
    """R s: scores [T, fakes + reals], each less the mean score of the other kind."""
    fake, real = scores[:, :fakes], scores[:, fakes:]
    return torch.cat((fake - real.mean(1, keepdim=True), real - fake.mean(1, keepdim=True)), 1)


def _relative_adjoint(c: Tensor, fakes: int) -> Tensor:
    """R^T c."""
    fake, real = c[:, :fakes], c[:, fakes:]
    of_fake, of_real = fake.sum(1, keepdim=True) / real.shape[1], real.sum(1, keepdim=True) / fake.shape[1]
    return torch.cat((fake - of_real, real - of_fake), 1)


class Interpreter:
    """One procedure on one frame.

    An inactive player's instructions are computed too and their results not used: its update is masked, and its adjoint w is
    zero, in which every later product is linear.
    """

    def __init__(self, compiled: Compiled, tables: Tables, procedure: Any, frame: Frame) -> None:
        self.compiled, self.tables, self.frame = compiled, tables, frame
        self.values, self.code = compiled.listing(procedure)
        self.game, self.tensors, self.windows = compiled.game, compiled.tensors, compiled.windows
        self.z, self.x, self.split = compiled.z, compiled.x, compiled.split
        self.channels, *self.extents = compiled.sample
        self.temps: dict[int, Tensor] = {}
        self.squares = [
            torch.zeros((), dtype=torch.float64, device=compiled.device)
        ] * 2  # of fused updates' gradients, [T] a player

    def run(self) -> None:
        for instr in self.code:
            getattr(self, "_" + instr.op)(instr)

    # ---- operands ----

    def _value(self, ref: Any) -> Tensor:
        value, f = self.values[ref.value], self.frame
        if value.slot == "temp":
            return self.temps[ref.value]
        if value.slot == "residual":
            return f.residual[value.name]
        whole: Tensor = getattr(f, value.slot)
        return whole[value.index] if value.slot in ("cotangent", "v_moment", "d_scale", "gradient") else whole

    def _rows(self, ref: Any, count: int) -> Tensor:
        return self._value(ref)[:, ref.row : ref.row + count]

    def _target(self, ref: Any) -> Tensor:
        """Where an instruction writes: made on first use, NaN until it is written."""
        value, store = self.values[ref.value], self.temps
        if value.slot in ("temp", "residual"):
            key: Any = ref.value
            if value.slot == "residual":
                store, key = self.frame.residual, value.name  # type: ignore[assignment]
            if key not in store:
                phi = self.frame.phi
                shape = {
                    "rows": (value.rows, value.columns),
                    "vector": (value.rows,),
                    "parameters": (phi.shape[1],),
                }[value.shape]
                store[key] = phi.new_full((len(phi), *shape), math.nan)
        return self._value(ref)

    def _write(self, ref: Any, result: Tensor) -> None:
        if ref is not None:
            self._target(ref)[:, ref.row : ref.row + result.shape[1]] = result

    def _weight(self, ref: Any) -> Tensor:
        """[T, n, k], or [T, n, taps, k] of a layer with a window."""
        t = self.tensors[ref.tensor]
        if t.window >= 0:
            weight: Tensor = self._value(ref)[:, self.tables.places[ref.tensor]]
            return weight
        return self._value(ref)[:, t.weight : t.weight + t.n * t.k].view(-1, t.n, t.k)

    def _bias(self, ref: Any) -> Tensor:
        """[T, n * sites], site by site where each has its own."""
        t = self.tensors[ref.tensor]
        bias = self._value(ref)[:, t.bias : t.bias + t.n * t.bias_sites]
        if t.window < 0:
            return bias
        bias = bias.view(-1, t.n, t.bias_sites).transpose(1, 2)
        return bias.expand(-1, self.windows[t.window].forward.out_sites, -1).flatten(1)

    def _part(self, player: int) -> slice:
        return slice(0, self.split) if player == 0 else slice(self.split, None)

    def _seen(self, samples: Tensor, window: int, adjoint: bool = False) -> Tensor:
        """[T, B, out_sites, taps, channels]: what each output site sees of samples [T, B, in_sites * channels]; outside is 0."""
        both = self.windows[window]
        sites = _split(samples, 2, (both.back if adjoint else both.forward).in_sites, -1)
        outside = torch.zeros_like(sites[:, :, :1])
        return torch.cat((sites, outside), 2)[:, :, self.tables.seen[window][adjoint]]

    # ---- instructions ----

    def _finish(self, i: Any, accumulated: Tensor) -> None:
        """Applies the epilogue and stores."""
        self._write(i.pre, accumulated)
        result = accumulated
        if i.apply != "store":
            attributes = {
                f"p{n}": torch.tensor(a, dtype=result.dtype, device=result.device)
                for n, a in enumerate(i.attributes)
            }
            if i.apply == "act":
                variable = "ref" if i.order else "x"
                result = evaluate(
                    _core.activation_formula(i.activation, i.order), {variable: accumulated, **attributes}
                ).expand_as(accumulated)
            else:
                variables = {"ref": self._rows(i.ref, i.rows), **attributes}
                result = evaluate(_core.activation_formula(i.activation, 1), variables) * accumulated
                if i.q is not None:
                    second = evaluate(_core.activation_formula(i.activation, 2), variables)
                    result = result + second * self._rows(i.q, i.rows) * self._rows(i.g, i.rows)
        self._write(i.out, result)

    def _add_dot(self, i: Any, total: Tensor) -> None:
        if i.dot_out is not None:
            along = (self._rows(i.dot, i.rows) * total).sum(-1, keepdim=True)
            self._target(i.dot_out)[:, i.dot_out.row : i.dot_out.row + i.rows] += along

    def _product(self, i: Any) -> None:
        def times(a: Any, weight: Any) -> Tensor:
            w = self._weight(weight)
            if i.window >= 0:
                seen = self._seen(self._rows(a, i.rows), i.window, i.adjoint)
                return torch.einsum("tbosn,tnsk->tbok" if i.adjoint else "tbosk,tnsk->tbon", seen, w).flatten(
                    2
                )
            return torch.bmm(self._rows(a, i.rows), w if i.adjoint else w.transpose(1, 2))

        total = torch.zeros((), dtype=self.frame.phi.dtype, device=self.frame.phi.device)
        if i.a0 is not None:
            total = times(i.a0, i.b0)
            if i.bias is not None:
                total = total + self._bias(i.bias)[:, None]
            self._add_dot(i, total)
            if i.scale is not None:
                total = total * self._rows(i.scale, i.rows)[..., None]
        if i.a1 is not None:
            total = total + times(i.a1, i.b1)
        self._finish(i, total)

    def _numbers(self, ref: Any, bias: bool = False) -> Tensor:
        """[T, 1, elements]: every element's own number of a diagonal tensor. No sample of this engine's is padded."""
        t = self.tensors[ref.tensor]
        at = (t.bias if bias else t.weight) + self.tables.of[ref.tensor]
        return self._value(ref)[:, None, at]

    def _diagonal(self, i: Any) -> None:
        total = torch.zeros((), dtype=self.frame.phi.dtype, device=self.frame.phi.device)
        if i.a0 is not None:
            total = self._rows(i.a0, i.rows) * self._numbers(i.b0)
            if i.bias is not None:
                total = total + self._numbers(i.bias, bias=True)
            self._add_dot(i, total)
            if i.scale is not None:
                total = total * self._rows(i.scale, i.rows)[..., None]
        if i.a1 is not None:
            total = total + self._rows(i.a1, i.rows) * self._numbers(i.b1)
        self._finish(i, total)

    def _fixed(self, i: Any) -> None:
        matrix = self.tables.maps[i.map]
        x = self._rows(i.a0, i.rows)
        self._write(i.out, (x.double() @ (matrix if i.adjoint else matrix.T)).to(x.dtype))

    def _softmax(self, i: Any) -> None:
        x = self._rows(i.a0, i.rows)
        of = self.tables.groups[i.map].expand_as(x)
        groups = x.new_full((*x.shape[:2], int(of.max()) + 1), -math.inf)
        most = groups.scatter_reduce(2, of, x, "amax")
        shifted = (x - most.gather(2, of)).exp()
        sums = torch.zeros_like(groups).scatter_add(2, of, shifted)
        self._write(i.out, shifted / sums.gather(2, of))

    def _outer(self, i: Any) -> None:
        delta, t = self._rows(i.b0, i.rows0), self.tensors[i.out.tensor]
        of = self.tables.of[i.out.tensor]

        def by_number(elements: Tensor) -> Tensor:
            return elements.new_zeros(len(elements), t.n).index_add(1, of, elements)

        def times(delta: Tensor, h: Tensor) -> Tensor:
            if len(of):
                return by_number((delta * h).sum(1))
            if i.window < 0:
                return torch.bmm(delta.transpose(1, 2), h).flatten(1)
            sites = _split(delta, 2, self.windows[i.window].forward.out_sites, -1)
            return torch.einsum("tbon,tbosk->tnsk", sites, self._seen(h, i.window)).flatten(1)

        weight = times(delta, self._rows(i.a0, i.rows0))
        if i.a1 is not None:
            weight = weight + times(self._rows(i.b1, i.rows1), self._rows(i.a1, i.rows1))
        at = self.tables.places[i.out.tensor].flatten()
        if t.window < 0:  # a diagonal's numbers have no outputs and inputs
            at = torch.arange(t.weight, t.weight + t.n * t.k, device=weight.device)
        parts = [(at, weight)]
        if i.out.bias:
            bias = delta.sum(1)
            if len(of):
                bias = by_number(bias)
            elif t.window >= 0:  # site by site: over all of them, or to torch's order
                bias = _split(bias, 1, self.windows[t.window].forward.out_sites, -1)
                bias = (bias.sum(1, keepdim=True) if t.bias_sites == 1 else bias).transpose(1, 2).flatten(1)
            places = torch.arange(t.bias, t.bias + t.n * t.bias_sites, device=bias.device)
            parts.append((places, bias))
        out = self._target(i.out)
        for at, part in parts:
            if i.theta is not None:
                self.squares[i.player] = self.squares[i.player] + part.double().square().sum(1)
                self._descend(i, at, part)
            else:
                out[:, at] = out[:, at] + part if i.accumulate else part

    def _moves(self, player: int) -> Tensor:
        """bool [T, 1], the tasks whose player moves."""
        f = self.frame
        return (f.active[:, player] if f.valid is None else f.active[:, player] & f.valid)[:, None]

    def _descend(self, i: Any, part: slice | Tensor, moved: Tensor) -> None:
        """theta - rate scale moved, for the tasks whose player moves."""
        f, moves = self.frame, self._moves(i.player)
        theta, scale = self._value(i.theta)[:, part], 1.0 if f.rate_scale is None else f.rate_scale[part]
        self._target(i.out)[:, part] = torch.where(
            moves, theta - f.rate[:, i.player, None] * scale * moved, theta
        )

    def _elementwise(self, i: Any) -> None:
        result = self._rows(i.a0, i.rows)
        if i.b0 is not None:
            result = result * self._rows(i.b0, i.rows)
        if i.scale is not None:
            result = result * self._rows(i.scale, i.rows)[..., None]
        if i.a1 is not None:
            result = result + self._rows(i.a1, i.rows)
        self._finish(i, result)

    def _row_dot(self, i: Any) -> None:
        self._write(i.out, (self._rows(i.a0, i.rows) * self._rows(i.b0, i.rows)).sum(-1))

    def _combine(self, i: Any) -> None:
        phi = self.frame.phi
        result, relative = phi.new_zeros(len(phi), i.rows), i.fakes > 0
        if i.a0 is not None:
            change = torch.cat((self._rows(i.b0, i.rows0), phi.new_zeros(len(phi), i.rows - i.rows0)), 1)
            factor = self._rows(i.a0, i.rows if relative else i.rows0)
            change = _relative(change, i.fakes) if relative else change
            result[:, : factor.shape[1]] += factor * change[:, : factor.shape[1]]
        if i.a1 is not None:
            change = self._rows(i.b1, i.rows).sum(-1)
            result += self._rows(i.a1, i.rows) * (_relative(change, i.fakes) if relative else change)
        self._write(i.out, _relative_adjoint(result, i.fakes) if relative else result)

    def _rate(self, i: Any) -> None:
        f = self.frame
        factor = torch.where(f.active[:, i.player], -f.rate[:, i.player], torch.zeros_like(f.rate[:, 0]))[
            :, None
        ]
        self._write(i.out, factor.expand(-1, i.rows) if i.a0 is None else factor * self._rows(i.a0, i.rows))

    def _fill(self, i: Any) -> None:
        self._target(i.out).zero_()

    def _add(self, i: Any) -> None:
        self._target(i.out).add_(self._value(i.a0))

    def _spread(self, i: Any) -> None:
        phi = self.frame.phi
        one = phi.new_ones(len(phi), i.rows) if i.a0 is None else self._rows(i.a0, i.rows)
        self._write(i.out, one[..., None])

    def _noise(self, i: Any) -> None:
        if i.index == 1:
            drawn = self._normals(_core.INSTANCE_NOISE_STREAM, i.rows, i.columns)
            noise = self.game.instance_noise * drawn.to(self.frame.phi)
            self._write(i.out, _by_site(noise, self.x))
            return
        z = self.frame.noise
        if z is None:
            z = self._normals(0, i.rows, i.columns).to(self.frame.phi)
        self._write(i.out, _by_site(z, self.z))

    def _normals(self, stream: int, rows: int, columns: int) -> Tensor:
        return normals_of(self.frame.key, stream, rows, columns)

    def _load(self, i: Any) -> None:
        self._write(i.out, _by_site(self.frame.real, self.x))

    def _input(self, i: Any) -> None:
        self._write(i.out, _by_site(self.frame.inputs[i.index], self.z if i.index == 0 else self.x))

    def _output(self, i: Any) -> None:
        sites = _split(self._rows(i.a0, i.rows), 2, self.x.sites, self.x.channels)
        self.frame.output = sites.transpose(2, 3).flatten(2)

    def _head(self, i: Any) -> None:
        score = self._rows(i.a0, i.rows)[..., 0]
        relative = _core.relative(self.game.loss)
        scored = score[:, : i.fakes], score[:, i.fakes :]
        if relative:
            score = _relative(score, i.fakes)
        fake, real = score[:, : i.fakes], score[:, i.fakes :]

        def term(scores: Tensor, name: str, order: int) -> Tensor:
            smoothing = torch.tensor(self.game.smoothing, dtype=score.dtype, device=score.device)
            formula = _core.loss_formula(self.game.loss.name, name, order)
            return evaluate(formula, {"s": scores, "e": smoothing}).expand_as(scores) / max(
                scores.shape[1], 1
            )

        for order, *outputs in ((1, i.c_g, i.c_d), (2, i.cc_g, i.cc_d)):
            for out, of_fake, of_real in zip(outputs, ("g", "d_fake"), ("g_real", "d_real"), strict=True):
                if out is not None:
                    c = torch.cat((term(fake, of_fake, order), term(real, of_real, order)), 1)
                    self._write(out, _relative_adjoint(c, i.fakes) if relative and order == 1 else c)
        if i.stats is None:
            return
        trace = self._looked_at(i)
        if i.index & 1:
            trace[:, 0] = term(fake, "g", 0).sum(1) + term(real, "g_real", 0).sum(1)
            self._judge(0, trace[:, 0])
        if i.index & 2:
            trace[:, 1] = term(fake, "d_fake", 0).sum(1) + term(real, "d_real", 0).sum(1)
            trace[:, 4:8] = torch.stack([s for x in scored for s in (x.mean(1), x.std(1, correction=0))], 1)
            self._judge(1, trace[:, 1])

    def _looked_at(self, i: Any) -> Tensor:
        return self.frame.trace if i.traced else torch.zeros_like(self.frame.trace)

    def _mix(self, i: Any) -> None:
        z = self._normals(_core.MIX_STREAM, 1, i.rows)[:, 0]
        u: Tensor = torch.special.ndtr(z).to(self.frame.phi)
        self._write(i.c_g, u)
        self._write(i.c_d, 1 - u)

    def _draw(self, i: Any) -> None:
        z = self._normals(_core.AUGMENT_STREAM, max(i.fakes, i.reals), i.columns)
        numbers = augmentation_numbers(torch.special.ndtr(z), self.game.augmentation, self.extents)
        both = torch.cat((numbers[:, : i.fakes], numbers[:, : i.reals]), 1)
        self._write(i.out, both.to(self.frame.phi))

    def _augment(self, i: Any) -> None:
        samples, sites = self._rows(i.a0, i.rows), math.prod(self.extents)
        by_site = self.x.sites == sites  # flat samples have torch's order
        sizes = (sites, self.channels) if by_site else (self.channels, sites)
        samples = _split(samples, 2, *sizes)
        result = augmented(
            samples.transpose(2, 3) if by_site else samples,
            self._rows(i.b0, i.rows),
            self.game.augmentation,
            self.extents,
            adjoint=i.adjoint,
            brighter=i.bias is not None,
        )
        self._write(i.out, (result.transpose(2, 3) if by_site else result).flatten(2))

    def _penalty(self, i: Any) -> None:
        norm2, f = self._rows(i.a0, i.rows), self.frame
        share = f.penalised.to(norm2)[:, None] * (self.game.penalty_weight * self.game.penalty_every / i.rows)
        epsilon = torch.tensor(_core.PENALTY_EPSILON, dtype=norm2.dtype, device=norm2.device)

        def term(order: int) -> Tensor:
            formula = _core.penalty_formula(self.game.penalty, order)
            return evaluate(formula, {"n": norm2, "eps": epsilon}).expand_as(norm2)

        self._write(i.c_d, 2 * share * term(1))
        self._write(i.cc_d, 4 * share * term(2))
        if i.stats is not None:
            loss = self._looked_at(i)[:, 1]
            loss += (share * term(0)).sum(1)
            self._judge(1, loss)

    def _judge(self, player: int, numbers: Tensor) -> None:
        """Tasks whose number is not finite stop, if the player is active."""
        f = self.frame
        if f.valid is not None:
            inactive = ~f.active[:, player] if len(f.active) else torch.zeros_like(f.valid)
            f.valid &= torch.isfinite(numbers) | inactive

    def _check(self, i: Any) -> None:
        if i.a0 is None:
            norm = self.squares[i.player].sqrt()
        else:
            norm = torch.linalg.vector_norm(self._value(i.a0)[:, self._part(i.player)].double(), dim=1)
        self._looked_at(i)[:, 2 + i.player] = norm.to(self.frame.trace.dtype)
        self._judge(i.player, norm)

    # ---- spectral norms ----

    def _matrices(self, ref: Any) -> list[Tensor]:
        """[T, n, taps * k] of each layer that has one, of a parameter-shaped value."""
        value, tensors = self._value(ref), [norm.tensor for norm in self.compiled.spectral]
        return [value[:, self.tables.places[t].flatten(1)] for t in tensors]

    def _vectors(self, ref: Any) -> list[tuple[Tensor, Tensor]]:
        """u [T, n] and v [T, taps * k] of each."""
        both, tensors = self._value(ref), self.tensors
        return [
            (
                both[:, s.u : s.u + tensors[s.tensor].n],
                both[:, s.v : s.v + tensors[s.tensor].taps * tensors[s.tensor].k],
            )
            for s in self.compiled.spectral
        ]

    def _put(self, ref: Any, matrices: list[Tensor], others: Tensor, accumulate: bool = False) -> None:
        """D's part: weights under a spectral norm from `matrices`, everything else from `others` [T, P]."""
        whole = others.clone()
        for norm, matrix in zip(self.compiled.spectral, matrices, strict=True):
            whole[:, self.tables.places[norm.tensor].flatten(1)] = matrix
        part = self._part(1)
        target = self._target(ref)
        target[:, part] = whole[:, part] + (target[:, part] if accumulate else 0.0)

    def _spectral_iterate(self, i: Any) -> None:
        pairs = zip(self.compiled.spectral, self._matrices(i.theta), self._vectors(i.a0), strict=True)
        both = [x for norm, w, (u, _) in pairs for x in iterated(w, u, norm.iterations, norm.eps)]
        self._write(i.out, torch.cat(both, 1))

    def _spectral_weights(self, i: Any) -> None:
        pairs = zip(self._matrices(i.theta), self._vectors(i.q), strict=True)
        used, sigma = zip(*(normed(w, *uv) for w, uv in pairs), strict=True)
        self._put(i.out, list(used), self._value(i.theta))
        self._write(i.pre, torch.stack(sigma, 1))

    def _spectral_tangent(self, i: Any) -> None:
        sigma = self._value(i.ref).unbind(1)
        pairs = zip(self._matrices(i.a0), self._matrices(i.b0), sigma, self._vectors(i.q), strict=True)
        along, d_sigma = zip(*(pushed_forward(w, used, s, *uv) for w, used, s, uv in pairs), strict=True)
        self._put(i.out, list(along), self._value(i.a0))
        self._write(i.pre, torch.stack(d_sigma, 1))

    def _spectral_adjoint(self, i: Any) -> None:
        sigma, cotangents = self._value(i.ref).unbind(1), self._matrices(i.a0)
        changes: list[Any] = [None] * len(sigma)
        if i.a1 is not None:
            slopes, along = self._matrices(i.a1), self._matrices(i.b1)
            changes = list(zip(slopes, along, self._value(i.g).unbind(1), strict=True))
        pairs = zip(cotangents, self._matrices(i.b0), sigma, self._vectors(i.q), changes, strict=True)
        result = [pulled_back(h, used, s, *uv, change) for h, used, s, uv, change in pairs]
        self._put(i.out, result, self._value(i.a0), i.accumulate)

    # ---- the optimisers ----

    def _first(self, player: int) -> Tensor:
        """bool [T, 1], the tasks in which the player has no moments from before."""
        return self.frame.number[:, player, None] == 1

    def _moments(self, ref: Any, player: int) -> list[Tensor]:
        """Views [T, P_player] of the moments, or of their cotangents; empty where there are none."""
        if ref is None:
            return []
        whole, size = self._value(ref), self.frame.phi.shape[1]
        starts = range(0, whole.shape[1], size)
        return [whole[:, start : start + size][:, self._part(player)] for start in starts]

    def _knobs(self, player: int) -> Values:
        """What formulas know beside gradient and moments; see csrc/optimisers.h."""
        f, dtype, number = self.frame, self.frame.phi.dtype, self.frame.number[:, player, None].double()
        knobs = {"momentum": self.game.momentum, "eps": self.game.eps, "past": (number > 1).double()}
        for i, beta in enumerate(self.game.betas, 1):
            knobs |= {f"beta{i}": beta, f"rest{i}": 1 - beta, f"bias{i}": 1 - beta**number}
        return {
            name: torch.as_tensor(value, dtype=dtype, device=f.phi.device) for name, value in knobs.items()
        }

    def _evaluate(self, part: str, variables: Values, otherwise: Tensor) -> Tensor:
        """A part of every task's own optimiser, [T, P_player]."""
        result = otherwise
        for index, kind in enumerate(self.game.optimisers):
            value = evaluate(_core.optimiser_formula(kind, part), variables)
            mine = (self.frame.kind == index)[:, None]
            result = torch.where(mine, value, result)
        return result

    def _gradient(self, i: Any) -> Values:
        """The variables of an update: its player's gradient, the moments before it and the knobs."""
        variables, first = self._knobs(i.player), self._first(i.player)
        zero = torch.zeros((), dtype=self.frame.phi.dtype, device=self.frame.phi.device)
        variables |= {"F": zero, "m0": zero, "m1": zero, "norm": zero, "along": zero}
        if i.a0 is not None:
            gradient = self._value(i.a0)[:, self._part(i.player)]
            square = gradient.double().square().sum(1, keepdim=True)
            variables |= {"F": gradient, "norm": (square + self.game.eps).sqrt().to(gradient.dtype)}
        for n, moment in enumerate(self._moments(i.moment, i.player)):
            variables[f"m{n}"] = moment.where(~first, zero)
        return variables

    def _update(self, i: Any) -> None:
        if i.a0 is None:  # the fused updates have carried an inactive player's parameters over
            return
        variables, moves = self._gradient(i), self._moves(i.player)
        gradient = variables["F"]
        self._descend(i, self._part(i.player), self._evaluate("direction", variables, gradient))
        if i.moment_next is None:
            return
        both = zip(self._moments(i.moment, i.player), self._moments(i.moment_next, i.player), strict=True)
        for n, (moment, next_moment) in enumerate(both):
            used = self._has_moment(n)
            value = self._evaluate(f"m{n}", variables, moment)
            next_moment.copy_(torch.where(moves & used, value, moment))

    def _has_moment(self, n: int) -> Tensor:
        """bool [T, 1], the tasks whose optimiser has a moment n."""
        sizes = [_core.optimiser_moments(kind) for kind in self.game.optimisers]
        return torch.tensor([size > n for size in sizes], device=self.frame.kind.device)[self.frame.kind][
            :, None
        ]

    def _adjoint(self, i: Any) -> None:
        f, part = self.frame, self._part(i.player)
        active = f.active[:, i.player, None]
        rate, scale = f.rate[:, i.player, None], 1.0 if f.rate_scale is None else f.rate_scale[part]
        v, variables = self._value(i.v)[:, part], self._gradient(i)
        a = variables["a"] = -rate * scale * v
        zero = torch.zeros_like(v)
        direction = self._evaluate("direction", variables, zero)
        variables["along"] = (a.double() * direction.double()).sum(1, keepdim=True).to(a.dtype)
        v_moments = self._moments(i.v_moment, i.player)
        for n in range(2):
            variables[f"v{n}"] = v_moments[n].clone() if n < len(v_moments) else zero
        self._target(i.out)[:, part] = torch.where(active, self._evaluate("w", variables, zero), zero)
        for n, v_moment in enumerate(v_moments):
            used = self._has_moment(n)
            value = self._evaluate(f"v{n}", variables, zero).where(~self._first(i.player), zero)
            v_moment.copy_(torch.where(active & used, value, v_moment))
        if i.d_scale is not None:
            along = torch.where(active, direction * v, zero)
            f.d_rate[i.index, :, i.player] -= (scale * along).sum(1)
            self._value(i.d_scale)[:, part] -= rate * along
