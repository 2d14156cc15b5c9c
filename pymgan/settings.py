"""The settings of a run: what config.json holds, and what must be the same when the run is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ._version import __version__
from .errors import CheckpointError, SettingsChanged
from .meta import Meta, from_config
from .meta.base import whole

__all__ = ["Settings", "check_counts", "distinct_names"]

FORMAT = 2


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's numbers. Threads are not here: results do not depend on them.

    Attributes:
        tasks, fingerprint: the task distribution's name, and the hash of its data and splits.
        gan: the networks and the loss (pymgan/arch_config.py), without weights.
        methods: the `meta=` value and then the trained and untrained rivals, as plain values.
        steps: meta-steps of each method, by its name among them (`names`).
        tasks_per_step, shots, queries, seed: of every meta-batch.
        test_tasks: how many tasks of the test classes are evaluated at the end.
        engine: the engine that was chosen, by name.
        device: where it runs.
        controller: the `controller=` value as plain values, or None.
    """

    tasks: str
    fingerprint: str
    gan: dict[str, Any]
    methods: list[dict[str, Any]]
    steps: dict[str, int]
    tasks_per_step: int
    shots: int
    queries: int
    seed: int
    test_tasks: int
    engine: str
    device: str
    controller: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_counts(
            tasks_per_step=self.tasks_per_step,
            shots=self.shots,
            queries=self.queries,
            seed=self.seed,
            test_tasks=self.test_tasks,
            **self.steps,
        )

    @property
    def names(self) -> list[str]:
        """What each method goes by in the run: its summary, checkpoint, metrics and events. The first is the run's own."""
        return distinct_names(self.methods)

    def metas(self) -> list[Meta]:
        """The methods as values; the first is the run's own."""
        return [from_config(method) for method in self.methods]

    def to_config(self) -> dict[str, Any]:
        """What config.json holds."""
        return {"format": FORMAT, "version": __version__, "settings": asdict(self)}

    @classmethod
    def from_config(cls, config: dict[str, Any], source: str) -> Settings:
        """The inverse of `to_config`.

        Raises:
            CheckpointError: `config` is something else; `source` names it.
        """
        if config.get("format") != FORMAT or not isinstance(config.get("settings"), dict):
            raise CheckpointError(f"{source} is not the config.json of a pymgan run of format {FORMAT}")
        try:
            return cls(**config["settings"])
        except TypeError as error:
            raise CheckpointError(f"{source} is not a whole config.json of a pymgan run ({error})") from error

    def require_same(self, old: Settings, folder: str) -> None:
        """Raise SettingsChanged with every difference, unless the folder's run has these settings."""
        before, now = (
            dict(_flatten(asdict(each) | {"methods": dict(zip(each.names, each.methods, strict=True))}))
            for each in (old, self)
        )
        lines = [
            f"  {key}: {_show(before, key)} in the folder, {_show(now, key)} now"
            for key in sorted(before.keys() | now.keys())
            if before.get(key, _ABSENT) != now.get(key, _ABSENT)
        ]
        if lines:
            raise SettingsChanged(
                f"{folder} holds a run with other settings:\n"
                + "\n".join(lines)
                + "\nuse the same settings to resume it, or choose another out="
            )


def distinct_names(methods: Sequence[dict[str, Any]]) -> list[str]:
    """The methods' names, followed by what differs in those that are not the first of their kind: "maml order=1".

    Raises:
        ValueError: two are equal.
    """
    firsts: dict[str, dict[str, Any]] = {}
    names: list[str] = []
    for method in methods:
        kind = method["name"]
        first = firsts.setdefault(kind, method)
        differing = [
            f"{key}={_plain(method[key])}" for key in sorted(method) if method[key] != first.get(key)
        ]
        name = " ".join([kind, *differing])
        if name in names:
            raise ValueError(
                "expected methods (meta and rivals) that differ from each other, got two equal values of "
                f"{kind!r}; leave one of them out"
            )
        names.append(name)
    return names


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


# The least value of each number. Two samples are the fewest that have a distance to each other.
_LEAST = {"shots": 2, "queries": 2, "seed": 0, "test_tasks": 2}


def check_counts(**counts: Any) -> None:
    """Raise TypeError or ValueError unless every argument is a whole number of a size that makes sense."""
    for name, value in counts.items():
        whole(name, value, least=_LEAST.get(name, 1))
    if counts.get("seed", 0) >= 2**63:
        raise ValueError(f"expected seed < 2**63, got {counts['seed']}")


_ABSENT = object()


def _show(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts by dotted name. Methods go by their names, networks are one leaf a layer."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple)) for item in value):
        for index, item in enumerate(value):
            label = item["name"] if isinstance(item, dict) and "name" in item else index
            yield from _flatten(item, f"{prefix}.{label}")
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value
