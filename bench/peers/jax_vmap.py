"""Peer `jax`: ``jax.grad`` inside, ``lax.scan`` over steps, ``jit`` of ``vmap`` or ``lax.map`` over tasks.

Follows JAX's own MAML write-up and its guides on ``vmap`` and ``scan``. Both cotangents come from one
``jax.vjp``. Settings tried, all run by the bench, which times the fastest:
    {vmap, map}-unroll{1, K}   over tasks; unrolling of the scan
Data lies on JAX's device of the problem's kind before timing starts; every call ends with ``block_until_ready``. On a GPU the
precision of products is "highest": by default JAX rounds their operands to TF32 there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from ..cases import PASSES, Pass, Problem, Step

__all__ = ["PASSES", "VERSIONS", "variants"]

VERSIONS = ("jax", "jaxlib")
Network = list[tuple[Any, Any]]


def variants(problem: Problem, which: Pass) -> dict[str, Callable[[], Step]]:
    k = problem.case.inner_steps
    return {
        f"{kind}-unroll{unroll}": lambda kind=kind, unroll=unroll: _build(problem, which, kind, unroll)
        for kind in ("vmap", "map")
        for unroll in (1, k)
    }


def _array(x: Tensor) -> Any:
    """JAX's copy of `x`, on the same kind of device."""
    return jax.device_put(x.detach().cpu().numpy(), jax.devices("gpu" if x.is_cuda else "cpu")[0])


def _network(module: nn.Sequential) -> tuple[Network, Callable[[Network, Any], Any]]:
    """Parameters and forward function of the layers in sequence; weights of a Linear are [in, out]."""
    layers = list(module)
    parameters = [
        (_array(m.weight.T if isinstance(m, nn.Linear) else m.weight), _array(m.bias))
        for m in layers
        if isinstance(m, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))
    ]

    def forward(parameters: Network, x: Any) -> Any:
        rest = iter(parameters)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                w, b = next(rest)
                x = x @ w + b
            elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                w, b = next(rest)
                x = _convolve(layer, w, x) + b[:, None, None]
            elif isinstance(layer, (nn.Flatten, nn.Unflatten)):
                x = x.reshape(len(x), *(layer.unflattened_size if isinstance(layer, nn.Unflatten) else (-1,)))
            elif isinstance(layer, nn.LeakyReLU):
                x = jax.nn.leaky_relu(x, layer.negative_slope)
            else:
                x = jnp.tanh(x)
        return x

    return parameters, forward


def _convolve(layer: nn.Conv2d | nn.ConvTranspose2d, w: Any, x: Any) -> Any:
    """Of images [B, C, H, W] and torch's weights; a transposed one has zeros between its inputs instead of a stride."""
    padding = [(int(p), int(p)) for p in layer.padding]
    if isinstance(layer, nn.Conv2d):
        return jax.lax.conv_general_dilated(x, w, layer.stride, padding)
    around = [(n - 1 - low, n - 1 - high) for n, (low, high) in zip(w.shape[2:], padding, strict=True)]
    return jax.lax.conv_general_dilated(
        x,
        w[:, :, ::-1, ::-1],
        (1, 1),
        around,
        lhs_dilation=layer.stride,
        dimension_numbers=("NCHW", "IOHW", "NCHW"),
    )


def _build(problem: Problem, which: Pass, kind: str, unroll: int) -> Step:
    rate = problem.case.rate
    if problem.phi.is_cuda:
        jax.config.update("jax_default_matmul_precision", "highest")
    g0, generator = _network(problem.generator)
    d0, discriminator = _network(problem.discriminator)

    def loss_g(g: Network, d: Network, z: Any) -> Any:
        return jax.nn.softplus(-discriminator(d, generator(g, z))).mean()

    def loss_d(d: Network, g: Network, real: Any, z: Any) -> Any:
        fake = discriminator(d, generator(g, z))
        return jax.nn.softplus(fake).mean() + jax.nn.softplus(-discriminator(d, real)).mean()

    def inner(
        players: tuple[Network, Network], batch: tuple[Any, Any]
    ) -> tuple[tuple[Network, Network], None]:
        (g, d), (real, z) = players, batch
        step_g = jax.grad(loss_g)(g, d, z)
        step_d = jax.grad(loss_d)(d, g, real, z)
        descend = lambda p, s: p - rate * s  # noqa: E731
        return (jax.tree.map(descend, g, step_g), jax.tree.map(descend, d, step_d)), None

    def of_task(g: Network, d: Network, task: tuple[Any, Any, Any, Any]) -> tuple[Network, Network]:
        real, noise, query, query_noise = task

        def adapted(g: Network, d: Network) -> tuple[Network, Network]:
            players: tuple[Network, Network] = jax.lax.scan(inner, (g, d), (real, noise), unroll=unroll)[0]
            return players

        def losses(g: Network, d: Network) -> tuple[Any, Any]:
            g, d = adapted(g, d)
            return loss_g(g, d, query_noise), loss_d(d, g, query, query_noise)

        if which == "adapt":
            return adapted(g, d)
        if which == "first":
            g, d = adapted(g, d)
            return jax.grad(loss_g)(g, d, query_noise), jax.grad(loss_d)(d, g, query, query_noise)
        _, pull = jax.vjp(losses, g, d)
        return pull((1.0, 0.0))[0], pull((0.0, 1.0))[1]

    def all_tasks(g: Network, d: Network, tasks: tuple[Any, Any, Any, Any]) -> tuple[Network, Network]:
        if kind == "vmap":
            each = jax.vmap(lambda task: of_task(g, d, task))(tasks)
        else:
            each = jax.lax.map(lambda task: of_task(g, d, task), tasks)
        return each if which == "adapt" else jax.tree.map(lambda x: x.mean(0), each)

    compiled = jax.jit(all_tasks)
    tasks = tuple(map(_array, (problem.real, problem.noise, problem.query, problem.query_noise)))

    def read(result: tuple[Network, Network]) -> Tensor:
        """Turned to torch's layout: weights of Linears are [..., in, out] here."""
        leading = (problem.case.tasks,) if which == "adapt" else ()
        parts = [
            np.asarray(part).reshape(*leading, -1)
            for player in result
            for w, b in player
            for part in (np.asarray(w).swapaxes(-1, -2) if w.ndim == len(leading) + 2 else w, b)
        ]
        return torch.from_numpy(np.concatenate(parts, axis=-1))

    return Step(run=lambda: jax.block_until_ready(compiled(g0, d0, tasks)), read=read)
