"""Report what each CUDA kernel takes of a GPU, as the compiler says.

``python -m experiments.bench.cuda_resources --output build/cuda_kernels.json`` compiles every
kernel for some architectures and writes a summary, of which ``paper/results/`` has a copy. Beside
it, in ``build/cuda_kernels.jsonl``, it lists registers, spilled bytes, stack frame and shared
memory of each kernel. It needs nvcc and a C++ compiler, but neither a GPU nor a CUDA build of
PyTorch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import tyro

from experiments.files import write_text
from experiments.provenance import provenance
from irevrnn.jit import cuda
from irevrnn.jit.build import files_of
from irevrnn.jit.cache import digest, locate, put
from irevrnn.jit.commands import BuildError, last_lines, run, say

#: Turing, Ampere, Hopper, Blackwell: the kernels are compiled for those that the toolkit knows.
ARCHS = (75, 80, 90, 100)

#: For each pass, its float32 kernels that are compiled for an R.
PASSES = {
    "forward recompute": r"Forward.*, (\d), false, float, float",
    "forward store": r"Forward.*, (\d), true, float, float",
    "backward recompute": r"Backward.*, (\d), false, float, float",
    "backward store": r"Backward.*, (\d), true, float, float",
    "forward reversible": r"FixedForward.*<(\d), .*, float",
    "inverse reversible": r"FixedInverse.*<(\d), .*, float",
}
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
    """Return the most that any f and architecture takes in a pass, ``registers`` by R."""
    pattern = re.compile(f"kernel<{PASSES[name]}> >")
    members = [(pattern.fullmatch(kernel.name), kernel) for kernel in kernels]
    taken = [(found[1], kernel) for found, kernel in members if found]
    couplings = sorted({r for r, _ in taken})
    return {
        "pass": name,
        "kernels": len({kernel.name for _, kernel in taken}),
        "registers": {r: max(k.registers for of, k in taken if of == r) for r in couplings},
        "spilled": max(kernel.spilled for _, kernel in taken),
        "stack": max(kernel.stack for _, kernel in taken),
    }


def main(output: Path) -> None:
    """Compile every CUDA kernel, and report what each takes of a GPU.

    Args:
        output: the JSON file to write; a list of all kernels goes beside it.
    """
    try:
        toolkit = cuda.find_toolkit()
        archs = [arch for arch in ARCHS if arch in toolkit.archs]
        say(f"compiling every CUDA kernel for compute capability {cuda.spoken(archs)} ...")
        kernels = kernels_of(product(archs, sorted(cuda.FOLDERS[0].glob("*.cu"))), cuda.FOLDERS)
        found = {"environment": provenance(), "nvcc": toolkit.version, "archs": archs}
        found["summary"] = [summary(name, kernels) for name in PASSES]
        write_text(output, json.dumps(found, indent=1) + "\n")
        lines = [f"{json.dumps(asdict(kernel))}\n" for kernel in kernels]
        write_text(output.with_suffix(".jsonl"), "".join(lines))
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: no report: {error}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.bench.cuda_resources")
