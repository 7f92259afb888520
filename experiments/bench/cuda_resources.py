"""Report what each CUDA kernel takes of a GPU, as the compiler says.

``python -m experiments.bench.cuda_resources --output FILE`` compiles every kernel for some
architectures and writes registers, spilled bytes, stack frame and shared memory of each. It needs
nvcc and a C++ compiler, but neither a GPU nor a CUDA build of PyTorch.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from experiments.bench.recurrences import Shape
from experiments.bench.roofline import backward_bytes, forward_bytes
from experiments.files import write_text
from experiments.provenance import provenance
from irevrnn.jit import cuda
from irevrnn.jit.build import files_of
from irevrnn.jit.cache import digest, locate, put
from irevrnn.jit.commands import BuildError, last_lines, run, say

#: Turing, Ampere, Hopper, Blackwell: the kernels are compiled for those that the toolkit knows.
ARCHS = (75, 80, 90, 100)

#: For each pass, its float32 kernels that are compiled for an R, and the bytes that it moves, as a
#: function and the strategy that this takes. The bit buffer is left out: its size depends on the
#: data. The inverse reads z, and writes h and c of every segment.
PASSES: dict[str, tuple[str, Callable[..., int], str | None]] = {
    "forward recompute": (r"Forward.*, (\d), false, float, float", forward_bytes, "recompute"),
    "forward store": (r"Forward.*, (\d), true, float, float", forward_bytes, "store"),
    "backward recompute": (r"Backward.*, (\d), false, float, float", backward_bytes, "recompute"),
    "backward store": (r"Backward.*, (\d), true, float, float", backward_bytes, "store"),
    "forward reversible": (r"FixedForward.*<(\d), .*, float", forward_bytes, None),
    "inverse reversible": (r"FixedInverse.*<(\d), .*, float", forward_bytes, "recompute"),
}
#: Steps of a sequence whose ends no longer count.
_LONG = 1 << 24
# Warnings are errors, the assembler's too, which also reports what each kernel takes.
_STRICT = ("-Werror", "all-warnings", "-Xptxas", "-v,-Werror")
_ENTRY = re.compile(
    r"Compiling entry function '(.+?)' for 'sm_(\d+)'\n.*?(\d+) bytes stack frame, "
    r"(\d+) bytes spill stores, (\d+) bytes spill loads\n"
    r".*?Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """The compiler's report of one kernel for one architecture: registers of a thread, and bytes.

    What a thread spills, for lack of registers, it writes to and reads from local memory.
    """

    file: str
    name: str
    arch: int
    registers: int
    spilled: int
    stack: int
    shared: int


def kernels_of(jobs: Iterable[tuple[int, Path]], folders: tuple[Path, Path]) -> list[Kernel]:
    """Compile files, each for an architecture, without warnings; report on their kernels.

    A report is kept in the cache, in a folder named after all that it depends on.
    """
    toolkit = cuda.find_toolkit()
    host = cuda.find_host_compiler(toolkit)
    reports: dict[str, Path] = {}
    missing: dict[str, list[str]] = {}
    for arch, file in jobs:
        flags = [*cuda.options(host), *_STRICT, "-gencode", f"arch=compute_{arch},code=sm_{arch}"]
        key = digest(toolkit.identity, host.identity, *flags, *files_of([file], *folders))
        job = f"{file.name} for compute capability {cuda.spoken([arch])}"
        reports[job], there = locate(f"report-{key}", f"{file.name}.txt")
        if not there:
            own = [f"-I{folder}" for folder in folders]
            missing[job] = [toolkit.nvcc, *flags, *own, "-c", str(file), "-o", f"{job}.o"]
    with tempfile.TemporaryDirectory(prefix="irevrnn-") as work:
        for job, said in run(missing, work, f"{toolkit} does not take every file"):
            whole = reports[job].with_name("whole")
            whole.write_text(said)
            put(whole, reports[job])
    files = ((kept.stem, kept.read_text()) for kept in reports.values())
    return [kernel for name, text in files for kernel in read_report(name, text)]


def read_report(file: str, report: str) -> list[Kernel]:
    """Read what ``ptxas -v`` said of a file."""
    text = subprocess.run(["c++filt", "-p"], input=report, capture_output=True, text=True).stdout
    text = re.sub(r"\(anonymous namespace\)::|irevrnn::", "", text)
    found = _ENTRY.findall(text)
    if len(found) != report.count("Compiling entry function"):
        raise BuildError(f"this report of ptxas is not understood:\n{last_lines(report)}")
    kernels = []
    for name, *words in found:
        arch, stack, stored, loaded, registers, shared = (int(word or 0) for word in words)
        kernels.append(Kernel(file, name, arch, registers, stored + loaded, stack, shared))
    return kernels


def summary(name: str, kernels: Iterable[Kernel]) -> dict[str, Any]:
    """Return the most that any f and architecture takes in a pass, and the bytes moved.

    ``registers`` and ``bytes``, for each unit and step, are listed by R.
    """
    pattern, count_bytes, memory = PASSES[name]
    members = [(re.fullmatch(f"kernel<{pattern}> >", kernel.name), kernel) for kernel in kernels]
    taken = [(int(found[1]), kernel) for found, kernel in members if found]
    couplings = sorted({r for r, _ in taken})
    moved = {r: count_bytes(Shape(_LONG, 1, 1, r), memory) / _LONG for r in couplings}
    return {
        "pass": name,
        "kernels": len({kernel.name for _, kernel in taken}),
        "registers": {str(r): max(k.registers for of, k in taken if of == r) for r in couplings},
        "spilled": max(kernel.spilled for _, kernel in taken),
        "stack": max(kernel.stack for _, kernel in taken),
        "bytes": {str(r): round(count, 2) for r, count in moved.items()},
    }


def as_text(found: dict[str, Any]) -> str:
    """Return a report as JSON with one kernel a line."""
    kernels = ",\n".join(f"  {json.dumps(kernel)}" for kernel in found["kernels"])
    head = json.dumps({**found, "kernels": []}, indent=1)
    return head.replace('"kernels": []', f'"kernels": [\n{kernels}\n ]') + "\n"


def main() -> None:
    """Compile every kernel for every architecture and write the report, one kernel a line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.cuda_resources",
        description="Compile every CUDA kernel and report what each takes of a GPU.",
    )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    output = parser.parse_args().output
    try:
        toolkit = cuda.find_toolkit()
        archs = [arch for arch in ARCHS if arch in toolkit.archs]
        say(f"compiling every CUDA kernel for compute capability {cuda.spoken(archs)} ...")
        kernels = kernels_of(product(archs, sorted(cuda.FOLDERS[0].glob("*.cu"))), cuda.FOLDERS)
        head = {"environment": provenance(), "nvcc": toolkit.version, "archs": archs}
        head["summary"] = [summary(name, kernels) for name in PASSES]
        write_text(output, as_text({**head, "kernels": [asdict(kernel) for kernel in kernels]}))
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: no report: {error}")


if __name__ == "__main__":
    main()
