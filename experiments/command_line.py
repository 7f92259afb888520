"""Command lines from configurations, by tyro, and errors of one line."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypedDict, Union, get_type_hints

import tyro

from experiments.datasets import DataError
from experiments.provenance import UncommittedChangesError
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.networks import NETWORKS
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
    """Parse the names of a task and of a network, and the options that these two have.

    Options that are not given are not passed on, so that a task may choose their defaults
    (:meth:`TrainConfig.of`). The configuration checks choices and limits.
    """
    commands = {name: _task(kind) for name, kind in tasks.items()}
    kind, given = tyro.extras.subcommand_cli_from_dict(
        commands, prog=program, description=about, args=argv,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )  # fmt: skip
    try:
        return kind.of(**given)
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


def _task(kind: type[TrainConfig]) -> Callable[..., Any]:
    """Return a function for tyro of one of the networks, each a command of its own."""
    commands: Any = tuple(
        Annotated[Any, tyro.conf.subcommand(name, constructor=_network(kind, name))]
        for name in NETWORKS
    )

    def parse(network: Union[commands]) -> Any:  # noqa: UP007 (of any number)
        return network

    parse.__doc__ = kind.__doc__
    return parse


def _network(kind: type[TrainConfig], name: str) -> Callable[..., Any]:
    """Return a function for tyro of the options of a network and a task, none of them required."""
    config, options = kind.of(model=name), {}
    for of in (config.model, config):
        hints = get_type_hints(type(of))
        for field in (one for one in dataclasses.fields(of) if "help" in one.metadata):
            choices = field.metadata.get("choices")
            about = tyro.conf.arg(
                help=field.metadata["help"],
                help_behavior_hint=f"(default: {getattr(of, field.name)})",
                metavar="{" + ",".join(map(str, choices)) + "}" if choices else None,
            )
            options[field.name] = Annotated[hints[field.name], about]
    fields: Any = TypedDict("Options", options, total=False)  # type: ignore[misc, operator]

    def parse(given: Annotated[fields, tyro.conf.arg(name="")]) -> Any:
        return kind, {"model": name, **given}

    parse.__doc__ = NETWORKS[name].__doc__
    return parse
