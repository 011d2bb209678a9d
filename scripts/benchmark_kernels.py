"""Time the Triton kernels on a CUDA device, beside bare GEMMs and the chunked backend of the same operation.

    python scripts/benchmark_kernels.py [--json FILE]

Prints, for forward and backward together, milliseconds, the ratio to the measured time of the GEMMs that the
operation cannot do without (three for InfoNCE, one for MaxSim), and peak memory beyond the inputs. Without a
CUDA device there is nothing to measure: the script says so and exits with code 2.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from embedtrain.ops.infonce.loss import infonce
from embedtrain.ops.maxsim.scores import maxsim
from embedtrain.types import TokenEmbeddings

MIB = 2**20
Step = Callable[[], object]


def infonce_steps(size: int, dim: int, dtype: torch.dtype) -> dict[str, Step]:
    """Return one training step per backend, and the GEMMs that bound it."""
    query, document = (
        F.normalize(torch.randn(size, dim, device="cuda"), dim=1).to(dtype).requires_grad_()
        for _ in range(2)
    )
    positives = torch.arange(size, device="cuda")[:, None]
    ids = torch.arange(size, device="cuda")
    rows = query.detach()[: min(size, 8192)]  # the ceiling needs no more memory than one tile
    scores = torch.empty(len(rows), size, dtype=dtype, device="cuda")

    def step(backend: str) -> Step:
        def run() -> None:
            loss = infonce(query, document, positives, 0.05, document_ids=ids, backend=backend).loss
            torch.autograd.grad(loss, (query, document))

        return run

    def gemms() -> None:
        for _ in range(-(-size // len(rows))):
            torch.mm(rows, document.detach().T, out=scores)
            torch.mm(scores, document.detach())
            torch.mm(scores.T, rows)

    return {"gemm": gemms, "fused": step("fused"), "chunked": step("chunked")}


def maxsim_steps(size: int, dtype: torch.dtype) -> dict[str, Step]:
    """Return one training step per backend for 32 query and 180 document tokens of 128 numbers."""
    query = torch.randn(size, 32, 128, device="cuda").to(dtype).requires_grad_()
    document = torch.randn(size, 180, 128, device="cuda").to(dtype).requires_grad_()
    left, right = (
        TokenEmbeddings(t.flatten(0, 1), torch.full((size,), t.shape[1], device="cuda"))
        for t in (query, document)
    )

    def step(backend: str) -> Step:
        def run() -> None:
            scores = maxsim(left, right, backend=backend)
            torch.autograd.grad(scores.sum(), (query, document))

        return run

    return {
        "gemm": lambda: torch.mm(left.tokens.detach(), right.tokens.detach().T),
        "fused": step("fused"),
        "chunked": step("chunked"),
    }


def measure(step: Step) -> tuple[float, float]:
    """Return milliseconds (median) and peak memory in MiB beyond what was allocated before."""
    from triton.testing import do_bench

    step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / MIB
    return do_bench(step, return_mode="median"), peak


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures as one flat object")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name(), torch.__version__)
    cases = {
        f"infonce_{size}_{dim}": infonce_steps(size, dim, torch.bfloat16)
        for size in (4096, 16_384, 65_536)
        for dim in (128, 384, 512)
    }
    cases |= {f"maxsim_{size}": maxsim_steps(size, torch.bfloat16) for size in (32, 128)}
    figures = {}
    for case, steps in cases.items():
        found = {name: measure(step) for name, step in steps.items()}
        for name, (milliseconds, peak) in found.items():
            ratio = milliseconds / found["gemm"][0]
            figures[f"{case}_{name}_milliseconds"] = milliseconds
            figures[f"{case}_{name}_over_gemm"] = ratio
            figures[f"{case}_{name}_peak_mib"] = peak
            print(f"{case:20s} {name:8s} {milliseconds:9.3f} ms {ratio:6.2f} {peak:9.1f} MiB")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
