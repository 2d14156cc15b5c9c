"""Peer `jax`: ``jax.grad`` inside, ``lax.scan`` over steps, ``jit`` of ``vmap`` or ``lax.map`` over tasks.

Follows JAX's own MAML write-up and its guides on ``vmap`` and ``scan``. Both cotangents come from one
``jax.vjp``. Settings tried, all run by the bench, which times the fastest:
    {vmap, map}-unroll{1, K}   over tasks; unrolling of the scan
Data lies on JAX's CPU device before timing starts; every call ends with ``block_until_ready``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from ..cases import Problem, Step

VERSIONS = ("jax", "jaxlib")
Network = list[tuple[Any, Any]]


def variants(problem: Problem) -> dict[str, Callable[[], Step]]:
    k = problem.case.inner_steps
    return {
        f"{kind}-unroll{unroll}": lambda kind=kind, unroll=unroll: _build(problem, kind, unroll)
        for kind in ("vmap", "map")
        for unroll in (1, k)
    }


def _network(module: nn.Sequential) -> tuple[Network, Callable[[Network, Any], Any]]:
    """Parameters and forward function of Linear, LeakyReLU and Tanh in sequence; weights are [in, out]."""
    layers = list(module)
    linears = [m for m in layers if isinstance(m, nn.Linear)]
    parameters = [
        (jnp.asarray(m.weight.detach().numpy().T), jnp.asarray(m.bias.detach().numpy())) for m in linears
    ]

    def forward(parameters: Network, x: Any) -> Any:
        rest = iter(parameters)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                w, b = next(rest)
                x = x @ w + b
            elif isinstance(layer, nn.LeakyReLU):
                x = jax.nn.leaky_relu(x, layer.negative_slope)
            else:
                x = jnp.tanh(x)
        return x

    return parameters, forward


def _build(problem: Problem, kind: str, unroll: int) -> Step:
    rate = problem.case.rate
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

    def meta_gradient(g: Network, d: Network, task: tuple[Any, Any, Any, Any]) -> tuple[Network, Network]:
        real, noise, query, query_noise = task

        def losses(g: Network, d: Network) -> tuple[Any, Any]:
            (g, d), _ = jax.lax.scan(inner, (g, d), (real, noise), unroll=unroll)
            return loss_g(g, d, query_noise), loss_d(d, g, query, query_noise)

        _, pull = jax.vjp(losses, g, d)
        return pull((1.0, 0.0))[0], pull((0.0, 1.0))[1]

    def all_tasks(g: Network, d: Network, tasks: tuple[Any, Any, Any, Any]) -> tuple[Network, Network]:
        if kind == "vmap":
            each = jax.vmap(lambda task: meta_gradient(g, d, task))(tasks)
        else:
            each = jax.lax.map(lambda task: meta_gradient(g, d, task), tasks)
        return jax.tree.map(lambda x: x.mean(0), each)

    compiled = jax.jit(all_tasks)
    tasks = tuple(
        jnp.asarray(x.numpy()) for x in (problem.real, problem.noise, problem.query, problem.query_noise)
    )

    def step() -> Tensor:
        g, d = jax.block_until_ready(compiled(g0, d0, tasks))
        # Views turned to torch's layout; no part of a training loop, but microseconds beside the step.
        parts = [part.ravel() for w, b in (*g, *d) for part in (np.asarray(w).T, np.asarray(b))]
        return torch.from_numpy(np.concatenate(parts))

    return step
