"""How long is a step on 8 or 64 GPUs? Bytes and FLOPs are measured here; everything beyond that is arithmetic.

    python scripts/size_cluster.py            # some seconds on a CPU; prints the tables of recipes/scale/README.md

Measured: the bytes of the loss's two messages on gloo ranks against the formula, and the FLOPs of a forward and
backward pass with torch's counter. Assumed, and printed with the tables: what share of its peak a GPU reaches and how
fast links are. No GPU was used.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from distributed_cases import Case, on_ranks, train_case
from distributed_toys import write_toys
from exit_codes import run_main
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

PEAK, USED = 989e12, 0.4
"""FLOP/s of an H100 in bf16 (its data sheet), and the share that training is assumed to reach."""
NVLINK, NETWORK = 450e9, 50e9
"""Bytes a second and GPU in one direction: NVLink 4, and one 400 Gb/s adapter per GPU (data sheets)."""
QUERY, DOCUMENT, PER_QUERY = 32, 128, 2
"""Tokens of a query and of a document, and documents per query: one positive, one negative."""


@dataclass(frozen=True)
class Encoder:
    """A transformer of BERT's form."""

    name: str
    layers: int
    width: int
    inner: int

    @property
    def parameters(self) -> int:
        """Weights of the layers; embeddings cost no FLOPs worth counting."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)

    def flops(self, tokens: int, length: int) -> float:
        """FLOPs of the forward and backward pass: 6 per weight and token, and attention."""
        return tokens * (6 * self.parameters + 12 * self.layers * self.width * length)


ENCODERS = (
    Encoder("BERT-base, 86 M", 12, 768, 3072),
    Encoder("BERT-large, 302 M", 24, 1024, 4096),
    Encoder("7 B", 32, 4096, 16_384),
)


def loss_bytes(documents: int, dim: int, ranks: int, width: int = 4) -> tuple[int, int, int]:
    """Return the bytes of a step's messages as every rank receives them: sizes, all-gather, reduce-scatter."""
    return 24 * ranks, documents * (width * dim + 16), documents * width * dim


def measure_bytes() -> None:
    """Print measured against predicted bytes."""
    print("Bytes of the loss's messages of a step, 8 queries, 16 documents of 32 float64 numbers")
    with tempfile.TemporaryDirectory() as folder:
        write_toys(Path(folder))
        for ranks in (2, 4):
            case = Case(ranks=ranks, chunked=True, double=True)
            traffic = on_ranks(ranks, train_case, case, Path(folder))["traffic"]
            measured = [size for _, size in traffic[:3]]
            print(
                f"  {ranks} ranks: measured {measured}, formula {list(loss_bytes(16, 32, ranks, 8))}"
            )


def measure_flops() -> None:
    """Print counted against predicted FLOPs."""
    encoder, length, texts = Encoder("small", 4, 256, 1024), 64, 4
    config = BertConfig(
        num_hidden_layers=encoder.layers, hidden_size=encoder.width, num_attention_heads=4,
        intermediate_size=encoder.inner, vocab_size=1000,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False)
    with FlopCounterMode(display=False) as counter:
        states = model(torch.randint(1000, (texts, length))).last_hidden_state
        states.sum().backward()
    counted, formula = counter.get_total_flops(), encoder.flops(texts * length, length)
    print(
        f"FLOPs of {texts} texts of {length} tokens: counted {counted:.3e}, formula {formula:.3e}"
    )


def print_step(encoder: Encoder, gpus: int, batch: int, strategy: str) -> None:
    """Print one line: what a step of one GPU costs."""
    queries, documents = batch // gpus, PER_QUERY * batch
    tokens = queries * (QUERY + PER_QUERY * DOCUMENT)
    flops = encoder.flops(tokens, DOCUMENT) * 1.25  # each chunk but the last is encoded again
    flops += 6 * queries * documents * encoder.width
    messages = sum(loss_bytes(documents, encoder.width, gpus))
    sharded = strategy in ("fsdp", "deepspeed_3")
    # DDP: a ring sends each gradient twice. Sharded weights: fetched for each of two chunks, forward and
    # backward, and their gradient reduced for each.
    gradients = 4 * encoder.parameters * (2 * 3 if sharded else 2)
    speed = NVLINK if gpus <= 8 else NETWORK
    compute, wire = flops / (PEAK * USED), (messages + gradients) / speed
    memory = 16 * encoder.parameters / (gpus if sharded else 1)
    print(
        f"| {encoder.name} | {gpus} | {strategy} | {batch:,} | {flops / 1e12:,.0f} | "
        f"{messages / 1e6:,.0f} | {gradients / 1e9:,.1f} | {memory / 2**30:,.1f} | {compute:.2f} | "
        f"{wire:.2f} | {batch / max(compute, wire):,.0f} to {batch / (compute + wire):,.0f} |"
    )


def main() -> None:
    """Measure, then extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    torch.set_num_threads(1)
    measure_bytes()
    measure_flops()
    print(
        f"\nArithmetic, not measured: H100 at {USED:.0%} of {PEAK / 1e12:.0f} TFLOP/s, {NVLINK / 1e9:.0f} GB/s "
        f"inside a machine, {NETWORK / 1e9:.0f} GB/s between; queries of {QUERY} and {PER_QUERY} documents "
        f"of {DOCUMENT} tokens, float32 weights and messages, bf16 products, rematerialised.\n"
    )
    print(
        "| Encoder | GPUs | Strategy | Batch | TFLOP/GPU | Loss MB | Gradients GB | State GiB/GPU | Compute s "
        "| Wire s | Queries/s |\n|---|---|---|---|---|---|---|---|---|---|---|"
    )
    for encoder, strategy in zip(ENCODERS, ("ddp", "ddp", "fsdp"), strict=True):
        for gpus in (8, 64):
            print_step(encoder, gpus, 2048 * gpus if encoder.layers < 32 else 128 * gpus, strategy)


if __name__ == "__main__":
    run_main(main)
