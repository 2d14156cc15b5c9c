"""Pictures of samples. matplotlib is imported only when one is drawn."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import atomic_write

__all__ = ["Panel", "comparison", "figure_class", "grid", "save"]

Panel = tuple[str, Tensor]

_ACROSS = 4  # images in a row of one cell
_INK = "#1b1f24"
_FAINT = "#8a929c"
_ACCENT = "#b3541e"


def comparison(
    path: str | os.PathLike[str], panels: Sequence[Panel], labels: Sequence[str], *, highlight: str = "after"
) -> None:
    """A table of samples: one row a task, one column a panel.

    Args:
        path: PNG file, written atomically.
        panels: (title, samples [T, n, *shape]) each; images in [-1, 1] as [H, W], [1, H, W] or [3, H, W], or
            samples of two numbers, drawn as points. Of samples with more axes, [C, ..., H, W], the slices lie below each other.
        labels: T names of the tasks.
        highlight: the title of the panel to stand out.
    """
    if _is_points(panels[0][1].shape[2:]):
        save(path, _scatter_table(panels, labels, highlight))
    else:
        save(path, _image_table(panels, labels, highlight))


def grid(path: str | os.PathLike[str], samples: Tensor, *, title: str = "") -> None:
    """One picture of samples [n, *shape], as square as it gets."""
    figure_module = figure_class()
    if _is_points(samples.shape[1:]):
        figure = figure_module(figsize=(4, 4), layout="constrained")
        _points(figure.add_subplot(), samples.numpy(), _limit([samples]), _INK)
    else:
        across = math.ceil(math.sqrt(len(samples)))
        tile = _mosaic(samples, across, gap=1)
        scale = max(1.0, 640 / max(tile.shape[:2])) / 100
        figure = figure_module(
            figsize=(tile.shape[1] * scale, tile.shape[0] * scale + (0.3 if title else 0)),
            layout="constrained",
        )
        _image(figure.add_subplot(), tile)
    if title:
        figure.suptitle(title, fontsize=9, color=_INK)
    save(path, figure)


def _image_table(panels: Sequence[Panel], labels: Sequence[str], highlight: str) -> Any:
    rows, columns = len(labels), len(panels)
    tiles = [[_mosaic(samples[row], _ACROSS, gap=1) for _, samples in panels] for row in range(rows)]
    height, width = tiles[0][0].shape[:2]
    cell = 1.55
    figure = figure_class()(
        figsize=(columns * (cell + 0.12) + 0.6, rows * (cell * height / width + 0.12) + 0.45),
        facecolor="white",
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        for column in range(columns):
            _image(axes[row][column], tiles[row][column])
    _label(axes, panels, labels, highlight)
    return figure


def _scatter_table(panels: Sequence[Panel], labels: Sequence[str], highlight: str) -> Any:
    rows, columns = len(labels), len(panels)
    figure = figure_class()(
        figsize=(columns * 1.6 + 0.6, rows * 1.6 + 0.45), facecolor="white", layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        limit = _limit([panels[0][1][row], panels[-1][1][row]])
        for column, (title, samples) in enumerate(panels):
            _points(axes[row][column], samples[row].numpy(), limit, _ACCENT if title == highlight else _INK)
    _label(axes, panels, labels, highlight)
    return figure


def _label(axes: Any, panels: Sequence[Panel], labels: Sequence[str], highlight: str) -> None:
    for column, (title, _) in enumerate(panels):
        strong = title == highlight
        axes[0][column].set_title(
            title,
            fontsize=10,
            color=_ACCENT if strong else _INK,
            fontweight="bold" if strong else "normal",
            pad=5,
        )
        for row in range(len(labels)):
            for spine in axes[row][column].spines.values():
                spine.set_color(_ACCENT if strong else "#d5d9de")
                spine.set_linewidth(1.4 if strong else 0.6)
    for row, label in enumerate(labels):
        axes[row][0].set_ylabel(
            label, fontsize=11, color=_FAINT, rotation=0, ha="right", va="center", labelpad=8
        )


def _image(axes: Any, tile: np.ndarray) -> None:
    axes.imshow(tile, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _points(axes: Any, points: np.ndarray, limit: tuple[float, float, float], colour: str) -> None:
    x, y, half = limit
    points = points.reshape(len(points), 2)
    axes.scatter(points[:, 0], points[:, 1], s=5, c=colour, alpha=0.75, linewidths=0)
    axes.set_xlim(x - half, x + half)
    axes.set_ylim(y - half, y + half)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _limit(samples: Sequence[Tensor]) -> tuple[float, float, float]:
    """Centre and half-width of a square around points [n, 2]."""
    every = torch.cat([one.reshape(-1, 2) for one in samples]).nan_to_num(0.0, 0.0, 0.0)
    low, high = every.amin(0), every.amax(0)
    centre = (low + high) / 2
    return float(centre[0]), float(centre[1]), 0.65 * float((high - low).max()) + 1e-3


def _is_points(shape: Sequence[int]) -> bool:
    return math.prod(shape) == 2


def _mosaic(samples: Tensor, across: int, *, gap: int) -> np.ndarray:
    """Samples [n, *shape] in [-1, 1] side by side, uint8 [H, W] or [H, W, 3].

    Vectors are rows of pixels; of [C, ..., H, W] the slices [H, W] lie below each other.
    """
    shape = samples.shape[1:]
    images = samples.detach().float().cpu()
    if len(shape) == 1:
        images = images.reshape(len(samples), 1, 1, -1)
    elif len(shape) == 2:
        images = images.unsqueeze(1)
    elif len(shape) > 3:
        images = images.flatten(2, -2)
    channels = 3 if images.shape[1] == 3 else 1
    pixels = (
        ((images[:, :channels].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    count, height, width, _ = pixels.shape
    across = min(across, count)
    down = math.ceil(count / across)
    canvas = np.full(
        (down * (height + gap) - gap, across * (width + gap) - gap, channels), 128, dtype=np.uint8
    )
    for index in range(count):
        top, left = index // across * (height + gap), index % across * (width + gap)
        canvas[top : top + height, left : left + width] = pixels[index]
    return canvas if channels == 3 else canvas[..., 0]


def figure_class() -> Any:
    """matplotlib's Figure, drawn with Agg: no window system, no global state of pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def make(**options: Any) -> Any:
        figure = Figure(**options)
        FigureCanvasAgg(figure)
        return figure

    return make


def save(path: str | os.PathLike[str], figure: Any) -> None:
    """Write a figure as a PNG file, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    atomic_write(path, buffer.getvalue())
