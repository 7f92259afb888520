"""Tables of what a training step costs: its time, and the memory that it adds or saves."""

from __future__ import annotations

from pathlib import Path

from experiments.page_tables.markdown import Entry, Table, count, read, scientific

#: Rows of the tables: methods or ratios of the results, and what the first cell says of each.
RECURRENCES = {
    "scan": "`scan`",
    "lstm": "`nn.LSTM`",
    "gru": "`nn.GRU`",
    "autograd": "the cell through autograd",
    "compiled_chunks": "the cell in compiled chunks",
    "checkpoint_reentrant": "the cell with reentrant checkpoints",
    "indrnn": "IndRNN in PyTorch (no couplings)",
}
SHAPES = {
    "lstm": "`nn.LSTM` over `scan`",
    "compiled_chunks": "compiled chunks over `scan`",
    "indrnn": "IndRNN in PyTorch over `scan`",
    "lstm_to_layer": "`nn.LSTM` over one `IRevRNN` layer",
}
STACKS = {
    "recompute": '`"recompute"`',
    "store": '`"store"`',
    "checkpoint": '`"checkpoint"`',
    "reversible": '`"reversible"`',
    "lstm": "`nn.LSTM`",
    "lstm_to_reversible": '`nn.LSTM` over `"reversible"`',
}
#: The same of lines that are measured against the length, for README.md.
LINES = {
    "nn.LSTM": "`nn.LSTM`",
    "recompute": '`"recompute"`, the default',
    "checkpoint": '`"checkpoint"`',
    "reversible": '`"reversible"`, memories of up to 1,000 steps',
    "reversible, u = 1": '`"reversible"`, units that forget nothing',
    "reversible, selective": "the same, with angles that the input chooses",
}
#: The same of lines that are measured at several sizes of the state.
RIVALS = {
    "recompute": '`"recompute"`',
    "checkpoint": '`"checkpoint"`',
    "checkpoint, 2 rounds": '`"checkpoint"`, 2 rounds',
    "reversible, u = 1": '`"reversible"`, u = 1',
}


def step_costs(results: Path) -> Table:
    """Tabulate what a training step on a long sequence adds to a process, and how long it takes."""
    report = read(results, "memory")
    found = {(row["line"], row["steps"]): row for row in report["lengths"]}
    longest = max(steps for _, steps in found)
    lengths = (longest // 10, longest)
    rows = []
    for line, label in LINES.items():
        measured = [found.get((line, steps)) for steps in lengths]
        sizes = [_rounded(row["peak_bytes"] / 1e6) if row else "not run" for row in measured]
        last = [row for row in measured if row][-1]
        rows.append([label, *sizes, f"{1e6 * last['seconds'] / last['steps']:.1f} µs"])
    environment = report["environment"]
    machine = f"{environment['cpu']}, {count(environment['threads'], 'thread')}"
    head = "|".join([machine, *(f"memory, {x:,} steps" for x in lengths), "time per time step"])
    return Table(head, rows)


def _rounded(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.1f} MB"


def speed(results: Path) -> Table:
    """Compare methods of one recurrence: time over that of the scan, and what is saved."""
    report = read(results, "benchmark")
    default, caching = report["shapes"][0], report["shapes_keeping_memory"][0]
    tensor = 4 * default["steps"] * default["batch"] * default["hidden"]
    rows = []
    for method, label in RECURRENCES.items():
        times = [
            f"{1 if method == 'scan' else x['ratios'][method]:.1f}" for x in (default, caching)
        ]
        rows.append([label, *times, f"{default['methods'][method]['saved_bytes'] / tensor:.2f}"])
    head = "|time, default allocator|time, caching allocator|saved, in tensors of T x B x H"
    return Table(head, rows, _measured(report))


def shapes(results: Path) -> Table:
    """Compare times at every shape."""
    report = read(results, "benchmark")
    rows = [
        [label, *(f"{shape['ratios'][method]:.1f}" for shape in report["shapes"])]
        for method, label in SHAPES.items()
    ]
    caching = [one["ratios"]["lstm_to_layer"] for one in report["shapes_keeping_memory"]]
    rows.append(["the same, caching allocator", *(f"{ratio:.1f}" for ratio in caching)])
    head = "|".join(["(T, B, H, R)", *map(_shape, report["shapes"])])
    return Table(head, rows, _measured(report))


def scan(results: Path) -> Table:
    """Tabulate what is known of the scan by itself."""
    report = read(results, "benchmark")
    [two], [packed], flat = report["two_threads"], report["packed"], report["flatness"]
    first, last = (flat["lengths"][end]["steps"] for end in (0, -1))
    over = [entry["over_floor"] for entry in report["floor"]]
    least = "time over the least for its arithmetic and its bytes"
    same_steps = f"{packed['ratios']['same_steps']:.2f}"
    rows = [
        [least, _shape(report["floor"][0]), f"{over[0]:.2f}"],
        [least, f"{len(over)} shapes", f"{min(over):.2f} to {max(over):.2f}"],
        ["speed of two threads over one", _shape(two), f"{two['speedup']:.1f}"],
        ["packed sequences over equal ones with as many steps", _shape(packed), same_steps],
        [
            f"slowest over fastest time of a step, T from {first:,} to {last:,}",
            f"B = {flat['batch']}, H = {flat['hidden']}",
            f"{flat['highest_to_lowest']:.2f}",
        ],
    ]
    return Table("|(T, B, H, R)|ratio", rows, _measured(report))


def stacks(results: Path) -> Table:
    """Compare strategies of two layers: time over that of ``recompute``, and what is saved."""
    report = read(results, "benchmark")
    [caching], [default] = report["stacks"], report["stacks_as_it_comes"]
    rows = []
    for name, label in STACKS.items():
        times = [
            f"{x['ratios'][name]:.2f}" if name in x["ratios"] else "" for x in (caching, default)
        ]
        method = caching["methods"].get(name)  # a ratio of two methods has none
        rows.append([label, *times, _megabytes(method["saved_bytes"], 2) if method else ""])
    head = "|time, caching allocator|time, default allocator|saved"
    return Table(head, rows, _measured(report))


def frontier(results: Path) -> Table:
    """Compare strategies of gated blocks at several sizes of the state."""
    report = read(results, "frontier")
    found: dict[tuple[int, int, int], dict[str, str]] = {}
    for x in report["rows"]:
        found.setdefault((x["batch"], x["hidden"], x["steps"]), {})[x["line"]] = _cost(x)
    cells = [
        [f"{batch}, {hidden}, {steps:,}", *(of.get(line, "") for line in RIVALS)]
        for (batch, hidden, steps), of in found.items()
    ]
    return Table("|".join(["B, H, T", *RIVALS.values()]), cells, _measured(report))


def gradients(results: Path) -> Table:
    """Compare the gradients of reversal and of floating point with those in double precision."""
    report = read(results, "inverse")
    cases = {
        f"as initialised, {memories.replace('up to', 'memories up to')}": (of, "checkpoint")
        for memories, of in report["long_gradient_errors"].items()
    }
    cases["trained, u = 1"] = (report["float_gradients"], "recompute")
    rows = []
    for network, (by_steps, other) in cases.items():
        for steps, of in by_steps.items():
            ours, single = scientific(of["reversible"]), scientific(of[other])
            rows.append([network, f"{int(steps):,}", ours, f"{single}, `{other}`"])
    note = (
        "relative to the norm of all gradients (as initialised) or to the largest entry (trained)"
    )
    head = "network|steps|error of `reversible`|in single precision"
    return Table(head, rows, f"{note}. {_measured(report)}")


def _cost(row: Entry) -> str:
    time = 1e6 * row["seconds"] / row["steps"]
    return f"{_megabytes(row['peak_bytes'])}, {time:.1f} µs a step"


def _megabytes(size: float, digits: int = 1) -> str:
    return f"{size / 1e6:,.{digits}f} MB"


def _shape(entry: Entry) -> str:
    return f"({', '.join(str(entry[x]) for x in ('steps', 'batch', 'hidden', 'couplings'))})"


def _measured(report: Entry) -> str:
    """Return where a result was measured, and from which code."""
    environment = report["environment"]
    made_at = environment.get("git_commits", [environment["git_commit"]])
    commits = " and ".join(commit[:10] for commit in made_at)
    return (
        f"{environment['cpu']}, {count(environment['threads'], 'thread')}; irevrnn "
        f"{environment['versions']['irevrnn']} at commit {commits}, "
        f"profile `{report['profile']}`."
    )
