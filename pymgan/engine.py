"""``compile``: a GAN and a name become an engine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

import pymgan._core as _core
from pymgan import selection
from pymgan._version import __version__
from pymgan.contract import OPTIMISERS, Engine
from pymgan.gan import GAN
from pymgan.plan import compile_plan

if _core.__version__ != __version__:
    raise ImportError(
        f"expected the compiled module of pymgan {__version__}, got one of {_core.__version__}: "
        "install this checkout again (pip install -c constraints.txt .)"
    )

PLAY = ("simultaneous", "alternating")
PRECISIONS = ("float32", "tf32", "bf16")


@dataclass(frozen=True)
class EngineInfo:
    """One engine's line in ``pymgan env``."""

    name: str
    available: bool
    reason: str


def instruction_sets() -> tuple[list[str], list[str], str]:
    """(built, executable on this machine, chosen). The choice follows ``PYMGAN_ISA``."""
    sets = _core.instruction_sets()
    built = [name for name, _ in sets]
    return (
        built,
        [name for name, supported in sets if supported],
        _core.chosen_instruction_set(_requested_isa()),
    )


def engines() -> list[EngineInfo]:
    """Every engine of the design, and why it is not available where it is not."""
    return [
        EngineInfo("cpu", True, f"instruction set {instruction_sets()[2]}"),
        _cuda_info(),
        _triton_info(),
        EngineInfo("torch", True, "one torch op per instruction: readable, slow"),
        EngineInfo("reference", True, "torch.func on the modules themselves: the oracle"),
    ]


def available_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def compile(
    gan: GAN,
    *,
    fakes: int = 8,
    reals: int = 8,
    play: str = "simultaneous",
    optimisers: Sequence[str] = ("sgd",),
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    storage: str = "auto",
    dtype: torch.dtype = torch.float32,
    precision: str = "float32",
    engine: str = "auto",
    device: str | torch.device = "auto",
    threads: int | None = None,
    isa: str | None = None,
) -> Engine:
    """Compiles a GAN's inner loop and its exact pull-back.

    Args:
        gan: the two networks, the latent shape and the loss.
        fakes: generated samples in each inner step's batch.
        reals: real samples in each inner step's batch.
        play: "simultaneous" (both players move from the same point) or "alternating" (D first, then G against the new D).
        optimisers: the kinds of inner optimiser that a schedule may choose from; the first is its default. With rate r:
            "sgd": theta' = theta - r F; "normalised": F is divided by sqrt(|F|^2 + eps), |F| over all of a player's gradient;
            "momentum", "nesterov"; "rmsprop": divided by sqrt(s + eps); "adam", with bias correction; "optimistic": theta' =
            theta - r (2 F - the gradient of the update before), in the first update r F; "extragradient": theta' = theta - r F at
            the half point, where theta - r F takes both players (in "alternating" play, the one whose turn it is), on the same
            batch. Each state has room for what the largest of them carries; SGD alone is fastest.
        momentum: of "momentum" and "nesterov" (F is added to it whole, as torch's SGD does).
        betas: of "adam"; the second is of "rmsprop" too.
        eps: inside the square roots, so that they have a derivative at 0.
        storage: what a step keeps for its pull-back: "all", "phi", "every:S", "nested", or "auto" (all).
        dtype: float32, or float64 (correct, not tuned).
        precision: of matrix products in float32: "float32", or on a CUDA device "tf32" or "bf16", faster, with 10 or 7 bits
            after the point instead of 23.
        engine: "auto", "cpu", "cuda", "triton", "torch" or "reference". "auto" picks the fastest of "cpu", "cuda" and "triton"
            that supports the program on this device: where several do, it times a meta-step of each, once for a program and a
            device, and remembers the choice in ``~/.cache/pymgan`` (or ``PYMGAN_CACHE``).
        device: "auto" (with engine "auto" wherever it is fastest; for "cuda" and "triton" a CUDA device, else "cpu"), "cpu",
            or for "auto", "cuda", "triton" and "torch" a CUDA device.
        threads: of the cpu engine; default: all cores this process may use.
        isa: instruction set of the cpu engine; default: ``PYMGAN_ISA``, else the best of this machine.

    Returns:
        An :class:`~pymgan.contract.Engine`.

    Raises:
        ValueError: an argument is out of range, an engine or instruction set is unknown or not available.
        NotImplementedError: a layer is not supported.
    """
    for name, value in (
        ("fakes", fakes),
        ("reals", reals),
        ("threads", available_threads() if threads is None else threads),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"[compile] {name}: expected a whole number from 1, got {value!r}")
    if play not in PLAY:
        raise ValueError(f"[compile] play: expected one of {', '.join(PLAY)}, got {play!r}")
    if gan.penalty is not None and gan.penalty.between and fakes != reals:
        raise ValueError(
            f"[compile] reals: expected as many as fakes with penalty {gan.penalty.kind!r}, got {reals} and {fakes}"
        )
    _check_optimisers(optimisers, momentum, betas, eps)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"[compile] dtype: expected torch.float32 or torch.float64, got {dtype}")
    _core.StorageSchedule(
        "all" if storage == "auto" else storage, 1
    )  # raises for a storage that does not exist
    if precision not in PRECISIONS:
        raise ValueError(f"[compile] precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "float32" and dtype != torch.float32:
        raise ValueError(f"[compile] precision: expected 'float32' with {dtype}, got {precision!r}")
    game: dict[str, Any] = {
        "fakes": fakes,
        "reals": reals,
        "play": play,
        "optimisers": tuple(optimisers),
        "momentum": momentum,
        "betas": betas,
        "eps": eps,
        "storage": "all" if storage == "auto" else storage,
        "dtype": dtype,
    }

    makers: dict[str, Callable[..., Engine]] = {
        "cuda": _cuda,
        "torch": _torch,
        "triton": _triton,
        "reference": _reference,
    }

    def maker(name: str) -> Callable[[], Engine]:
        if name == "cpu":
            return lambda: _cpu(gan, threads or available_threads(), isa, **game)
        place = _device(name, device)
        make = makers[name]
        chosen = {"precision": precision} if name in ("cuda", "triton") else {}
        return lambda: make(gan, device=place, **game, **chosen)

    known = {info.name: info for info in engines()}
    if engine == "auto":
        names = [name for name in _candidates(str(device), precision) if known[name].available]
        if not names:
            raise ValueError(
                _no_device("auto", ("cpu", "cuda") if precision == "float32" else ("cuda",), device)
            )
        return selection.fastest(
            {name: maker(name) for name in names}, _what(gan, {**game, "precision": precision})
        )
    if engine not in known:
        raise ValueError(f"[compile] engine: expected one of auto, {', '.join(known)}, got {engine!r}")
    if not known[engine].available:
        raise ValueError(f"[compile] engine {engine!r} is not available here: {known[engine].reason}")
    if precision != "float32" and engine not in ("cuda", "triton"):
        raise ValueError(
            f"[compile] precision: expected 'float32' for the {engine} engine, got {precision!r}"
        )
    if isa is not None and engine != "cpu":
        raise ValueError(f"[compile] isa: expected None for the {engine} engine, got {isa!r}")
    _device(engine, device)
    return maker(engine)()


def _candidates(device: str, precision: str) -> list[str]:
    """The engines that "auto" chooses among: those made to be fast, where the program may run."""
    there = ["cuda", "triton"] if torch.cuda.is_available() else []
    here = ["cpu"] if precision == "float32" else []
    return {"auto": [*here, *there], "cpu": here, "cuda": there}.get(device.split(":")[0], [])


def _what(gan: GAN, game: dict[str, Any]) -> str:
    """What the fastest engine depends on, beside this machine's cpu."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    packages = [f"{name} {_version(name)}" for name in ("torch", "triton")]
    return "\n".join([__version__, *devices, *packages, str(compile_plan(gan)), repr(gan), repr(game)])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def _device(engine: str, device: str | torch.device) -> torch.device:
    """Where an engine's tensors live."""
    there = torch.cuda.is_available()
    own = "cuda" if engine == "cuda" or (engine == "triton" and there) else "cpu"
    allowed = {"torch": ("cpu", "cuda"), "cuda": ("cuda",), "triton": (own,)}.get(engine, ("cpu",))
    name = own if str(device) == "auto" else str(device)
    if name.split(":")[0] not in allowed or (name != "cpu" and not there):
        raise ValueError(_no_device(engine, allowed, device))
    if name == "cuda":  # tensors name the device that they are on
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


def _no_device(engine: str, allowed: tuple[str, ...], device: str | torch.device) -> str:
    expected = " or ".join(repr(each) for each in allowed)
    without = "" if torch.cuda.is_available() else " (there is no CUDA device)"
    return f"[compile] device: expected {expected} for the {engine} engine{without}, got {str(device)!r}"


def _cuda_info() -> EngineInfo:
    """Available where this build has the kernel and torch sees a device that can run it."""
    targets = ", ".join(_core.cuda_targets())
    if not targets:
        return EngineInfo("cuda", False, "this build has no CUDA kernel: it was made without nvcc")
    if not torch.cuda.is_available():
        return EngineInfo("cuda", False, f"built for {targets}; torch sees no CUDA device")
    if torch.cuda.get_device_capability() < (8, 0):
        return EngineInfo(
            "cuda", False, f"built for {targets}; this device has {torch.cuda.get_device_capability()}"
        )
    return EngineInfo("cuda", True, f"one launch for a call, built for {targets}")


def _triton_info() -> EngineInfo:
    """Available on a CUDA device, and for tests in Triton's interpreter, on the cpu."""
    if importlib.util.find_spec("triton") is None:
        return EngineInfo("triton", False, "triton is not installed")
    if torch.cuda.is_available():
        return EngineInfo("triton", True, "one Triton kernel per instruction over all tasks, in a CUDA graph")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return EngineInfo(
            "triton", True, "in Triton's interpreter on the cpu (TRITON_INTERPRET=1): for tests"
        )
    return EngineInfo("triton", False, "no CUDA device")


def _check_optimisers(
    optimisers: Sequence[str], momentum: float, betas: tuple[float, float], eps: float
) -> None:
    known = ", ".join(OPTIMISERS)
    if isinstance(optimisers, str) or not isinstance(optimisers, Sequence) or not optimisers:
        raise ValueError(f"[compile] optimisers: expected a tuple of some of {known}, got {optimisers!r}")
    for i, kind in enumerate(optimisers):
        if kind not in OPTIMISERS:
            raise ValueError(f"[compile] optimisers: expected some of {known}, got {kind!r}")
        if kind in optimisers[:i]:
            raise ValueError(f"[compile] optimisers: expected each kind once, got {kind!r} twice")
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"[compile] betas: expected two numbers in [0, 1), got {betas!r}")
    for name, value in (("momentum", momentum), *(("betas", beta) for beta in betas)):
        if not 0 <= value < 1:
            raise ValueError(f"[compile] {name}: expected a number in [0, 1), got {value!r}")
    if not 0 < eps < float("inf"):
        raise ValueError(f"[compile] eps: expected a finite number above 0, got {eps!r}")


def _requested_isa() -> str:
    return os.environ.get("PYMGAN_ISA", "")


def _cpu(gan: GAN, threads: int, isa: str | None, **game: Any) -> Engine:
    from pymgan.cpu_engine import CpuEngine

    return CpuEngine(gan, threads=threads, isa=isa or _requested_isa(), **game)


def _cuda(gan: GAN, device: torch.device, **game: Any) -> Engine:
    from pymgan.cuda_engine import CudaEngine

    return CudaEngine(gan, device=device, **game)


def _torch(gan: GAN, device: torch.device, **game: Any) -> Engine:
    from pymgan.torch_engine import TorchEngine

    return TorchEngine(gan, device=device, **game)


def _triton(gan: GAN, device: torch.device, **game: Any) -> Engine:
    from pymgan.triton_engine import TritonEngine

    return TritonEngine(gan, device=device, **game)


def _reference(gan: GAN, device: torch.device, **game: Any) -> Engine:
    from pymgan.reference import ReferenceEngine

    del device, game["storage"]  # the oracle keeps what autograd keeps
    return ReferenceEngine(gan, **game)
