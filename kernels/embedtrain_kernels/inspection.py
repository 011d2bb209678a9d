"""Compile a kernel without a GPU and read what the compiler made of it; importing this needs Triton."""

import contextlib
import io
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from embedtrain_kernels.catalogue import Entry

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SHARED_LIMIT = {80: 166_912, 90: 232_448, 100: 232_448}
"""Bytes of shared memory that one block may have (CUDA C++ programming guide, compute capabilities)."""
SHARED_PER_MULTIPROCESSOR = {80: 167_936, 90: 233_472, 100: 233_472}
RESERVED_PER_BLOCK = 1024
REGISTERS = 65_536
THREADS = 2048
TENSOR_MEMORY_COLUMNS = 512
INSTRUCTIONS = {
    "mma": r"HMMA|IMMA|DMMA",
    "wgmma": r"HGMMA",
    "tcgen05": r"UTC\w*MMA",
    "atomics": r"ATOMG|ATOM$|ATOM\.|RED$|RED\.|REDG",
    "spills": r"LDL|STL",
}
"""How the machine code (SASS) names what is counted."""


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel needs and contains."""

    registers: int
    stack_bytes: int
    shared_bytes: int
    tensor_memory_columns: int
    instructions: int
    mma: int
    wgmma: int
    tcgen05: int
    atomics: int
    spills: int
    blocks: int
    """Blocks that fit one multiprocessor."""


def inspect_entry(entry: Entry) -> Resources:
    """Compile an entry to machine code and count."""
    source = ASTSource(entry.kernel, entry.signature(), entry.constants, entry.attributes())
    target = GPUTarget("cuda", entry.architecture, 32)
    with contextlib.redirect_stdout(io.StringIO()):  # Triton prints the whole PTX when ptxas fails
        compiled = triton.compile(source, target=target, options=entry.launch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "-res-usage", file.name)
        code = _run("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    pattern = r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.\w+)*)"
    operations = re.findall(pattern, code, re.MULTILINE)
    counts = {
        name: sum(bool(re.match(pattern, operation)) for operation in operations)
        for name, pattern in INSTRUCTIONS.items()
    }
    registers, shared = int(found[1]), int(compiled.metadata.shared)
    return Resources(
        registers=registers,
        stack_bytes=int(found[2]),
        shared_bytes=shared,
        tensor_memory_columns=int(getattr(compiled.metadata, "tmem_size", 0) or 0),
        instructions=len(operations),
        **counts,
        blocks=_blocks(entry, registers, shared),
    )


def faults(entry: Entry, found: Resources) -> list[str]:
    """Say what forbids this kernel to be offered; empty if nothing."""
    limit = SHARED_LIMIT[entry.architecture]
    wanted = entry.instruction
    checks = {
        f"spills registers ({found.stack_bytes} bytes of stack)": found.spills or found.stack_bytes,
        f"needs {found.shared_bytes} bytes of shared memory of {limit}": found.shared_bytes > limit,
        f"needs {found.tensor_memory_columns} columns of tensor memory": (
            found.tensor_memory_columns > TENSOR_MEMORY_COLUMNS
        ),
        "has global atomics": found.atomics,
        f"has no {wanted} instruction": wanted is not None and not getattr(found, wanted),
        "does not fit a multiprocessor": found.blocks < 1,
    }
    return [fault for fault, present in checks.items() if present]


def _blocks(entry: Entry, registers: int, shared: int) -> int:
    threads = 32 * entry.launch["num_warps"]
    by_register = REGISTERS // (-(-registers // 8) * 8 * threads)
    by_shared = SHARED_PER_MULTIPROCESSOR[entry.architecture] // (shared + RESERVED_PER_BLOCK)
    return min(by_register, by_shared, THREADS // threads)


def _run(tool: str, *arguments: str) -> str:
    command = [str(TOOLS / tool), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
