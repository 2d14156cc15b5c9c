"""What training gives back: a run that adapts, and the generator it adapts to a few images."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import checkpoint
from .arch_config import gan_from_config, gan_to_config
from .contract import Data, Rng, Schedule
from .errors import CheckpointError
from .folder import CHECKPOINT, SUMMARY, read_json, read_rows
from .gan import GAN
from .meta import Meta
from .rl2 import Controller
from .rl2.training import CONTROLLER
from .samples import as_samples
from .settings import Settings

if TYPE_CHECKING:
    from .contract import Engine

__all__ = ["FewShot", "Run", "load"]

WHOLE_SUPPORT = 64  # up to so many images, every inner step sees all of them


class FewShot:
    """A GAN adapted to a few images. `generator` and `discriminator` are ordinary modules.

    Attributes:
        gan: the adapted networks.
        losses: {"generator": [K], "discriminator": [K]}, the losses that the inner steps saw; empty for a
            loaded file.
    """

    def __init__(self, gan: GAN, losses: dict[str, list[float]] | None = None) -> None:
        self.gan = gan
        self.losses = losses or {}

    @property
    def generator(self) -> nn.Sequential:
        return self.gan.generator

    @property
    def discriminator(self) -> nn.Sequential:
        return self.gan.discriminator

    def sample(self, n: int, *, seed: int | None = None) -> Tensor:
        """Draw n samples [n, *shape].

        Args:
            n: at least 1.
            seed: None draws from torch's own generator.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"expected a number of samples >= 1, got {n!r}")
        weight = next(self.generator.parameters())
        random = None if seed is None else torch.Generator().manual_seed(seed)
        z = torch.randn((n, *self.gan.latent), generator=random, dtype=weight.dtype).to(weight.device)
        with torch.no_grad():
            samples: Tensor = self.generator(z)
        return samples

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and architecture to one safetensors file, atomically; `FewShot.load` reads it."""
        tensors = {f"generator.{name}": value for name, value in self.generator.state_dict().items()}
        tensors |= {f"discriminator.{name}": value for name, value in self.discriminator.state_dict().items()}
        checkpoint.save(path, tensors, {"gan": gan_to_config(self.gan)}, kind="generator")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FewShot:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged or something else.
        """
        tensors, state = checkpoint.load(path, kind="generator")
        try:
            gan = gan_from_config(state["gan"])
            for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator)):
                prefix = f"{name}."
                network.load_state_dict(
                    {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                )
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} does not fit together ({error})") from error
        return cls(gan)


class Run:
    """A meta-trained GAN.

    Attributes:
        meta: how it was trained.
        parameters: [P], the averaged meta-parameters, laid out as `GAN.parameters_vector`.
        raw: [P], the meta-parameters of the last step, without the average.
        rates: [K, 2], the inner rates (generator, discriminator).
        history: rows of metrics, as in metrics.jsonl.
        summary: the evaluation on test classes, as in summary.json; None before the run is finished.
        path: the run folder, if any.
        settings: what it was trained with.
        controller: what steers `adapt`, if the run has learned one.
    """

    def __init__(
        self,
        gan: GAN,
        settings: Settings,
        *,
        parameters: Tensor,
        raw: Tensor,
        rates: Tensor,
        history: list[dict[str, Any]],
        summary: dict[str, Any] | None = None,
        path: Path | None = None,
        threads: int | None = None,
        controller: Controller | None = None,
        engine: str | None = None,
        device: str | None = None,
    ) -> None:
        self._gan = gan
        self.controller = controller
        self.settings = settings
        self.meta: Meta = settings.metas()[0]
        self.parameters = parameters
        self.raw = raw
        self.rates = rates
        self.history = history
        self.summary = summary
        self.path = path
        self._threads = threads
        elsewhere = engine is not None or device is not None  # then neither is what it was trained with
        self._place: dict[str, Any] = (
            {"engine": "auto" if engine is None else engine, "device": "auto" if device is None else device}
            if elsewhere
            else {"engine": settings.engine, "device": settings.device}
        )
        self._engines: dict[int, Engine] = {}

    @property
    def gan(self) -> GAN:
        """A copy of the networks with the parameters `start`: what adaptation starts from."""
        return self._with(self.start)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        with torch.no_grad():
            return tuple(self._gan.generator(torch.zeros(1, *self._gan.latent)).shape[1:])

    @property
    def start(self) -> Tensor:
        """[P], where `adapt` starts: `parameters`, unless the controller has moved them on beside it (`RL2.meta_steps`)."""
        moved = None if self.controller is None else self.controller.phi
        return self.parameters if moved is None else moved

    def before(self) -> FewShot:
        """The meta-parameters as a generator, without adaptation: what adapting starts from."""
        return FewShot(self.gan)

    def adapt(self, images: Any, steps: int | None = None, *, seed: int = 0) -> FewShot:
        """Adapt to the samples of one unseen task.

        Args:
            images: [S, *shape], S >= 2, in the range of the training data ([-1, 1] for images): a tensor, an
                array or anything with `__dlpack__` or the array interface. Up to 64, every inner step sees
                all of them; beyond, a part.
            steps: inner steps; the number that the run, or its controller, was trained with by default. More need not be better.
            seed: of the noise.

        Raises:
            ValueError, TypeError: wrong shape, fewer than two samples, not finite, or steps < 1.
            RuntimeError: the adaptation does not stay finite.
        """
        inner = len(self.rates)
        count = inner if steps is None else steps
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"expected steps >= 1, got {steps!r}")
        if self.controller is not None:
            return self._adapt_controlled(self.controller, images, steps, seed)
        if count > inner:
            warnings.warn(
                f"adapting for {count} steps a GAN that was meta-trained for {inner}: more steps "
                "usually make it worse",
                stacklevel=2,
            )
        support = as_samples(images, self.sample_shape, least=2)
        batch = min(len(support), WHOLE_SUPPORT)
        engine = self._engine(batch)
        rates = self.rates[[min(step, inner - 1) for step in range(count)]]
        pool = support.to(engine.device, engine.dtype)
        if len(support) <= WHOLE_SUPPORT:
            data = Data(real=pool.expand(1, count, *pool.shape))
        else:
            order = torch.Generator().manual_seed(seed)
            picks = [torch.randperm(len(support), generator=order)[:batch] for _ in range(count)]
            data = Data(real=pool, indices=torch.stack(picks).to(engine.device, torch.int32).unsqueeze(0))
        start = self.parameters.to(engine.device, engine.dtype).unsqueeze(0)
        rng = Rng(seed=seed, tasks=torch.zeros(1, dtype=torch.int64))
        adapted = engine.adapt(start, data, Schedule(rate=rates.to(engine.device)), rng)
        if not bool(adapted.trace.valid.all()):
            raise RuntimeError(
                "the adaptation became non-finite; check that the images are in the range of the "
                "training data"
            )
        trace = adapted.trace
        losses = {"generator": trace.loss_g[0].tolist(), "discriminator": trace.loss_d[0].tolist()}
        return FewShot(self._with(adapted.phi[0]), losses)

    def _adapt_controlled(self, controller: Controller, images: Any, steps: int | None, seed: int) -> FewShot:
        """`adapt`, steered; of more than `WHOLE_SUPPORT` samples, as many drawn ones take part."""
        support = as_samples(images, self.sample_shape, least=2)
        if len(support) > WHOLE_SUPPORT:
            order = torch.Generator().manual_seed(seed)
            support = support[torch.randperm(len(support), generator=order)[:WHOLE_SUPPORT]]
        engine = self._engine(len(support))
        ids = torch.zeros(1, dtype=torch.int64)
        steered = controller.adapt(engine, self.start, support[None], ids, steps=steps, seed=seed)
        if not bool(steered.valid.all()):
            raise RuntimeError(
                "the adaptation became non-finite; check that the images are in the range of the training data"
            )
        losses = {"generator": steered.loss_g[0].tolist(), "discriminator": steered.loss_d[0].tolist()}
        return FewShot(self._with(steered.phi[0]), losses)

    def _with(self, phi: Tensor) -> GAN:
        gan = copy.deepcopy(self._gan)
        gan.load_vector(phi.detach().float().cpu())
        return gan

    def _engine(self, reals: int) -> Engine:
        if reals not in self._engines:
            from .engine import compile as compile_engine

            inner = self.meta.inner_loop() if self.controller is None else self.controller.recipe.inner_loop()
            penalty = self._gan.penalty  # one that looks between samples needs as many of both
            self._engines[reals] = compile_engine(
                self._gan,
                fakes=reals if penalty is not None and penalty.between else self.settings.shots,
                reals=reals,
                **inner,
                **self._place,
                threads=self._threads,
            )
        return self._engines[reals]


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    engine: str | None = None,
    device: str | None = None,
) -> Run:
    """Open a run folder, finished or not; nothing in it is changed.

    Args:
        path: the folder, or its checkpoint.safetensors.
        threads: of the engine; None takes all cores.
        engine, device: that `Run.adapt` uses, as of `pymgan.compile`. None takes what the run was trained with, or "auto" if
            the other one is given: `load(path, device="cpu")` opens a run of a GPU where there is none.

    Raises:
        FileNotFoundError: there is no run.
        CheckpointError: a file in it is damaged or something else.
        ValueError: an unknown engine or device, or one that is not available.
    """
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent
    config = read_json(folder / "config.json")
    if config is None or not (folder / CHECKPOINT).exists():
        raise FileNotFoundError(
            f"expected a run folder with config.json and checkpoint.safetensors, found none in {folder}"
        )
    settings = Settings.from_config(config, str(folder / "config.json"))
    tensors, _ = checkpoint.load(folder / CHECKPOINT, kind="run")
    gan = gan_from_config(settings.gan)
    name = settings.methods[0]["name"]
    expected = gan.parameters_vector().numel()
    found = tensors.get(f"{name}.average", tensors.get("initial", torch.empty(0)))
    if found.numel() != expected:
        raise CheckpointError(
            f"{folder}: expected a checkpoint with {expected:,} parameters, got {found.numel():,}; it "
            "is of another run"
        )
    run = Run(
        gan,
        settings,
        parameters=found,
        raw=tensors.get(f"{name}.phi", found),
        rates=tensors.get(f"{name}.rates", settings.metas()[0].rates()),
        history=read_rows(folder),
        summary=read_json(folder / SUMMARY),
        path=folder,
        threads=threads,
        controller=Controller.load(folder / CONTROLLER) if _has_controller(folder, settings) else None,
        engine=engine,
        device=device,
    )
    if engine is not None or device is not None:
        # What is unknown or not available is said here, not in the first `adapt`.
        run._engine(settings.shots)
    return run


def _has_controller(folder: Path, settings: Settings) -> bool:
    """Whether the run has learned a controller to its end: then there is a summary."""
    return settings.controller is not None and (folder / SUMMARY).exists()
