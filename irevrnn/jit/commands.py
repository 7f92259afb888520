"""Run compilers side by side; none of them outlives the process that asked for them.

Run as a script, in a session of its own, this file is the supervisor that starts the compilers.
ninja would put each of them into a process group of its own, where a signal to the build misses it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

#: Seconds after which a build is stopped, and a process gives up waiting for another's.
PATIENCE = 1800
_ORDER = "order.json"


class BuildError(RuntimeError):
    """A library cannot be built; the message says why and what helps."""


def say(message: str) -> None:
    """Print a line of progress on stderr, apart from the program's output."""
    print(f"irevrnn: {message}", file=sys.stderr, flush=True)


def run(
    commands: Mapping[str, Sequence[str]], folder: str | os.PathLike[str], failure: str
) -> Iterator[tuple[str, str]]:
    """Run named commands in a folder, :func:`jobs` at a time; yield name and output of each.

    All that they start is one process group. It is killed when this iterator ends, whichever way
    (Ctrl-C, a failure), and when this process dies (``kill -9``). A BuildError, which begins with
    ``failure``, says that a command failed, or that they took more than ``PATIENCE`` seconds.
    """
    if not sys.executable:
        raise BuildError("no Python is known that could run the compilers: sys.executable is empty")
    order = [dict(commands), jobs(), os.getpid(), PATIENCE]
    Path(folder, _ORDER).write_text(json.dumps(order))
    # A library that is preloaded into Python, such as a sanitizer, is not for the compilers.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    supervisor = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__], cwd=folder, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    count = 0
    try:
        for count, line in enumerate(supervisor.stdout or (), start=1):
            name, status, output = json.loads(line)
            if status != 0:
                raise BuildError(f"{failure}. {name}:\n{last_lines(output)}")
            if len(commands) > 1:
                say(f"[{count}/{len(commands)}] {name}")
            yield name, output
    finally:
        with suppress(ProcessLookupError, PermissionError):  # macOS, of processes that have ended
            os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.communicate()
    if count < len(commands):
        raise BuildError(
            f"the compilers were killed, did not end within {PATIENCE} s, or were not started by "
            f"{sys.executable}, which may be no Python"
        )


def jobs() -> int:
    """Return how many commands run at a time: ``MAX_JOBS``, or the cores of this process."""
    named = os.environ.get("MAX_JOBS")
    if not named:
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if not named.isdecimal() or int(named) == 0:
        raise BuildError(f"MAX_JOBS must be a positive integer; got {named!r}")
    return int(named)


def last_lines(output: str) -> str:
    """Return as much of a compiler's output as a message shows."""
    return "\n".join(output.splitlines()[-15:])


def _supervise(commands: dict[str, list[str]], jobs: int, parent: int, limit: float) -> None:
    threading.Thread(target=_watch, args=(parent, limit), daemon=True).start()
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed(pool.submit(_run, *command) for command in commands.items()):
            print(done.result(), flush=True)


def _watch(parent: int, limit: float) -> None:
    """Kill the process group, this process too, when the parent has died or time is up."""
    deadline = time.monotonic() + limit
    while os.getppid() == parent and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(0, signal.SIGKILL)


def _run(name: str, words: list[str]) -> str:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        return json.dumps([name, 127, str(error)])
    return json.dumps([name, done.returncode, done.stdout])


if __name__ == "__main__":
    _supervise(*json.loads(Path(_ORDER).read_text()))
