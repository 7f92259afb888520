"""What each CUDA kernel takes of a GPU, from the compiler's own report.

``python -m experiments.bench.cuda_resources --output FILE`` compiles every kernel for some architectures and
writes registers, spilled bytes, stack frame and shared memory of each. It takes nvcc and a C++
compiler, and neither a GPU nor a CUDA build of PyTorch.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from experiments.bench.traffic import backward_bytes, forward_bytes
from experiments.files import write_text
from experiments.provenance import provenance
from irevrnn.jit import archs, ninja
from irevrnn.jit.build import digest
from irevrnn.jit.cache import cached_path, say
from irevrnn.jit.compiler import BuildError, Compiler
from irevrnn.jit.cuda import FOLDERS
from irevrnn.jit.nvcc import Toolkit, find_host_compiler, find_toolkit, options

#: Turing, Ampere, Hopper, Blackwell: what the kernels are compiled for where the toolkit knows it.
ARCHS = (75, 80, 90, 100)

#: The passes over a sequence. For each, what a thread of its kernels does, whether it keeps every
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
#: Steps of a sequence so long that its ends no longer count.
_LONG = 1 << 24

# Warnings are errors, the assembler's too, which then reports what each kernel takes.
_STRICT = ("-Werror", "all-warnings", "-Xptxas", "-v,-Werror")


@dataclass(frozen=True)
class Kernel:
    """What the compiler reports of one kernel for one architecture.

    Attributes:
        file: name of its source.
        name: demangled, without the arguments.
        arch: such as 80.
        registers: of a thread.
        spilled: bytes that a thread writes to and reads from local memory for want of registers.
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
        """What a thread of it does: the class that it runs."""
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
    """Compile files, without warnings; what each of their kernels takes.

    What the compiler said is kept in the cache, in a place named after all that it depends on.

    Args:
        jobs: architecture and file of each; they run side by side.
        folders: the sources' folders, as :data:`irevrnn.jit.cuda.FOLDERS`.

    Raises:
        BuildError: the compiler is missing, or does not take a file, or warns of something.
    """
    jobs = list(jobs)
    toolkit = find_toolkit()
    archs.check_known([arch for arch, _ in jobs], toolkit.archs, str(toolkit))
    host = find_host_compiler(toolkit)
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        reports = list(pool.map(lambda job: _report(toolkit, host, job[0], job[1], folders), jobs))
    pairs = zip(jobs, reports, strict=True)
    return [kernel for (_, file), said in pairs for kernel in read_report(file.name, said)]


def _report(
    toolkit: Toolkit, host: Compiler, arch: int, file: Path, folders: tuple[Path, Path]
) -> str:
    machine_code = ["-gencode", f"arch=compute_{arch},code=sm_{arch}"]
    flags = [*options(host), *_STRICT, *machine_code]
    key = digest((toolkit.identity, host.identity, *flags), with_headers(file, folders))
    kept = cached_path(f"report-{key}", f"{file.name}.txt")
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=kept.parent) as work:
            command = [toolkit.nvcc, *flags, *(f"-I{folder}" for folder in folders)]
            status, said = ninja.run([*command, "-c", str(file), "-o", "kernels.o"], work)
            if status != 0:
                raise BuildError(
                    f"{toolkit} does not take {file.name} for compute capability "
                    f"{archs.spoken([arch])}:\n{ninja.last_lines(said)}"
                )
            whole = Path(work, kept.name)
            whole.write_text(said)
            os.replace(whole, kept)
    return kept.read_text()


def with_headers(file: Path, folders: tuple[Path, Path]) -> list[Path]:
    """A source with all of ours that it includes, directly or not."""
    found = [file]
    for source in found:  # which grows meanwhile
        for name in re.findall(r'^\s*#\s*include "(.+)"', source.read_text(), re.MULTILINE):
            header = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if header and header not in found:
                found.append(header)
    return found


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
        BuildError: it announced a kernel and did not report on it in the words that are known here.
    """
    found = list(_ENTRY.finditer(report))
    if len(found) != report.count("Compiling entry function"):
        raise BuildError(f"this report of ptxas is not understood:\n{ninja.last_lines(report)}")
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
    """C++ names of symbols, without the functions' arguments."""
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
    """Every kernel for every architecture, ready for JSON, with where it comes from.

    Raises:
        BuildError: the compiler is missing, or does not take a file, or warns of something.
    """
    toolkit = find_toolkit()
    wanted = [arch for arch in ARCHS if arch in toolkit.archs]
    say(f"compiling every CUDA kernel for compute capability {archs.spoken(wanted)} ...")
    kernels = kernels_of(product(wanted, sorted(folders[0].glob("*.cu"))), folders)
    return {
        "environment": provenance(),
        "nvcc": toolkit.version,
        "archs": wanted,
        "summary": summary(kernels),
        "kernels": [asdict(kernel) for kernel in kernels],
    }


def summary(kernels: Iterable[Kernel]) -> list[dict[str, Any]]:
    """The float32 kernels by what they do: the most that any f and architecture takes.

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
                    str(r): round(count_bytes(_LONG, 1, 1, r, torch.float32, memory) / _LONG, 2)
                    for r in couplings
                },
            }
        )
    return rows


def as_text(found: dict[str, Any]) -> str:
    """A report as JSON with one kernel a line."""
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
