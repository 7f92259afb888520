"""Report what each CUDA kernel takes of a GPU, as the compiler says.

``python -m experiments.bench.cuda_resources --output FILE`` compiles every kernel for some
architectures and writes registers, spilled bytes, stack frame and shared memory of each. It needs
nvcc and a C++ compiler, but neither a GPU nor a CUDA build of PyTorch.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
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
from irevrnn.jit import nvcc
from irevrnn.jit.cache import digest, locate, put
from irevrnn.jit.commands import BuildError, last_lines, run, say
from irevrnn.jit.cuda import FOLDERS
from irevrnn.jit.library import with_headers

#: Turing, Ampere, Hopper, Blackwell: the kernels are compiled for those that the toolkit knows.
ARCHS = (75, 80, 90, 100)

#: The passes over a sequence. For each, the class that its kernels run, whether it saves every
#: value of f, and the bytes that it moves, as a function and the strategy that this takes. The bit
#: buffer is left out: its size depends on the data. The inverse reads z, and writes h and values.
PASSES: dict[str, tuple[str, bool | None, Callable[..., int], str | None]] = {
    "forward recompute": ("Forward", False, forward_bytes, "recompute"),
    "forward store": ("Forward", True, forward_bytes, "store"),
    "backward recompute": ("Backward", False, backward_bytes, "recompute"),
    "backward store": ("Backward", True, backward_bytes, "store"),
    "forward reversible": ("FixedForward", None, forward_bytes, None),
    "inverse reversible": ("FixedInverse", None, forward_bytes, "store"),
}
#: Steps of a sequence whose ends no longer count.
_LONG = 1 << 24

# Warnings are errors, the assembler's too, which also reports what each kernel takes.
_STRICT = ("-Werror", "all-warnings", "-Xptxas", "-v,-Werror")


@dataclass(frozen=True)
class Kernel:
    """The compiler's report of one kernel for one architecture.

    Attributes:
        file: name of its source.
        name: demangled, without the arguments.
        arch: such as 80.
        registers: of a thread.
        spilled: bytes that a thread writes to and reads from local memory for lack of registers.
        stack: bytes of a thread's stack frame.
        shared: bytes of a block's shared memory that the kernel itself declares.
    """

    file: str
    name: str
    arch: int
    registers: int
    spilled: int
    stack: int
    shared: int

    @property
    def work(self) -> str:
        """Name of the class that it runs."""
        return re.sub(r"^kernel<|Work\b.*|<.*", "", self.name)

    @property
    def couplings(self) -> int | None:
        """R that the kernel is compiled for; negative for any, None where it has none."""
        found = re.search(r"[<,] ?(?:\(int\))?(-?\d+)[,>]", self.name)
        return int(found[1]) if found else None

    @property
    def keeps_all(self) -> bool | None:
        """Whether it writes or reads every value of f; None where there is no choice."""
        found = re.search(r", (true|false),", self.name)
        return found[1] == "true" if found else None

    @property
    def unrolled(self) -> bool:
        """Whether it is compiled for an R, from 0 to 4."""
        return self.couplings is not None and self.couplings >= 0

    @property
    def in_float32(self) -> bool:
        """Whether it computes and stores float32 alone."""
        return set(re.findall(r"\b(b?float\w*|double)\b", self.name)) == {"float"}


def kernels_of(jobs: Iterable[tuple[int, Path]], folders: tuple[Path, Path]) -> list[Kernel]:
    """Compile files side by side, without warnings, and report on each of their kernels.

    A report is kept in the cache, in a folder named after all that it depends on.

    Args:
        jobs: architecture and file of each.
        folders: the sources' folders, as :data:`irevrnn.jit.cuda.FOLDERS`.

    Raises:
        BuildError: the compiler is missing, or does not take a file, or warns of something.
    """
    jobs = list(jobs)
    toolkit = nvcc.find_toolkit()
    nvcc.check_known([arch for arch, _ in jobs], toolkit)
    host = nvcc.find_host_compiler(toolkit)
    reports: dict[str, Path] = {}
    missing: dict[str, list[str]] = {}
    for arch, file in jobs:
        flags = [*nvcc.options(host), *_STRICT, "-gencode", f"arch=compute_{arch},code=sm_{arch}"]
        key = digest(toolkit.identity, host.identity, *flags, *with_headers([file], *folders))
        job = f"{file.name} for compute capability {nvcc.spoken([arch])}"
        reports[job], there = locate(f"report-{key}", f"{file.name}.txt")
        if not there:
            own = [f"-I{folder}" for folder in folders]
            missing[job] = [toolkit.nvcc, *flags, *own, "-c", str(file), "-o", f"{job}.o"]

    with tempfile.TemporaryDirectory(prefix="irevrnn-") as work:
        for job, said in run(missing, work, f"{toolkit} does not take every file"):
            whole = reports[job].with_name("whole")
            whole.write_text(said)
            put(whole, reports[job])
    texts = zip((file.name for _, file in jobs), reports.values(), strict=True)
    return [kernel for name, kept in texts for kernel in read_report(name, kept.read_text())]


_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)'\n"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stored>\d+) bytes spill stores, "
    r"(?P<loaded>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers(?P<rest>.*?)$",
    re.DOTALL | re.MULTILINE,
)


def read_report(file: str, report: str) -> list[Kernel]:
    """Read what ``ptxas -v`` said of a file.

    Raises:
        BuildError: it announces a kernel and does not report on it in the words known here.
    """
    found = list(_ENTRY.finditer(report))
    if len(found) != report.count("Compiling entry function"):
        raise BuildError(f"this report of ptxas is not understood:\n{last_lines(report)}")
    names = demangled([entry["name"] for entry in found])
    return [
        Kernel(
            file=file,
            name=name,
            arch=int(entry["arch"]),
            registers=int(entry["registers"]),
            spilled=int(entry["stored"]) + int(entry["loaded"]),
            stack=int(entry["stack"]),
            shared=int((re.search(r"(\d+) bytes smem", entry["rest"]) or "00")[1]),
        )
        for name, entry in zip(names, found, strict=True)
    ]


def demangled(symbols: list[str]) -> list[str]:
    """Return C++ names of symbols, without the functions' arguments."""
    library = ctypes.CDLL("libstdc++.so.6")  # which PyTorch has loaded
    library.__cxa_demangle.restype = ctypes.c_void_p
    names = []
    for symbol in symbols:
        status = ctypes.c_int()
        found = library.__cxa_demangle(symbol.encode(), None, None, ctypes.byref(status))
        name = ctypes.string_at(found).decode() if status.value == 0 else symbol
        names.append(_shortened(name))
        library.free(ctypes.c_void_p(found))
    return names


def _shortened(name: str) -> str:
    """Leave out namespaces, the returned type and the function's arguments."""
    name = re.sub(r"^void |\(anonymous namespace\)::|irevrnn::", "", name)
    depth = 0
    for place, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:place]
    return name


def report(folders: tuple[Path, Path] = FOLDERS) -> dict[str, Any]:
    """Report every kernel for every architecture, ready for JSON, with its provenance.

    Raises:
        BuildError: the compiler is missing, or does not take a file, or warns of something.
    """
    toolkit = nvcc.find_toolkit()
    wanted = [arch for arch in ARCHS if arch in toolkit.archs]
    say(f"compiling every CUDA kernel for compute capability {nvcc.spoken(wanted)} ...")
    kernels = kernels_of(product(wanted, sorted(folders[0].glob("*.cu"))), folders)
    return {
        "environment": provenance(),
        "nvcc": toolkit.version,
        "archs": wanted,
        "summary": summary(kernels),
        "kernels": [asdict(kernel) for kernel in kernels],
    }


def summary(kernels: Iterable[Kernel]) -> list[dict[str, Any]]:
    """Summarise the float32 kernels by pass: the most that any f and architecture takes.

    Returns:
        For each of :data:`PASSES`: its name, ``registers`` by R, ``spilled`` and ``stack`` bytes,
        and the ``bytes`` that it moves for each unit and step, by R.
    """
    chosen = [kernel for kernel in kernels if kernel.in_float32 and kernel.unrolled]
    rows = []
    for name, (work, keeps_all, count_bytes, memory) in PASSES.items():
        members = [k for k in chosen if k.work == work and k.keeps_all is keeps_all]
        couplings = sorted({kernel.couplings or 0 for kernel in members})
        rows.append(
            {
                "pass": name,
                "kernels": len({kernel.name for kernel in members}),
                "registers": {
                    str(r): max(k.registers for k in members if k.couplings == r) for r in couplings
                },
                "spilled": max(kernel.spilled for kernel in members),
                "stack": max(kernel.stack for kernel in members),
                "bytes": {
                    str(r): round(count_bytes(Shape(_LONG, 1, 1, r), memory) / _LONG, 2)
                    for r in couplings
                },
            }
        )
    return rows


def as_text(found: dict[str, Any]) -> str:
    """Return a report as JSON with one kernel a line."""
    kernels = ",\n".join(f"  {json.dumps(kernel)}" for kernel in found["kernels"])
    head = json.dumps({**found, "kernels": []}, indent=1)
    return head.replace('"kernels": []', f'"kernels": [\n{kernels}\n ]') + "\n"


def main() -> None:
    """Compile and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.cuda_resources",
        description="Compile every CUDA kernel and report what each takes of a GPU.",
    )
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    output = parser.parse_args().output
    try:
        write_text(output, as_text(report()))
    except (BuildError, OSError) as error:
        sys.exit(f"irevrnn: no report: {error}")


if __name__ == "__main__":
    main()
