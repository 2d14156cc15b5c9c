"""Ways to meta-learn: the values of `pymgan.train(meta=...)`. Rivals are values of the same parameter."""

from __future__ import annotations

from typing import Any

from .base import Direction, Meta
from .joint import Joint
from .maml import MAML
from .reptile import Reptile
from .scratch import Scratch

__all__ = ["MAML", "Direction", "Joint", "Meta", "Reptile", "Scratch", "from_config"]

METHODS: dict[str, type[Meta]] = {method.name: method for method in (MAML, Joint, Reptile, Scratch)}


def from_config(config: dict[str, Any]) -> Meta:
    """The value that `Meta.to_config` wrote.

    Raises:
        ValueError: an unknown method or field, or a bad value.
    """
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key != "name"}
    return by_name(config.get("name", ""), **values)


def by_name(name: str, **values: Any) -> Meta:
    """A method by its short name, such as "maml"."""
    if name not in METHODS:
        raise ValueError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    try:
        return METHODS[name](**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
