"""Layers whose rows are groups of features or fixed linear maps: what of them the plan writes down.

Features are numbered in torch's order, channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pymgan.nn import Concat, Take

if TYPE_CHECKING:
    from pymgan.plan import Compiler

Matrix = NDArray[np.float64]


# ---- numbers that features share ----


def _blocks(shape: Sequence[int], dims: int) -> tuple[Tensor, Tensor]:
    """Of every feature: which block of the last `dims` dimensions it lies in, and where in it."""
    feature = torch.arange(math.prod(shape))
    size = math.prod(shape[len(shape) - dims :])
    return feature // size, feature % size


def _normalise(c: Compiler, m: Any, groups: Tensor, numbers: Tensor) -> None:
    """Normalised over groups, then w x + b with the numbers' own w and b, if the layer has some."""
    c.add("normalise", c.shape, of=groups.tolist(), attributes=[float(m.eps), 0.0])
    if m.weight is not None:
        weight, bias = c.parameters_of(m)
        c.add("diagonal", c.shape, of=numbers.tolist(), weight=weight, bias=bias)


def layer_norm(c: Compiler, m: nn.LayerNorm) -> None:
    shape = tuple(m.normalized_shape)
    if c.shape[len(c.shape) - len(shape) :] != shape:
        raise c.fail(f"normalized_shape to be the last of {c.shape}, the shape before it", str(shape))
    _normalise(c, m, *_blocks(c.shape, len(shape)))


def group_norm(c: Compiler, m: nn.GroupNorm) -> None:
    if c.shape[0] != m.num_channels:
        raise c.fail(f"num_channels={c.shape[0]}, the channels before it", f"num_channels={m.num_channels}")
    channel, _ = _blocks(c.shape, len(c.shape) - 1)
    _normalise(c, m, channel // (m.num_channels // m.num_groups), channel)


def instance_norm(dims: int) -> Callable[[Compiler, Any], None]:
    def compile_instance_norm(c: Compiler, m: nn.InstanceNorm1d | nn.InstanceNorm2d) -> None:
        if len(c.shape) != dims + 1 or c.shape[0] != m.num_features:
            extents = ", ".join(["extent"] * dims)
            raise c.fail(f"a sample of shape ({m.num_features}, {extents})", f"a sample of shape {c.shape}")
        if m.track_running_stats:
            raise c.fail("track_running_stats=False: a sample's own statistics", "track_running_stats=True")
        if math.prod(c.shape[1:]) < 2:
            raise c.fail("more than one value a channel", f"a sample of shape {c.shape}")
        channel, _ = _blocks(c.shape, dims)
        _normalise(c, m, channel, channel)

    return compile_instance_norm


def batch_norm(c: Compiler, m: nn.Module) -> None:
    raise c.fail(
        "nn.GroupNorm, nn.InstanceNorm or nn.LayerNorm: a generator learned from a few samples at a time has no "
        "statistics of a batch to rely on",
        type(m).__name__,
    )


def prelu(c: Compiler, m: nn.PReLU) -> None:
    if m.num_parameters not in (1, c.shape[0]):
        raise c.fail(f"num_parameters of 1 or {c.shape[0]}, the channels before it", str(m.num_parameters))
    channel, _ = _blocks(c.shape, len(c.shape) - 1)
    number = channel if m.num_parameters > 1 else torch.zeros_like(channel)
    weight, _ = c.parameters_of(m)
    c.add("prelu", c.shape, of=number.tolist(), weight=weight)


def softmax(c: Compiler, m: nn.Softmax) -> None:
    dims = len(c.shape) + 1
    dim = m.dim + dims if m.dim is not None and m.dim < 0 else m.dim
    if dim is None or not 1 <= dim < dims:
        raise c.fail(f"a dim from 1 to {dims - 1}: one of the sample's, not the batch's", f"dim={m.dim}")
    size, inner = c.shape[dim - 1], math.prod(c.shape[dim:])
    feature = torch.arange(math.prod(c.shape))
    c.add("softmax", c.shape, of=(feature // (size * inner) * inner + feature % inner).tolist())


# ---- fixed linear maps ----


def _picked(c: Compiler, sources: Tensor) -> None:
    """Output i is feature sources[i]; the output's shape is that of `sources`."""
    flat = sources.flatten()
    c.add(
        "fixed",
        tuple(sources.shape),
        starts=list(range(len(flat) + 1)),
        sources=flat.tolist(),
        factors=[1.0] * len(flat),
    )


def _separable(c: Compiler, matrices: Sequence[Matrix]) -> None:
    """The same map in every channel, with a matrix [out, in] for each extent."""
    channels, *extents = c.shape
    at, factor = np.zeros((1, 1), dtype=np.int64), np.ones((1, 1))
    for matrix, extent in zip(matrices, extents, strict=True):
        most = int((matrix != 0).sum(1).max(initial=1))
        own = np.argsort(matrix == 0, axis=1, kind="stable")[:, :most]  # those that are not zero, in order
        weight = np.take_along_axis(matrix, own, 1)
        at = (at[:, None, :, None] * extent + own[None, :, None, :]).reshape(len(at) * len(own), -1)
        factor = (factor[:, None, :, None] * weight[None, :, None, :]).reshape(at.shape)
    used = factor != 0
    sites = math.prod(extents)
    starts = np.concatenate([[0], np.cumsum(np.tile(used.sum(1), channels))])
    sources = np.concatenate([at[used] + channel * sites for channel in range(channels)])
    c.add(
        "fixed",
        (channels, *(len(matrix) for matrix in matrices)),
        starts=starts.tolist(),
        sources=sources.tolist(),
        factors=np.tile(factor[used], channels).tolist(),
    )


def _matrix(extent: int, apply: Callable[[Tensor], Tensor]) -> Matrix:
    """[out, extent] of a linear map of signals [extent, 1, extent]."""
    columns = apply(torch.eye(extent, dtype=torch.float64)[:, None])
    return columns[:, 0].T.numpy()


def average_pool(dims: int) -> Callable[[Compiler, Any], None]:
    def compile_average_pool(c: Compiler, m: nn.AvgPool1d | nn.AvgPool2d) -> None:
        check_spatial(c, dims)
        if m.ceil_mode:
            raise c.fail("ceil_mode=False", "ceil_mode=True")
        kernel, stride, padding = (_each(v, dims) for v in (m.kernel_size, m.stride, m.padding))
        if any(e + 2 * p < k for e, p, k in zip(c.shape[1:], padding, kernel, strict=True)):
            raise c.fail("a kernel that fits the sample", f"kernel_size={m.kernel_size} on {c.shape}")

        def pool(d: int) -> Callable[[Tensor], Tensor]:
            return lambda x: F.avg_pool1d(
                x, kernel[d], stride[d], padding[d], count_include_pad=m.count_include_pad
            )

        matrices = [_matrix(c.shape[d + 1], pool(d)) for d in range(dims)]
        if isinstance(m, nn.AvgPool2d) and m.divisor_override:
            matrices = [(matrix != 0).astype(np.float64) for matrix in matrices]
            matrices[0] /= float(m.divisor_override)
        _separable(c, matrices)

    return compile_average_pool


def upsample(c: Compiler, m: nn.Upsample) -> None:
    dims = len(c.shape) - 1
    modes = ("nearest", "linear") if dims == 1 else ("nearest", "bilinear")
    if dims not in (1, 2) or m.mode not in modes:
        raise c.fail(
            f"mode {' or '.join(modes)} of a sample with one or two extents", f"{m.mode} of {c.shape}"
        )
    size = None if m.size is None else _each(m.size, dims)
    scale = None if m.scale_factor is None else _each(m.scale_factor, dims)

    def stretch(d: int) -> Callable[[Tensor], Tensor]:
        return lambda x: F.interpolate(
            x,
            size=None if size is None else size[d],
            scale_factor=None if scale is None else scale[d],
            mode="nearest" if m.mode == "nearest" else "linear",
            align_corners=m.align_corners,
            recompute_scale_factor=m.recompute_scale_factor,
        )

    _separable(c, [_matrix(c.shape[d + 1], stretch(d)) for d in range(dims)])


def pixel_shuffle(c: Compiler, m: nn.PixelShuffle) -> None:
    check_spatial(c, 2)
    if c.shape[0] % m.upscale_factor**2:
        raise c.fail(f"channels that are a multiple of {m.upscale_factor**2}", f"a sample of shape {c.shape}")
    _picked(c, F.pixel_shuffle(torch.arange(math.prod(c.shape)).view(c.shape), m.upscale_factor))


def take(c: Compiler, m: Take) -> None:
    if m.stop > c.shape[0]:
        raise c.fail(f"channels up to {c.shape[0]}, those before it", f"channels {m.start} to {m.stop}")
    _picked(c, torch.arange(math.prod(c.shape)).view(c.shape)[m.start : m.stop])


def concat(c: Compiler, m: Concat) -> None:
    """Each branch's output among zeros, and their sum."""
    name, place, start, shape = c.name, c.name.split(":")[0], c.at, c.shape
    outputs: list[tuple[int, tuple[int, ...]]] = []
    for index, branch in enumerate(m.branches):
        c.at, c.shape = start, shape
        c.inside(branch, f"{place}.{index}")
        outputs.append((c.at, c.shape))
    c.name = name
    extents = outputs[0][1][1:]
    if any(out[1:] != extents for _, out in outputs):
        raise c.fail("branches whose outputs differ in channels alone", str([out for _, out in outputs]))
    whole = (sum(out[0] for _, out in outputs), *extents)
    first, total = 0, -1
    for at, out in outputs:
        c.at, c.shape = at, out
        count, begin = math.prod(out), first * math.prod(extents)
        starts = (torch.arange(math.prod(whole) + 1) - begin).clamp(0, count)
        c.add("fixed", whole, starts=starts.tolist(), sources=list(range(count)), factors=[1.0] * count)
        if first:
            c.add("add", whole, other=total)
        first, total = first + out[0], c.at


def check_spatial(c: Compiler, dims: int) -> None:
    if len(c.shape) != dims + 1:
        extents = ", ".join(["extent"] * dims)
        raise c.fail(f"a sample of shape (channels, {extents})", f"a sample of shape {c.shape}")


def _each(value: Any, dims: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims


# ---- tables ----

LAYERS: dict[type[nn.Module], Callable[[Compiler, Any], None]] = {
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.InstanceNorm1d: instance_norm(1),
    nn.InstanceNorm2d: instance_norm(2),
    nn.PReLU: prelu,
    nn.Softmax: softmax,
    nn.AvgPool1d: average_pool(1),
    nn.AvgPool2d: average_pool(2),
    nn.Upsample: upsample,
    nn.PixelShuffle: pixel_shuffle,
    Take: take,
    Concat: concat,
}
REFUSED = dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm), batch_norm)
"""Not supported, and what to use instead."""
