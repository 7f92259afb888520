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
from irevrnn.kernels.jit import cuda
from irevrnn.kernels.jit.build import cache_folder, digest, files_of
from irevrnn.kernels.jit.compiler import BuildError, run, say

#: Turing, Ampere, Hopper, Blackwell.
ARCHS = (75, 80, 90, 100)

#: For each pass, its float32 kernels that are compiled for an R.
PASSES = {
    "forward recompute": r"Forward.*, (\d), false, float",
    "forward store": r"Forward.*, (\d), true, float",
    "backward recompute": r"Backward.*, (\d), false, float",
    "backward store": r"Backward.*, (\d), true, float",
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
    nvcc, identity = cuda.find_nvcc()
    reports: dict[str, Path] = {}
    missing: dict[str, list[str]] = {}
    for arch, file in jobs:
        words = [*nvcc, *_STRICT, "-gencode", f"arch=compute_{arch},code=sm_{arch}"]
        key = digest(identity, *words, *files_of([file], *folders))
        job = f"{file.name} for compute capability {arch / 10}"
        reports[job] = cache_folder() / f"report-{key}" / f"{file.name}.txt"
        if not reports[job].exists():
            own = [f"-I{folder}" for folder in folders]
            missing[job] = [*words, *own, "-c", str(file), "-o", f"{job}.o"]
    with tempfile.TemporaryDirectory(prefix="irevrnn-") as work:
        for job, said in run(missing, work).items():
            reports[job].parent.mkdir(parents=True, exist_ok=True)
            write_text(reports[job], said)
    files = ((kept.stem, kept.read_text()) for kept in reports.values())
    return [kernel for name, text in files for kernel in read_report(name, text)]


def read_report(file: str, report: str) -> list[Kernel]:
    """Read what ``ptxas -v`` said of a file."""
    text = subprocess.run(["c++filt", "-p"], input=report, capture_output=True, text=True).stdout
    text = re.sub(r"\(anonymous namespace\)::|irevrnn::", "", text)
    found = _ENTRY.findall(text)
    if len(found) != report.count("Compiling entry function"):
        raise BuildError(f"this report of ptxas is not understood:\n{report[-3000:]}")
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
        version = re.findall(r"release ([\d.]+)", cuda.find_nvcc()[1])
        say(f"compiling every CUDA kernel for the architectures {ARCHS} ...")
        files = sorted(cuda.FOLDERS[0].glob("*.cu"))
        kernels = [
            kernel for arch in ARCHS  # one after another: an interruption loses one alone
            for kernel in kernels_of(product([arch], files), cuda.FOLDERS)
        ]  # fmt: skip
        found = {"environment": provenance(), "nvcc": version[0], "archs": ARCHS}
        found["summary"] = [summary(name, kernels) for name in PASSES]
        write_text(output, json.dumps(found, indent=1) + "\n")
        lines = [f"{json.dumps(asdict(kernel))}\n" for kernel in kernels]
        write_text(output.with_suffix(".jsonl"), "".join(lines))
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: no report: {error}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.bench.cuda_resources")
