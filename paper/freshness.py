"""Whether results were made by the code as it is, and which changes since then are accepted.

A result file records a hash of each part of the code (``experiments/sources.py``). Where that is not
the hash of the part as it is now, the result has to be made again, or the change to be accepted:
``accepted.json`` names result, part, both hashes and the reasons why the result still holds. An
acceptance lapses when the part changes again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parents[1]


class BuildError(Exception):
    """The paper cannot be built; the message says why and what to do."""


def _load_sources() -> ModuleType:
    """Load experiments/sources.py of this tree, without PyTorch and whatever package is installed."""
    spec = importlib.util.spec_from_file_location(
        "irevrnn_sources", REPOSITORY / "experiments/sources.py"
    )
    module = sys.modules["irevrnn_sources"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sources = _load_sources()


@dataclass(frozen=True)
class Change:
    """A part of the code that is not what it was when it made a result.

    Attributes:
        result: name of the result file without its ending, from the folder of results on.
        part: key of ``sources.PARTS``.
        recorded: hash in the result file; None if there is none, or if the part changed while the
            result was made.
        present: hash of the part as it is.
    """

    result: str
    part: str
    recorded: str | None
    present: str | None

    @property
    def place(self) -> tuple[str, str, str | None]:
        """What stays the same when the part changes again."""
        return self.result, self.part, self.recorded


#: The changes that are accepted, each with the reasons: one for each time that the part changed.
Accepted = dict[Change, list[str]]


def find_changes(results: Path, depends: Mapping[str, Sequence[str]]) -> list[Change]:
    """Compare the hashes in every result file with the code.

    Args:
        results: folder of the result files.
        depends: the parts of the code that each of them depends on, by its name; for those in
            ``experiments/``, by ``experiments/`` and their task.

    Raises:
        BuildError: nobody has said what a file in the folder depends on.
    """
    present = sources.at_start()
    found = []
    for path in sorted([*results.glob("*.json"), *results.glob("experiments/*.json")]):
        name = path.relative_to(results).with_suffix("").as_posix()
        content = json.loads(path.read_text(encoding="utf-8"))
        key = f"experiments/{content.get('task')}" if "/" in name else name
        if key not in depends:
            raise BuildError(f"DEPENDS in paper/build.py does not say what {path} depends on")
        # The result of a training run has the provenance of measurements at its top.
        recorded = content.get("environment", content).get("sources", {})
        found += [
            Change(name, part, recorded.get(part), present.get(part))
            for part in depends[key]
            if recorded.get(part) is None or recorded[part] != present.get(part)
        ]
    return found


def check(found: Sequence[Change], accepted: Accepted, command: Callable[[str], str]) -> None:
    """Check that every change is accepted, and nothing else.

    Args:
        found: what :func:`find_changes` returned.
        accepted: what :func:`read_accepted` returned.
        command: what makes a result again, by its name.

    Raises:
        BuildError: names every result, the parts that have changed and their files.
    """
    stale = [change for change in found if change not in accepted]
    lapsed = {change.place for change in accepted} & {change.place for change in stale}
    lines = ["these results were made by code that has changed since:"] if stale else []
    for result in dict.fromkeys(change.result for change in stale):
        lines.append(f"  {result}.json (to make it again: {command(result)})")
        for change in stale:
            if change.result == result:
                lines.append(f"    {_described(change, change.place in lapsed)}")
    if stale:
        lines += [
            "Training runs that have ended stay in build/: delete those of a result first.",
            "If a result still holds: python paper/build.py --accept RESULT --reason 'why it does'",
        ]
    lines += [
        f"accepted.json accepts {change.part} of {change.result}.json, which needs no acceptance: "
        "delete the entry"
        for change in accepted
        if change not in found and change.place not in lapsed
    ]
    if lines:
        raise BuildError("\n".join(lines))


def _described(change: Change, lapsed: bool) -> str:
    """The part, how it has changed, and its files."""
    how = [
        "" if change.recorded else ", not recorded or of several versions",
        ", accepted before it changed again" if lapsed else "",
    ]
    return f"{change.part}{''.join(how)}: {', '.join(sources.PARTS[change.part])}"


# --- accepting ----------------------------------------------------------------------------------


def accept(found: Sequence[Change], accepted: Accepted, result: str, reason: str) -> Accepted:
    """Accept the changes of a result.

    Args:
        found: what :func:`find_changes` returned.
        accepted: what was accepted before.
        result: name of a result, or ``all``.
        reason: why it still holds.

    Returns:
        All that is accepted then. An acceptance that has lapsed keeps its reasons and gets this one
        in addition; one of this result that is needed no longer is left out.
    """
    earlier = {change.place: reasons for change, reasons in accepted.items()}
    kept = {
        change: reasons
        for change, reasons in accepted.items()
        if change in found or result not in ("all", change.result)
    }
    new = {
        change: [*earlier.get(change.place, []), reason]
        for change in found
        if change not in accepted and result in ("all", change.result)
    }
    return kept | new


def read_accepted(path: Path) -> Accepted:
    """Read the acceptances.

    Raises:
        BuildError: one of them lacks something, or a reason.
    """
    accepted = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        reasons = entry.pop("reasons", None)
        try:
            change = Change(**entry)
        except TypeError as error:
            raise BuildError(f"{path}: {entry} is no acceptance: {error}") from None
        if not reasons or not all(isinstance(text, str) and text.strip() for text in reasons):
            raise BuildError(f"{path}: {change.part} of {change.result} is accepted for no reason")
        accepted[change] = reasons
    return accepted


def write_accepted(path: Path, accepted: Accepted) -> None:
    """Write the acceptances, sorted, whole or not at all."""
    entries = [
        asdict(change) | {"reasons": accepted[change]}
        for change in sorted(accepted, key=lambda change: (change.result, change.part))
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
