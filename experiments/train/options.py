"""Options: fields of a dataclass with limits and a text for ``--help``."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from typing_extensions import dataclass_transform


class ConfigError(ValueError):
    """A run that cannot be done as configured; the message names the field."""


def option(default: Any, help: str, **limits: Any) -> Any:
    """Declare a field of a configuration, with its text for ``--help``.

    ``limits`` are ``choices``, the allowed values; ``least`` and ``most``, the lowest and the
    highest of them; ``below``, a bound that they do not reach; ``operational=True`` if results do
    not depend on the field; and ``training=True`` if a network's weights at the start do not.
    """
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def with_default(kind: type[Options], name: str, default: Any) -> Any:
    """Declare a field of ``kind`` again, with another default."""
    metadata = kind.__dataclass_fields__[name].metadata
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Options:
    """Fields that are within their limits; each subclass is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        """Raise a ConfigError for a field out of its limits."""
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata
            choices = limits.get("choices")
            if choices is not None and value not in choices:
                allowed = ", ".join(map(str, choices))
                raise ConfigError(f"{field.name} must be one of {allowed}; got {value!r}")
            for limit, words, within in _LIMITS:
                bound = limits.get(limit)
                if None not in (bound, value) and not within(value, bound):
                    raise ConfigError(f"{field.name} must be {words} {bound}; got {value!r}")

    @classmethod
    def names(cls) -> set[str]:
        """Return the names of all options."""
        return {field.name for field in dataclasses.fields(cls)}


_LIMITS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("least", "at least", operator.ge),
    ("most", "at most", operator.le),
    ("below", "below", operator.lt),
)
