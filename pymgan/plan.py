"""The plan compiler: two ``nn.Sequential`` become the record that the lowering reads.

One function per layer type turns a module and the shape before it into a row. The table of those functions is also
the list of what is supported, so the two cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import pymgan._core as _core
import pymgan.plan_layers as plan_layers
import pymgan.spectral as spectral
from pymgan.gan import GAN
from pymgan.nn import Residual

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What the compiler made of a GAN. ``print(plan)`` is a table.

    Attributes:
        core: the validated record, owned by C++.
        latent: shape of one latent sample z.
        sample: shape of one generated sample: the generator's output, and the discriminator's input.
        parameters: P, the length of ``parameters_to_vector(G) ++ parameters_to_vector(D)``.
        generator_parameters: how many of them are G's; they come first.
        norms: the discriminator's spectral norms, each with its weight's offset.
    """

    core: Any
    latent: Shape
    sample: Shape
    norms: tuple[tuple[int, spectral.Norm], ...]

    @property
    def parameters(self) -> int:
        return int(self.core.parameters)

    @property
    def generator_parameters(self) -> int:
        return int(self.core.generator_parameters)

    def spectral(self, phi: Tensor | None = None) -> Tensor:
        """u of all spectral norms, one after the other [1, U]: as the modules have them, or settled at phi [T, P], [T, U]."""
        parts = [torch.zeros(1 if phi is None else len(phi), 0)]
        for weight, norm in self.norms:
            size = math.prod(norm.shape)
            parts.append(norm.u[None] if phi is None else norm.settled(phi[:, weight : weight + size]))
        return torch.cat([part.to(parts[-1]) for part in parts], 1)

    def __str__(self) -> str:
        lines = [f"{'':3}{'layer':34}{'input':>14}{'output':>14}{'weight at':>11}{'bias at':>11}"]
        for title, network in (
            ("generator", self.core.generator),
            ("discriminator", self.core.discriminator),
        ):
            lines.append(f"{title} ({'x'.join(map(str, network.in_shape))})")
            for row in network.rows:
                cells = ("x".join(map(str, row.in_shape)), "x".join(map(str, row.out_shape)))
                offsets = tuple("" if at < 0 else str(at) for at in (row.weight, row.bias))
                lines.append(
                    f"{'':3}{row.name:34}{cells[0]:>14}{cells[1]:>14}{offsets[0]:>11}{offsets[1]:>11}"
                )
        lines.append(
            f"{self.parameters} parameters: {self.generator_parameters} of the generator, "
            f"{self.parameters - self.generator_parameters} of the discriminator"
        )
        return "\n".join(lines)


class Compiler:
    """Walks one network, keeping the row whose output is the next one's input, its shape and the offset into the flat parameter
    vector."""

    def __init__(self, network: str, shape: Shape, offset: int, seen: dict[int, tuple[str, str]]) -> None:
        self.network = network
        self.shape = shape
        self.offset = offset
        self.rows: list[Any] = []
        self.at = -1
        # By parameter, the network and the layer that have it: the compilers of both networks share this.
        self.seen = seen
        self.name = ""
        self.norms: list[tuple[int, spectral.Norm]] = []
        self.norm: spectral.Norm | None = None  # of the layer at hand
        self.fields: dict[str, Any] = {}  # of the row that is added next

    def fail(self, expected: str, got: str, name: str | None = None) -> ValueError:
        """Of the layer at hand, or of that name; "" is the network itself."""
        name = self.name if name is None else name
        place = f"{self.network} layer {name}" if name else self.network
        return ValueError(f"[plan] {place}: expected {expected}, got {got}")

    def add(self, kind: str, out_shape: Shape, **fields: Any) -> None:
        self.rows.append(
            _core.PlanRow(
                kind=kind,
                name=self.name,
                input=self.at,
                in_shape=list(self.shape),
                out_shape=list(out_shape),
                **fields,
                **self.fields,
            )
        )
        self.fields = {}
        self.at = len(self.rows) - 1
        self.shape = out_shape

    def take(self, count: int) -> int:
        at = self.offset
        self.offset += count
        return at

    def parameters_of(self, m: Any) -> tuple[int, int]:
        """The offsets of a layer's weight and bias (-1: none)."""
        offsets = {}
        for name, parameter in m.named_parameters():
            here = (self.network, self.name)
            if (first := self.seen.setdefault(id(parameter), here)) != here:
                of = "" if first[0] == self.network else f" of the {first[0]}"
                raise self.fail("parameters of its own", f"parameters shared with layer {first[1]}{of}")
            offsets[name] = self.take(parameter.numel())
        bias = offsets.pop("bias", -1)
        (weight,) = offsets.values()  # under another name where it is parametrized
        if self.norm is not None:
            self.norms.append((weight, self.norm))
        return weight, bias

    def walk(self, sequential: nn.Sequential, prefix: str) -> None:
        """Adds the rows of every layer; `prefix` is the name of what holds them."""
        self.check_plain(sequential, prefix[:-1])
        own = [*map(repr, sequential._parameters), *map(repr, sequential._buffers)]
        own += [] if type(sequential).forward is nn.Sequential.forward else ["a forward"]
        if own:
            raise self.fail(
                "an nn.Sequential that applies its layers one after the other",
                f"a {type(sequential).__name__} with {own[0]} of its own",
                prefix[:-1],
            )
        for index, (key, layer) in enumerate(sequential._modules.items()):
            if type(layer) is nn.Sequential:
                self.walk(layer, f"{prefix}{key}.")
            elif layer is not None:
                self.layer(layer, f"{prefix}{index}")

    def check_plain(self, module: nn.Module, name: str) -> None:
        """Nothing that would be computed beside what its class computes."""
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        if any(hooks) or "forward" in vars(module):
            raise self.fail(
                "no hooks, and no forward but that of its class (a spectral norm is "
                "torch.nn.utils.parametrizations.spectral_norm)",
                f"{'hooks' if any(hooks) else 'a forward'} of its own",
                name,
            )

    def inside(self, module: nn.Module, place: str) -> None:
        """Adds the rows of a branch, one layer or several."""
        if type(module) is nn.Sequential:
            self.walk(module, f"{place}.")
        else:
            self.layer(module, place)

    def layer(self, layer: nn.Module, place: str) -> None:
        """Adds the rows of one layer."""
        kind = parametrize.type_before_parametrizations(layer)
        self.name = f"{place}: {_short(layer, kind)}"
        handler = LAYERS.get(kind) or plan_layers.REFUSED.get(kind)
        if handler is None:
            supported = ", ".join(kind.__name__ for kind in LAYERS)
            raise NotImplementedError(
                f"[plan] {self.network} layer {place} is {kind.__name__}, which is not supported; "
                f"supported: {supported}, and nn.Sequential of these"
            )
        self.check_plain(layer, self.name)
        self.norm = self.spectral_norm(layer, kind) if parametrize.is_parametrized(layer) else None
        handler(self, layer)

    def spectral_norm(self, layer: nn.Module, kind: type[nn.Module]) -> spectral.Norm:
        """The layer's norm; its row will say so."""
        norm = spectral.norm_of(layer)
        if norm is None or kind not in spectral.LAYERS:
            raise self.fail(
                f"no parametrizations but spectral_norm of {', '.join(k.__name__ for k in spectral.LAYERS)}",
                kind.__name__,
            )
        if self.network != "discriminator":
            raise self.fail(
                "no spectral_norm: samples depend on phi alone, not on a state, so it is for the discriminator",
                "one",
            )
        if norm.outputs != len(norm.u):
            raise self.fail("spectral_norm with its default dim", f"one over {len(norm.u)} rows")
        self.fields = {
            "u": sum(each.outputs for _, each in self.norms),
            "iterations": norm.iterations,
            "attributes": [norm.eps, 0.0],
        }
        return norm


def _linear(c: Compiler, m: nn.Linear) -> None:
    if len(c.shape) != 1:
        raise c.fail("a flat sample before it (put nn.Flatten() there)", f"a sample of shape {c.shape}")
    if c.shape[0] != m.in_features:
        raise c.fail(f"in_features={c.shape[0]}, the width before it", f"in_features={m.in_features}")
    weight, bias = c.parameters_of(m)
    c.add("linear", (m.out_features,), weight=weight, bias=bias)


def _convolution(dims: int) -> Callable[[Compiler, Any], None]:
    def compile_convolution(c: Compiler, m: nn.Conv2d | nn.ConvTranspose2d) -> None:
        transposed = isinstance(m, (nn.ConvTranspose1d, nn.ConvTranspose2d))
        plan_layers.check_spatial(c, dims)
        if c.shape[0] != m.in_channels:
            raise c.fail(f"in_channels={c.shape[0]}, the channels before it", f"in_channels={m.in_channels}")
        if m.groups != 1:
            raise c.fail("groups=1", f"groups={m.groups}")
        if m.padding_mode != "zeros":
            raise c.fail("padding_mode='zeros'", f"padding_mode={m.padding_mode!r}")
        kernel, stride, dilation = m.kernel_size, m.stride, m.dilation
        if isinstance(m.padding, str):  # "valid" is 0; "same" pads evenly or not at all like torch
            total = [d * (k - 1) if m.padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            if any(t % 2 for t in total):
                raise c.fail("padding='same' with dilation * (kernel - 1) even", f"kernel_size={kernel}")
            padding = tuple(t // 2 for t in total)
        else:
            padding = tuple(int(p) for p in m.padding)
        out = []
        for d in range(dims):
            reach = dilation[d] * (kernel[d] - 1) + 1
            if transposed:
                extra = m.output_padding[d]
                out.append((c.shape[d + 1] - 1) * stride[d] - 2 * padding[d] + reach + extra)
            else:
                out.append((c.shape[d + 1] + 2 * padding[d] - reach) // stride[d] + 1)
        if any(extent < 1 for extent in out):
            raise c.fail("a kernel that fits the sample", f"an output of {tuple(out)}")
        weight, bias = c.parameters_of(m)
        c.add(
            "convolution",
            (m.out_channels, *out),
            weight=weight,
            bias=bias,
            kernel=list(kernel),
            stride=list(stride),
            padding=list(padding),
            dilation=list(dilation),
            transposed=transposed,
        )

    return compile_convolution


def _activation(name: str, *attributes: str) -> Callable[[Compiler, nn.Module], None]:
    def compile_activation(c: Compiler, m: nn.Module) -> None:
        values = [float(getattr(m, attribute)) for attribute in attributes]
        if not all(math.isfinite(v) for v in values):
            raise c.fail(f"finite {', '.join(attributes)}", str(values))
        c.add("activation", c.shape, activation=name, attributes=[*values, 0.0, 0.0][:2])

    return compile_activation


def _flatten(c: Compiler, m: nn.Flatten) -> None:
    if m.start_dim != 1 or m.end_dim != -1:
        raise c.fail("nn.Flatten(1, -1): whole samples", f"nn.Flatten({m.start_dim}, {m.end_dim})")
    c.add("reshape", (math.prod(c.shape),))


def _unflatten(c: Compiler, m: nn.Unflatten) -> None:
    if m.dim != 1 or len(c.shape) != 1 or not all(isinstance(n, int) for n in m.unflattened_size):
        raise c.fail("nn.Unflatten(1, sizes) of a flat sample", f"{m} on a sample of shape {c.shape}")
    sizes = [int(n) for n in m.unflattened_size]
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0 and c.shape[0] % known == 0:
        sizes[sizes.index(-1)] = c.shape[0] // known
    if math.prod(sizes) != c.shape[0] or any(n < 1 for n in sizes):
        raise c.fail(f"sizes whose product is {c.shape[0]}", str(tuple(m.unflattened_size)))
    c.add("reshape", tuple(sizes))


def _identity(c: Compiler, m: nn.Identity) -> None:
    c.add("reshape", c.shape)


def _gelu(c: Compiler, m: nn.GELU) -> None:
    c.add("activation", c.shape, activation="gelu" if m.approximate == "none" else "gelu_tanh")


def _residual(c: Compiler, m: Residual) -> None:
    name, start, shape = c.name, c.at, c.shape
    place = name.split(":")[0]
    c.walk(m.body, f"{place}.body.")
    body, c.at = c.at, start
    out, c.shape = c.shape, shape
    c.inside(m.shortcut, f"{place}.shortcut")
    c.name = name
    if c.shape != out:
        raise c.fail(f"a shortcut to {out}, the shape of the body's output", f"one to {c.shape}")
    other, c.at = c.at, body
    c.add("add", out, other=other)


LAYERS: dict[type[nn.Module], Callable[[Compiler, Any], None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution(1),
    nn.Conv2d: _convolution(2),
    nn.ConvTranspose1d: _convolution(1),
    nn.ConvTranspose2d: _convolution(2),
    nn.LeakyReLU: _activation("leaky_relu", "negative_slope"),
    nn.ReLU: _activation("relu"),
    nn.ELU: _activation("elu", "alpha"),
    nn.SiLU: _activation("silu"),
    nn.Softplus: _activation("softplus", "beta", "threshold"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.GELU: _gelu,
    nn.Identity: _identity,
    nn.Flatten: _flatten,
    nn.Unflatten: _unflatten,
    **plan_layers.LAYERS,
    Residual: _residual,
}
"""Every layer that the compiler understands; exactly these types, not their subclasses."""


def _short(layer: nn.Module, kind: type[nn.Module]) -> str:
    """A layer as its constructor call, shortened to a table's column."""
    if parametrize.is_parametrized(layer):
        return f"spectral_norm({kind.__name__})"
    text = str(layer).split("\n", 1)[0]
    for noise in ("in_features=", "out_features=", ", bias=True", "unflattened_size=", "negative_slope="):
        text = text.replace(noise, "")
    return text if len(text) <= 28 else f"{type(layer).__name__}(...)"


def _compile_network(
    title: str, module: nn.Sequential, shape: Shape, offset: int, seen: dict[int, tuple[str, str]]
) -> tuple[Any, Compiler]:
    """The record, and the compiler after its last layer."""
    compiler = Compiler(title, shape, offset, seen)
    compiler.walk(module, "")
    return _core.Network(list(shape), compiler.rows), compiler


def compile_game(
    gan: GAN,
    *,
    fakes: int,
    reals: int,
    play: str,
    optimisers: tuple[str, ...],
    momentum: float,
    betas: tuple[float, float],
    eps: float,
    keep_all: bool = False,
) -> Any:
    """The record of the game that the two networks play; arguments as in `pymgan.compile`."""
    penalty = gan.penalty
    return _core.Game(
        loss=gan.loss,
        smoothing=gan.label_smoothing,
        fakes=fakes,
        reals=reals,
        alternating=play == "alternating",
        optimisers=optimisers,
        momentum=momentum,
        betas=betas,
        eps=eps,
        penalty="none" if penalty is None else penalty.kind,
        penalty_weight=0.0 if penalty is None else penalty.weight,
        penalty_every=1 if penalty is None else penalty.every,
        augment=gan.augment,
        instance_noise=gan.instance_noise,
        keep_all=keep_all,
    )


def compile_plan(gan: GAN) -> Plan:
    """Compiles a GAN's two networks.

    Raises:
        NotImplementedError: a layer is not supported; names the layer, its index and what is supported.
        ValueError: shapes do not chain, parameters are shared, the generator's output is not the discriminator's input, or the
            discriminator does not give one score a sample, or samples that are to be augmented have no extents.
    """
    seen: dict[int, tuple[str, str]] = {}
    generator, after = _compile_network("generator", gan.generator, tuple(gan.latent), 0, seen)
    sample, split = after.shape, after.offset
    first = next((m for m in gan.discriminator if not isinstance(m, (nn.Flatten, nn.Identity))), None)
    if isinstance(first, nn.Linear) and math.prod(sample) != first.in_features:
        raise ValueError(
            f"[plan] expected the generator's output to have the {first.in_features} values of the discriminator's "
            f"first Linear, got {math.prod(sample)} (shape {sample})"
        )
    gan.check_sample(sample)
    discriminator, after = _compile_network("discriminator", gan.discriminator, sample, split, seen)
    score, end = after.shape, after.offset
    if math.prod(score) != 1:
        raise ValueError(f"[plan] expected the discriminator to give one score a sample, got shape {score}")
    if split == 0 or end == split:
        empty = "generator" if split == 0 else "discriminator"
        raise ValueError(f"[plan] expected the {empty} to have parameters, got none")
    record = _core.Plan(generator, discriminator, split, end)
    return Plan(record, tuple(gan.latent), sample, tuple(after.norms))
