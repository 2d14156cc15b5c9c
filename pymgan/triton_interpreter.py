"""Executes an instruction list with Triton kernels, one or a few launches for each instruction, over all tasks at once.

To be read beside torch_interpreter.py. It holds no derivative and no arithmetic: an instruction's method finds its operands and
launches. Parameter-shaped values lie in torch's flat order, like phi at the boundary, so nothing is packed on the way in or
out; all other temporary values of a run lie in one arena [T, elements], at the offsets of the program.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import pymgan._core as _core
from pymgan._kernels import diagonal as diagonals
from pymgan._kernels import maps, noise, rows, scores, spectral, sums, updates
from pymgan._kernels.augment import augment
from pymgan._kernels.epilogue import Epilogue
from pymgan._kernels.launch import INTERPRETED
from pymgan._kernels.outer import Descent, Target, outer
from pymgan._kernels.product import product
from pymgan._kernels.scores import Watch
from pymgan.frame import Compiled, Frame
from pymgan.triton_tables import TritonTables

__all__ = ["TritonInterpreter"]


def _by_site(samples: Tensor, form: Any) -> Tensor:
    """[T, B, features] in torch's order (channel, site) to (site, channel)."""
    channels_first = samples.reshape(*samples.shape[:2], form.channels, form.sites)
    return channels_first.transpose(2, 3).flatten(2)


def _bytes(x: Tensor) -> Tensor:
    """Of bools, for kernels."""
    return x.contiguous().view(torch.uint8)


class TritonInterpreter:
    """One procedure on one frame.

    An inactive player's instructions are computed too and their results not used: its update is masked, and its adjoint w is
    zero, in which every later product is linear.
    """

    def __init__(self, compiled: Compiled, tables: TritonTables, procedure: Any, frame: Frame) -> None:
        self.compiled, self.tables, self.frame = compiled, tables, frame
        self.game, self.tensors = compiled.game, compiled.tensors
        self.values, self.code = compiled.listing(procedure)
        self.tasks, self.parameters = frame.phi.shape
        self.arena = self._empty(procedure.arena)
        self.temps: dict[int, Tensor] = {}  # those that are parameter-shaped
        self.squares: tuple[list[Tensor], list[Tensor]] = ([], [])  # partial sums of fused updates, a player
        self.rate, self.number = frame.rate.contiguous(), frame.number.to(frame.phi).contiguous()
        self.active = _bytes(frame.active) if len(frame.active) else None
        self.valid = None if frame.valid is None else _bytes(frame.valid)
        self.penalised = _bytes(frame.penalised)
        self.kind = tables.kinds[frame.kind] if len(frame.kind) else frame.kind

    def run(self) -> None:
        for instr in self.code:
            getattr(self, "_" + instr.op)(instr)
        if self.frame.valid is not None and self.valid is not None:
            self.frame.valid.copy_(self.valid)

    # ---- operands ----

    def _empty(self, *shape: int) -> Tensor:
        """[T, ...]; in Triton's interpreter, where it costs nothing, NaN until it is written."""
        new = self.frame.phi.new_empty(self.tasks, *shape)
        return new.fill_(math.nan) if INTERPRETED else new

    def _value(self, ref: Any) -> Tensor:
        value, f = self.values[ref.value], self.frame
        shape = (value.rows, value.columns) if value.shape == "rows" else (value.rows,)
        if value.slot == "temp" and value.shape != "parameters":
            inside = self.arena[:, value.offset : value.offset + math.prod(shape)]
            return inside.view(self.tasks, *shape)
        if value.slot in ("temp", "residual"):
            store: dict[Any, Tensor] = self.temps if value.slot == "temp" else f.residual
            key = ref.value if value.slot == "temp" else value.name
            if key not in store:
                store[key] = self._empty(*((self.parameters,) if value.shape == "parameters" else shape))
            return store[key]
        whole: Tensor = getattr(f, value.slot)
        return whole[value.index] if value.slot in ("cotangent", "v_moment", "d_scale", "gradient") else whole

    # Operands may be absent, and are None then; which of them may is known where they are used.

    def _rows(self, ref: Any, count: int) -> Any:
        """[T, count, columns], or [T, count] of a vector."""
        return None if ref is None else self._value(ref)[:, ref.row : ref.row + count]

    def _numbers(self, ref: Any, count: int) -> Any:
        """[T, count], one number a sample, also of rows with one column."""
        found = self._rows(ref, count)
        return found[..., 0] if found is not None and found.ndim == 3 else found

    def _weight(self, ref: Any) -> Any:
        """A parameter-shaped value from a tensor's weight on; `_bias`: from its bias on."""
        return None if ref is None else self._value(ref)[:, self.tensors[ref.tensor].weight :]

    def _bias(self, ref: Any) -> Any:
        return None if ref is None else self._value(ref)[:, self.tensors[ref.tensor].bias :]

    def _part(self, player: int) -> slice:
        return slice(0, self.compiled.split) if player == 0 else slice(self.compiled.split, None)

    def _epilogue(self, i: Any) -> Epilogue:
        out = self._rows(i.out, i.rows)
        return Epilogue(
            self._scratch(i) if out is None else out,
            i.apply,
            i.activation.name,
            i.attributes,
            i.order,
            *(self._rows(ref, i.rows) for ref in (i.ref, i.q, i.g, i.pre)),
        )

    def _scratch(self, i: Any) -> Tensor:
        """Where a result goes that nobody reads: a product for its dot alone."""
        return self._empty(i.rows, i.columns)

    def _watch(self, i: Any) -> Watch:
        return Watch(self.frame.trace if i.traced else None, self.valid, self.active)

    # ---- products ----

    def _product(self, i: Any) -> None:
        ref = i.b0 or i.b1
        window = self.tables.flat if i.window < 0 else self.tables.windows[i.window][i.adjoint]
        product(
            self._rows(i.a0, i.rows),
            self._weight(i.b0),
            self._rows(i.a1, i.rows),
            self._weight(i.b1),
            self.tables.weights[ref.tensor],
            window,
            self._epilogue(i),
            adjoint=i.adjoint,
            bias=self._bias(i.bias),
            scale=self._numbers(i.scale, i.rows),
            dot=self._rows(i.dot, i.rows) if i.dot_out is not None else None,
            dot_out=self._numbers(i.dot_out, i.rows),
            precision=self.tables.precision,
        )

    def _diagonal(self, i: Any) -> None:
        diagonals.diagonal(
            self._rows(i.a0, i.rows),
            self._weight(i.b0),
            self._rows(i.a1, i.rows),
            self._weight(i.b1),
            self.tables.of[(i.b0 or i.b1).tensor],
            self._epilogue(i),
            bias=self._bias(i.bias),
            scale=self._numbers(i.scale, i.rows),
            dot=self._rows(i.dot, i.rows) if i.dot_out is not None else None,
            dot_out=self._numbers(i.dot_out, i.rows),
        )

    def _outer(self, i: Any) -> None:
        t, rows0, rows1 = self.tensors[i.out.tensor], i.rows0, i.rows1
        b0, a0, b1, a1 = (
            self._rows(ref, count)
            for ref, count in ((i.b0, rows0), (i.a0, rows0), (i.b1, rows1), (i.a1, rows1))
        )
        descent = None
        if i.theta is not None:
            rate, moves = self.rate[:, i.player], self._moves(i.player)
            descent = Descent(self._value(i.theta), self.frame.rate_scale, rate, moves)
        whole = Target(self._value(i.out), i.accumulate, descent)
        target, bias = whole.part(t.weight), whole.part(t.bias) if i.out.bias else None
        elements = self.tables.elements[i.out.tensor]
        if elements is None:
            window = self.tables.flat if i.window < 0 else self.tables.windows[i.window][0]
            weight = self.tables.weights[i.out.tensor]
            squares = outer(b0, a0, b1, a1, weight, window, target, bias, precision=self.tables.precision)
        else:
            found = [diagonals.diagonal_outer(b0, a0, b1, a1, elements, target)]
            if bias is not None:
                found.append(diagonals.diagonal_outer(b0, None, None, None, elements, bias))
            squares = [each for each in found if each is not None]
        self.squares[i.player].extend(squares)

    def _fixed(self, i: Any) -> None:
        maps.fixed(self._rows(i.a0, i.rows), self.tables.maps[i.map][i.adjoint], self._rows(i.out, i.rows))

    def _softmax(self, i: Any) -> None:
        maps.softmax(self._rows(i.a0, i.rows), self.tables.groups[i.map], self._rows(i.out, i.rows))

    # ---- samples ----

    def _elementwise(self, i: Any) -> None:
        a0, b0, a1 = (self._rows(ref, i.rows) for ref in (i.a0, i.b0, i.a1))
        rows.elementwise(a0, b0, self._numbers(i.scale, i.rows), a1, self._epilogue(i))

    def _row_dot(self, i: Any) -> None:
        rows.row_dot(self._rows(i.a0, i.rows), self._rows(i.b0, i.rows), self._numbers(i.out, i.rows))

    def _spread(self, i: Any) -> None:
        rows.spread(self._numbers(i.a0, i.rows), self._rows(i.out, i.rows))

    def _rate(self, i: Any) -> None:
        source, out = self._numbers(i.a0, i.rows), self._numbers(i.out, i.rows)
        rows.rate(source, self.rate[:, i.player], self._active(i.player), out)

    def _fill(self, i: Any) -> None:
        self._value(i.out).zero_()

    def _add(self, i: Any) -> None:
        rows.add(self._value(i.a0), self._value(i.out))

    def _put(self, ref: Any, samples: Tensor) -> None:
        """The caller's rows, by torch: a copy."""
        out = self._rows(ref, samples.shape[1])
        if out is not None:
            out.copy_(samples)

    def _load(self, i: Any) -> None:
        self._put(i.out, _by_site(self.frame.real, self.compiled.x))

    def _input(self, i: Any) -> None:
        form = self.compiled.z if i.index == 0 else self.compiled.x
        self._put(i.out, _by_site(self.frame.inputs[i.index], form))

    def _output(self, i: Any) -> None:
        x = self.compiled.x
        sites = self._rows(i.a0, i.rows).reshape(self.tasks, i.rows, x.sites, x.channels)
        self.frame.output = sites.transpose(2, 3).flatten(2)

    def _noise(self, i: Any) -> None:
        stream, form, factor = 0, self.compiled.z, 1.0
        if i.index == 1:
            stream, form, factor = _core.INSTANCE_NOISE_STREAM, self.compiled.x, self.game.instance_noise
        elif self.frame.noise is not None:
            return self._put(i.out, _by_site(self.frame.noise, form))
        noise.normals(self.frame.key, stream, self._rows(i.out, i.rows), form.sites, factor)

    def _mix(self, i: Any) -> None:
        u, rest = self._numbers(i.c_g, i.rows), self._numbers(i.c_d, i.rows)
        noise.mix(self.frame.key, _core.MIX_STREAM, u, rest, i.rows)

    def _draw(self, i: Any) -> None:
        out, t = self._rows(i.out, i.fakes + i.reals), self.tables
        noise.draw(self.frame.key, _core.AUGMENT_STREAM, t.choices, t.least, out, i.fakes)

    def _augment(self, i: Any) -> None:
        augment(
            self._rows(i.a0, i.rows),
            self._rows(i.b0, i.rows),
            self.tables.augmentation,
            self._rows(i.out, i.rows),
            adjoint=i.adjoint,
            brighter=i.bias is not None,
        )

    # ---- scores ----

    def _combine(self, i: Any) -> None:
        relative = i.fakes > 0
        a0 = self._numbers(i.a0, i.rows if relative else i.rows0)
        b0, a1 = self._numbers(i.b0, i.rows0) if i.a0 is not None else None, self._numbers(i.a1, i.rows)
        b1, out = self._numbers(i.b1, i.rows) if i.a1 is not None else None, self._numbers(i.out, i.rows)
        scores.combine(a0, b0, a1, b1, out, fakes=i.fakes)

    def _head(self, i: Any) -> None:
        scores.head(
            self._numbers(i.a0, i.rows),
            [self._numbers(ref, i.rows) for ref in (i.c_g, i.c_d, i.cc_g, i.cc_d)],
            self._watch(i),
            fakes=i.fakes,
            reals=i.reals,
            loss=self.game.loss.name,
            smoothing=self.game.smoothing,
            relative=_core.relative(self.game.loss),
            players=0 if i.stats is None else i.index,
        )

    def _penalty(self, i: Any) -> None:
        scores.penalty(
            self._numbers(i.a0, i.rows),
            self.penalised,
            self._numbers(i.c_d, i.rows),
            self._numbers(i.cc_d, i.rows),
            None if i.stats is None else self._watch(i),
            kind=self.game.penalty.name,
            weight=self.game.penalty_weight * self.game.penalty_every,
            epsilon=_core.PENALTY_EPSILON,
        )

    def _check(self, i: Any) -> None:
        if i.a0 is not None:
            gradient = self._value(i.a0)[:, self._part(i.player)]
            square = sums.dots(gradient, gradient)
        else:
            square = self.frame.phi.new_empty(self.tasks, 1, dtype=torch.float64)
            sums.add_partials(torch.cat(self.squares[i.player], 1), square, add=False)
        scores.check(square, self._watch(i), i.player)

    # ---- updates ----

    def _active(self, player: int) -> Tensor:
        """uint8 [T]."""
        if self.active is None:
            raise RuntimeError("expected a frame that says which players are active, got one without")
        return self.active[:, player]

    def _moves(self, player: int) -> Tensor:
        """uint8 [T], the tasks whose player moves."""
        active = self._active(player)
        return active.contiguous() if self.valid is None else active & self.valid

    def _moments(self, ref: Any, player: int) -> list[Tensor]:
        """[T, P_player] each, of the moments or of their cotangents; none where there are none."""
        if ref is None:
            return []
        whole = self._value(ref)
        starts = range(0, whole.shape[1], self.parameters)
        return [whole[:, start : start + self.parameters][:, self._part(player)] for start in starts]

    def _player(self, i: Any, gradient: Tensor | None, moves: Tensor) -> updates.Player:
        scale = None if self.frame.rate_scale is None else self.frame.rate_scale[self._part(i.player)]
        square = None
        if gradient is not None and "normalised" in self.game.optimisers:
            square = sums.dots(gradient, gradient)
        rate, number = self.rate[:, i.player], self.number[:, i.player]
        return updates.Player(rate, self.kind, number, moves, scale, square)

    def _gradient(self, i: Any) -> Tensor | None:
        return None if i.a0 is None else self._value(i.a0)[:, self._part(i.player)]

    def _update(self, i: Any) -> None:
        gradient, part = self._gradient(i), self._part(i.player)
        if gradient is None:  # the fused updates have carried an inactive player's parameters over
            return
        updates.update(
            gradient,
            self._value(i.theta)[:, part],
            self._value(i.out)[:, part],
            self._moments(i.moment, i.player),
            self._moments(i.moment_next, i.player),
            self._player(i, gradient, self._moves(i.player)),
            self.tables.optimisers,
        )

    def _adjoint(self, i: Any) -> None:
        gradient, part = self._gradient(i), self._part(i.player)
        player = self._player(i, gradient, self._active(i.player))
        v = self._value(i.v)[:, part]
        along = None
        if gradient is not None and player.square is not None:
            along = sums.dots(v, gradient, player.scale)
        partial = updates.adjoint(
            gradient,
            v,
            self._value(i.out)[:, part],
            self._moments(i.moment, i.player),
            self._moments(i.v_moment, i.player),
            player,
            self.tables.optimisers,
            along=along,
            d_scale=None if i.d_scale is None else self._value(i.d_scale)[:, part],
        )
        if partial is not None:
            sums.add_partials(partial, self.frame.d_rate[i.index, :, i.player, None], sign=-1)

    # ---- spectral norms ----

    def _vectors(self, ref: Any) -> list[tuple[Tensor, Tensor]]:
        """u [T, n] and v [T, k] of each norm."""
        both, matrices = self._value(ref), self.tables.matrices
        return [
            (both[:, norm.u : norm.u + m.n], both[:, norm.v : norm.v + m.k])
            for norm, m in zip(self.compiled.spectral, matrices, strict=True)
        ]

    def _others(self, ref: Any, source: Tensor, accumulate: bool = False) -> Tensor:
        """D's parameters without those under a norm go from `source` to a value, which is returned."""
        out = self._value(ref)
        start = self.compiled.split
        runs = sorted((m.first, m.first + m.n * m.k) for m in self.tables.matrices)
        for first, last in [*runs, (self.parameters, self.parameters)]:
            if first > start:
                to, part = out[:, start:first], source[:, start:first]
                rows.add(part, to) if accumulate else to.copy_(part)
            start = last
        return out

    def _sigma(self, ref: Any) -> list[Tensor]:
        """Of each norm, float64 [T]."""
        return list(self._value(ref).double().T.contiguous())

    def _spectral_iterate(self, i: Any) -> None:
        theta, before, after = self._value(i.theta), self._vectors(i.a0), self._vectors(i.out)
        norms = zip(self.compiled.spectral, self.tables.matrices, before, after, strict=True)
        for norm, matrix, (u, _), (next_u, next_v) in norms:
            next_u.copy_(u)
            for _ in range(norm.iterations):
                spectral.normalised_product(theta, next_u, matrix, next_v, norm.eps, transposed=True)
                spectral.normalised_product(theta, next_v, matrix, next_u, norm.eps, transposed=False)

    def _spectral_weights(self, i: Any) -> None:
        theta = self._value(i.theta)
        out = self._others(i.out, theta)
        for n, (matrix, (u, v)) in enumerate(zip(self.tables.matrices, self._vectors(i.q), strict=True)):
            sigma = spectral.along(theta, u, v, matrix)
            spectral.quotient(theta, sigma, matrix, out)
            self._value(i.pre)[:, n].copy_(sigma)

    def _spectral_tangent(self, i: Any) -> None:
        w, used = self._value(i.a0), self._value(i.b0)
        out = self._others(i.out, w)
        pairs = zip(self.tables.matrices, self._sigma(i.ref), self._vectors(i.q), strict=True)
        for n, (matrix, sigma, (u, v)) in enumerate(pairs):
            d_sigma = spectral.along(w, u, v, matrix)
            spectral.quotient(w, sigma, matrix, out, less=(d_sigma, used))
            self._value(i.pre)[:, n].copy_(d_sigma)

    def _spectral_adjoint(self, i: Any) -> None:
        cotangent, used = self._value(i.a0), self._value(i.b0)
        out = self._others(i.out, cotangent, i.accumulate)
        pairs = zip(self.tables.matrices, self._sigma(i.ref), self._vectors(i.q), strict=True)
        for n, (matrix, sigma, (u, v)) in enumerate(pairs):
            of_r, less = sums.dots(matrix.run(used), matrix.run(cotangent)), None
            if i.a1 is not None:
                slope, along = self._value(i.a1), self._value(i.b1)
                share = self._sigma(i.g)[n] / sigma
                less = (share, slope)
                of_r = of_r + sums.dots(matrix.run(along), matrix.run(slope))
                of_r = of_r - share * sums.dots(matrix.run(used), matrix.run(slope))
            spectral.quotient(
                cotangent, sigma, matrix, out, less=less, outer=(of_r, u, v), accumulate=i.accumulate
            )
