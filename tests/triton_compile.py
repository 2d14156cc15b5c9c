"""``python -m tests.triton_compile CASE ...``: compiles what the triton engine launches for some cases of the battery.

For a CUDA device that need not be there: Triton's compiler goes all the way to machine code without one, and finds what its
interpreter lets pass. Nothing is launched, so the numbers that the engine returns mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # Triton 3.9 warns of another default to come

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

import pymgan.engine
from pymgan.contract import Data


class Driver:
    """As much of Triton's driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def pretend(capability: int) -> set[str]:
    """Makes launches compile instead, and the engine available; returns the names of what has been compiled, as it grows."""
    compiled: set[str] = set()
    triton.runtime.driver.set_active(Driver(capability))
    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, **options: Any) -> Any:
        kernel = run(self, *arguments, **{**options, "warmup": True})
        compiled.add(f"{self.__name__}.{kernel.hash}")
        return kernel

    JITFunction.run = compile_only
    pymgan.engine._triton_info = lambda: pymgan.engine.EngineInfo("triton", True, "compiles only")
    from pymgan.triton_engine import TritonEngine

    TritonEngine._run = TritonEngine.interpret  # type: ignore[method-assign]
    TritonEngine._launching = lambda self: nullcontext()  # type: ignore[method-assign]
    return compiled


def main(arguments: list[str] | None = None) -> int:
    """Prints how many kernels were compiled for each case."""
    parser = argparse.ArgumentParser(prog="python -m tests.triton_compile", description=__doc__)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--capability", type=int, default=90, help="of the device (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="of products (default: %(default)s)")
    options = parser.parse_args(arguments)
    compiled = pretend(options.capability)
    from tests.engines import make
    from tests.oracle_cases import cases, draw, take

    known = {case.name: case for case in cases()}
    for name in options.cases:
        case = known[name]
        x, engine = take(draw(case), torch.arange(2)), make("triton", precision=options.precision)(case)
        for data in (x.data, Data(x.data.real, x.data.indices)):  # the second draws its noise
            x = replace(x, data=data)
            adapted = engine.adapt(x.phi, x.data, x.schedule, x.rng, state=x.state, keep=True)
            assert adapted.saved is not None
            engine.pullback(adapted.saved, x.cotangents, keep=x.keep, support=x.support, rates=True)
            engine.pullback(adapted.saved, x.cotangents[0])
        engine.distance("energy", x.sample_cotangent, x.sample_cotangent)
        print(f"{name}: {len(compiled)} kernels so far", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
