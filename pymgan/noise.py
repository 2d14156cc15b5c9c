"""The counter-based noise in numpy: what every engine must draw, written plainly.

Philox4x32-10 (Salmon et al., 2011) and Box-Muller. Normal i of (seed, task, step, stream) depends on nothing else: its block
i // 4 has the counter (block, step low, step high xor stream << 16, task low) and the key (seed low, seed high + task high), in
32-bit words. A word w becomes u = ((w >> 9) + 1/2) / 2^23, which float32 can hold. Words 0 and 1 give normals 0 and 1 of the
block, sqrt(-2 log u0) times the cosine and the sine of 2 pi u1; words 2 and 3 give normals 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["normals", "philox4x32"]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

Words = npt.NDArray[np.uint64]


def philox4x32(
    counter: Sequence[npt.ArrayLike], key: Sequence[npt.ArrayLike], rounds: int = 10
) -> tuple[Words, Words, Words, Words]:
    """Philox4x32: four 32-bit words (held in uint64) of a counter of four words and a key of two; arguments broadcast."""
    c0, c1, c2, c3 = (np.asarray(word, dtype=np.uint64) for word in counter)
    k0, k1 = (np.asarray(word, dtype=np.uint64) for word in key)
    for _ in range(rounds):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2  # 32 x 32 bits: fits 64
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def normals(seed: int, task: int, step: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    """The first `count` standard normals of (seed, task, step, stream), float64 [count].

    Args:
        seed, task, step: 64-bit numbers, at least 0.
        stream: in [0, 2^16).
        count: at least 0.
    """
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    low = 0xFFFFFFFF
    counter = (blocks, step & low, (step >> 32) ^ (stream << 16), task & low)
    key = (seed & low, ((seed >> 32) + (task >> 32)) & low)
    words = philox4x32(
        [np.asarray(word, dtype=np.uint64) for word in counter], [np.uint64(word) for word in key]
    )
    u = [
        ((np.broadcast_to(word, blocks.shape) >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
        for word in words
    ]
    out = np.empty((len(blocks), 4))
    for pair in (0, 2):
        radius, angle = np.sqrt(-2.0 * np.log(u[pair])), 2.0 * np.pi * u[pair + 1]
        out[:, pair], out[:, pair + 1] = radius * np.cos(angle), radius * np.sin(angle)
    return out.reshape(-1)[:count]
