"""The triton engine: the compiled lowering, executed with Triton kernels on a CUDA device; in Triton's interpreter for tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pymgan._core as _core
from pymgan._kernels import noise
from pymgan._kernels.distance import energy_distance
from pymgan._kernels.launch import INTERPRETED
from pymgan._kernels.sums import weighted_sums
from pymgan.checks import check_distance
from pymgan.frame import Frame
from pymgan.list_engine import ListEngine
from pymgan.triton_interpreter import TritonInterpreter
from pymgan.triton_tables import TritonTables

__all__ = ["TritonEngine"]


_RESULTS = (
    "phi_next",
    "moment_next",
    "spectral_next",
    "cotangent",
    "v_moment",
    "d_scale",
    "gradient",
    "output",
    "d_rate",
    "trace",
    "valid",
)
"""Slots that a procedure may write; others may belong to the caller."""


class _Graph:
    """One procedure, captured for one number of tasks: a frame of its own, whose addresses the graph holds."""

    def __init__(self, engine: TritonEngine, procedure: Any, frame: Frame) -> None:
        self._frame = _copied(frame)
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compiles and measures kernels, which a capture must not
            engine.interpret(procedure, self._frame)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Not on torch's own stream for captures, which belongs to the first device that captured.
        with torch.cuda.graph(self._graph, stream=aside):
            engine.interpret(procedure, self._frame)

    def run(self, frame: Frame) -> None:
        """As the procedure itself would do."""
        _copy(frame, self._frame, (item.name for item in fields(Frame)))
        self._graph.replay()
        _copy(self._frame, frame, _RESULTS)
        for name, value in self._frame.residual.items():  # those of a step; a pull-back has them all
            if name not in frame.residual:
                frame.residual[name] = value.clone()


class TritonEngine(ListEngine):
    """Executes the same instruction list as the cpu engine with Triton kernels. See :class:`~pymgan.contract.Engine`."""

    name = "triton"

    def __init__(self, *arguments: Any, precision: str = "float32", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tables = TritonTables(self.compiled, precision)
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    @torch.no_grad()
    def distance(self, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """(value [T] float64, cotangent of a) of a distance between samples [T, B, *]."""
        check_distance(kind, a, b)
        with self._launching():
            value, cotangent = energy_distance(
                a.detach().flatten(2), b.detach().flatten(2), _core.DISTANCE_EPSILON
            )
        return value, cotangent.view(a.shape)

    def _sum_tasks(self, value: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        with self._launching():
            total: Tensor = weighted_sums(value, weight, counts)
        return total

    def _normals(self, key: Tensor, stream: int, rows: int, columns: int) -> Tensor:
        out = self._zeros(len(key), rows, columns)
        with self._launching():
            noise.normals(key, stream, out)
        return out

    def _run(self, procedure: Any, frame: Frame) -> None:
        with self._launching():
            if INTERPRETED:
                self.interpret(procedure, frame)
                return
            # A graph's launches depend on the list, on the tasks and on which of the optional operands there are.
            absent = (operand is None for operand in (frame.noise, frame.rate_scale, frame.valid))
            key = (procedure.address, len(frame.phi), *absent)
            if key not in self._graphs:
                self._graphs[key] = _Graph(self, procedure, frame)
            self._graphs[key].run(frame)

    def interpret(self, procedure: Any, frame: Frame) -> None:
        """Launches the kernels of a procedure one by one."""
        TritonInterpreter(self.compiled, self._tables, procedure, frame).run()

    def _launching(self) -> contextlib.AbstractContextManager[Any]:
        """On this engine's device; in Triton's interpreter, which is numpy, overflows are no news either."""
        return np.errstate(all="ignore") if INTERPRETED else torch.cuda.device(self.device)


def _copied(frame: Frame) -> Frame:
    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.clone(memory_format=torch.contiguous_format)
        if isinstance(value, dict):
            return {name: copy(each) for name, each in value.items()}
        return tuple(map(copy, value)) if isinstance(value, tuple) else value

    return Frame(**{item.name: copy(getattr(frame, item.name)) for item in fields(Frame)})


def _copy(source: Frame, target: Frame, names: Iterable[str]) -> None:
    """What the source's slots hold; empty ones hold nothing. An output that the target has not yet is made."""
    for name in names:
        old, new = getattr(target, name), getattr(source, name)
        if isinstance(new, dict):
            for key, value in new.items():
                old[key].copy_(value)
        elif isinstance(new, tuple):
            for one, other in zip(old, new, strict=True):
                one.copy_(other)
        elif isinstance(new, Tensor) and new.numel():
            if old.shape == new.shape:
                old.copy_(new)
            else:
                setattr(target, name, new.clone())
