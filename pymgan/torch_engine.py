"""The torch engine: the compiled lowering, executed with torch operations. Readable and slow; runs wherever torch does."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pymgan.frame import Frame
from pymgan.list_engine import ListEngine
from pymgan.torch_interpreter import Interpreter
from pymgan.torch_tables import Tables, normals_of

__all__ = ["TorchEngine"]


class TorchEngine(ListEngine):
    """Executes the same instruction list as the cpu engine with torch operations. See :class:`~pymgan.contract.Engine`."""

    name = "torch"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tables = Tables(self.compiled)

    def _normals(self, key: Tensor, stream: int, rows: int, columns: int) -> Tensor:
        return normals_of(key, stream, rows, columns).to(self.dtype)

    def _run(self, procedure: Any, frame: Frame) -> None:
        Interpreter(self.compiled, self._tables, procedure, frame).run()
