"""A picture of what a controller does: rates, optimiser and ratio over time, beside losses and quality."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import pictures
from .comparison import Outcome
from .controls import Controls

__all__ = ["draw"]

_COLOURS = ("#b3541e", "#2f6690", "#5a8f4e", "#7a5195", "#8a929c", "#c9a227", "#1b1f24", "#d5d9de")
_PLAYERS = ("G", "D")


def draw(
    path: str | os.PathLike[str],
    outcomes: Mapping[str, Outcome],
    controls: Controls,
    *,
    controller: str = "controller",
    beside: str = "best constant",
) -> None:
    """Six panels: rates of G and D (median and quartiles of the tasks), which optimiser and which players move (shares of the
    tasks), losses, quality, and the quality of every other schedule.

    Args:
        path: PNG file, written atomically.
        outcomes: of `studies.gan.compare`.
        controls: of the controller.
        controller, beside: the two outcomes that are shown in full.
    """
    own, other = outcomes[controller], outcomes[beside]
    figure = pictures.figure_class()(figsize=(11, 6), facecolor="white", layout="constrained")
    axes = figure.subplots(2, 3)
    _rates(axes[0][0], own, other, beside)
    _shares(axes[0][1], own, controls)
    _moves(axes[0][2], own)
    _losses(axes[1][0], own, other, beside)
    _quality(axes[1][1], own, other, controls.every, controller, beside)
    for index, (name, outcome) in enumerate(outcomes.items()):
        strong = name == controller
        colour = _COLOURS[0] if strong else _COLOURS[1 + index % (len(_COLOURS) - 1)]
        mean = outcome.curve.mean(1)
        axes[1][2].plot(
            _turns(mean, controls.every), mean, color=colour, lw=2.2 if strong else 1.0, label=name
        )
    axes[1][2].set_title("energy distance, mean of the tasks", fontsize=9)
    axes[1][2].set_ylim(0, 1.3 * float(own.curve[0].mean()))
    axes[1][2].legend(fontsize=7, frameon=False)
    for row in axes:
        for each in row:
            each.tick_params(labelsize=7)
            each.set_xlabel("inner steps", fontsize=7)
            for side in ("top", "right"):
                each.spines[side].set_visible(False)
    pictures.save(path, figure)


def _turns(values: Tensor, every: int) -> Tensor:
    return torch.arange(len(values)) * every


def _band(axes: Any, x: Tensor, values: Tensor, colour: str, label: str) -> None:
    """Median and quartiles of values [n, T]."""
    low, middle, high = torch.nanquantile(values.double(), torch.tensor([0.25, 0.5, 0.75]).double(), dim=1)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(x, middle, color=colour, label=label)


def _rates(axes: Any, own: Outcome, other: Outcome, beside: str) -> None:
    steps = torch.arange(len(own.trail["rate"])) + 0.5
    for p, player in enumerate(_PLAYERS):
        _band(axes, steps, own.trail["rate"][..., p], _COLOURS[p], player)
        axes.plot(steps, other.trail["rate"][..., p].median(1).values, color=_COLOURS[p], ls=":", lw=1)
    axes.set_yscale("log")
    axes.set_title(f"rates (dotted: {beside})", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _shares(axes: Any, own: Outcome, controls: Controls) -> None:
    kinds = own.trail["kind"]
    shares = [(kinds == index).double().mean(1) for index in range(len(controls.optimisers))]
    steps = torch.arange(len(kinds)) + 0.5
    axes.stackplot(steps, *shares, labels=controls.optimisers, colors=_COLOURS, alpha=0.75)
    axes.set_ylim(0, 1)
    axes.set_title("optimiser, share of the tasks", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="lower left")


def _moves(axes: Any, own: Outcome) -> None:
    moves = own.trail["active"].double().mean(1)
    steps = torch.arange(len(moves)) + 0.5
    for p, player in enumerate(_PLAYERS):
        axes.plot(steps, moves[:, p], color=_COLOURS[p], label=player, drawstyle="steps-mid")
    axes.set_ylim(0, 1.05)
    axes.set_title("moves, share of the tasks", fontsize=9)
    axes.legend(fontsize=7, frameon=False, loc="lower left")


def _losses(axes: Any, own: Outcome, other: Outcome, beside: str) -> None:
    steps = torch.arange(len(own.trail["loss_g"])) + 0.5
    for p, (player, name) in enumerate(zip(_PLAYERS, ("loss_g", "loss_d"), strict=True)):
        moved = own.trail["active"][..., p]
        _band(axes, steps, own.trail[name].where(moved, torch.nan), _COLOURS[p], player)
        still = other.trail[name].where(other.trail["active"][..., p], torch.nan)
        axes.plot(steps, still.nanmedian(1).values, color=_COLOURS[p], ls=":", lw=1)
    axes.set_title(f"losses (dotted: {beside})", fontsize=9)
    axes.legend(fontsize=7, frameon=False)


def _quality(axes: Any, own: Outcome, other: Outcome, every: int, controller: str, beside: str) -> None:
    for colour, (name, outcome) in zip(_COLOURS, ((controller, own), (beside, other)), strict=False):
        _band(axes, _turns(outcome.curve, every), outcome.curve, colour, name)
    axes.set_ylim(bottom=0)
    axes.set_title("energy distance, median and quartiles", fontsize=9)
    axes.legend(fontsize=7, frameon=False)
