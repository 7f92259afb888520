"""Command lines from configurations, by tyro, and errors of one line."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypedDict, get_type_hints

import tyro

from experiments.datasets import DataError
from experiments.provenance import UncommittedChangesError
from experiments.train.config import ConfigError, TrainConfig
from irevrnn import ReversalError

_EXPECTED = (
    KeyboardInterrupt, ConfigError, DataError, UncommittedChangesError, ArithmeticError,
    ReversalError,
)  # fmt: skip

#: Any number of names, as the arguments of a command.
Names = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint=""),
]


def parse_task(
    tasks: Mapping[str, type[TrainConfig]], argv: Sequence[str] | None, program: str, about: str
) -> TrainConfig:
    """Parse the name of a task and the options of a run on it.

    Options that are not given are not passed on, so that a task may choose their defaults
    (:meth:`TrainConfig.of`). The configuration checks choices and limits.
    """
    commands = {name: _command(kind) for name, kind in tasks.items()}
    kind, given = tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=about, args=argv
    )
    try:
        config = kind.of(**given)
        config.check_given(given)
        return config
    except ConfigError as error:
        refuse(program, str(error))


def refuse(program: str, message: str) -> NoReturn:
    """Exit with the status of a wrong command line."""
    print(f"{program}: error: {message}", file=sys.stderr)
    sys.exit(2)


def require_positive(program: str, **numbers: float | None) -> None:
    """Refuse a command line with a number that is not above 0; None is one that was not given."""
    for name, number in numbers.items():
        if number is not None and not number > 0:
            refuse(program, f"{name} must be above 0; got {number}")


def report_errors(program: str, action: Callable[[], Any]) -> int:
    """Run ``action``; print an expected error in one line, and return the exit status."""
    try:
        action()
    except _EXPECTED as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _command(kind: type[TrainConfig]) -> Callable[..., tuple[type[TrainConfig], dict[str, Any]]]:
    """Return a function of a dictionary of fields of ``kind``, all of them optional, for tyro."""
    hints, options = get_type_hints(kind), {}
    variants = {"": {}, **kind.variants()}
    defaults = {label: kind.of(**given) for label, given in variants.items()}
    for field in dataclasses.fields(kind):
        name, choices = field.name, field.metadata.get("choices")
        labels: dict[Any, list[str]] = {getattr(defaults[""], name): []}
        for label, given in variants.items():
            if name not in given:
                labels.setdefault(getattr(defaults[label], name), []).append(label)
        first, *others = labels.items()
        shown = [str(first[0]), *(f"{value} with {', '.join(those)}" for value, those in others)]
        about = tyro.conf.arg(
            help=field.metadata["help"],
            help_behavior_hint=f"(default: {'; '.join(shown)})",
            metavar="{" + ",".join(map(str, choices)) + "}" if choices else None,
        )
        options[name] = Annotated[hints[name], about]
    fields: Any = TypedDict("Options", options, total=False)  # type: ignore[misc, operator]

    def parse(given: Annotated[fields, tyro.conf.arg(name="")]) -> Any:
        return kind, given

    parse.__doc__ = kind.__doc__
    return parse
