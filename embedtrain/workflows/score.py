"""Workflow: a teacher scores the (query, document) lists of training rows, for distillation."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.data.batches import pad_rows
from embedtrain.data.examples import Example, Source, SourceConfig
from embedtrain.data.sources import open_source
from embedtrain.encoding.pair_scorers import (
    PairScorer,
    ScorerKind,
    detect_kind,
    open_pair_scorer,
)
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.files import default_cache, finish, write_file
from embedtrain.leftovers import fitting
from embedtrain.locks import owns
from embedtrain.mining.sources import encode_task
from embedtrain.mining.task import MiningTask
from embedtrain.models.build import load_encoder
from embedtrain.outside import writing
from embedtrain.precision import Precision
from embedtrain.progress import progress_bar
from embedtrain.stopping import SAME_COMMAND, going_on

ScoreExamples = Callable[[Sequence[Example]], list[NDArray[np.float64]]]
"""Gives each example the scores of its positives, then of its negatives."""

EXAMPLES_PER_BLOCK = 256
DECIMALS = 6
CURE = "Make room and start the same command again: it goes on where it was"


@dataclass(frozen=True)
class Teacher:
    """What scores, and a key that changes with its weights."""

    score: ScoreExamples
    key: str


@going_on(SAME_COMMAND)
@owns("output")
def score(
    teacher: str,
    data: SourceConfig,
    output: Path,
    *,
    kind: ScorerKind | None = None,
    batch_size: int = 32,
    precision: Precision = "auto",
    cache: Path | None = None,
) -> int:
    """Write the rows of ``data`` again, with the teacher's ``scores`` beside their documents.

    Scores are what the teacher says: log-odds of a cross-encoder, similarities of an encoder. A killed run
    goes on behind the last whole block of rows and ends with the same bytes.

    Args:
        teacher: A sequence classifier, or an encoder of either kind; folder or Hub id.
        data: Training rows; those mined by ``embedtrain mine`` are a good choice.
        output: A ``.jsonl`` file, itself a source of training rows.
        kind: What the teacher is; None finds out from its ``config.json``.
        batch_size: Pairs that a cross-encoder scores at once.
        precision: What the teacher computes in.
        cache: Folder of caches; the user's if None.

    Returns:
        Number of rows.
    """
    if output.suffix != ".jsonl":
        raise UserError("--output", "must end in .jsonl", got=str(output), cure="Rename it")
    source = open_source(data, cache)
    found = kind or detect_kind(teacher)
    if found == "encoder":
        opened = open_encoder(teacher, source, cache or default_cache(), precision)
    else:
        scorer = open_pair_scorer(teacher, kind=found, precision=precision, batch_size=batch_size)
        opened = open_scorer(scorer, batch_size)
    fingerprint = hashlib.sha256(f"{source.fingerprint}\n{opened.key}".encode()).hexdigest()
    return _write(opened, source, output, fingerprint)


def _write(teacher: Teacher, source: Source, output: Path, fingerprint: str) -> int:
    """Score block after block into a file that gets its name at the end; return the number of rows."""
    partial, mark = (
        output.with_name(fitting(output.stem, end)) for end in (".partial", ".fingerprint")
    )
    num_done = _begin(partial, mark, fingerprint)
    examples = islice(source.examples(), num_done, None)
    with progress_bar("Scoring", source.length) as advance:
        advance(num_done)
        while block := list(islice(examples, EXAMPLES_PER_BLOCK)):
            lines = "".join(_lines(block, teacher.score(block)))
            with writing(output, cure=CURE), partial.open("ab") as file:
                file.write(lines.encode())
            num_done += len(block)
            advance(len(block))
    with writing(output):
        finish(partial, output)
        mark.unlink()
    return num_done


def open_scorer(scorer: PairScorer, batch_size: int) -> Teacher:
    """Score the pairs of a block of rows in one call."""

    def score_examples(examples: Sequence[Example]) -> list[NDArray[np.float64]]:
        pairs = [(example.query, text) for example in examples for text in _documents(example)]
        ends = np.cumsum([len(_documents(example)) for example in examples])
        return np.split(scorer.logits(pairs), ends[:-1])

    return Teacher(score_examples, f"{scorer.key()} {batch_size}")


def open_encoder(
    teacher: str, source: Source, cache: Path, precision: Precision = "auto"
) -> Teacher:
    """Score pairs by the similarity of embeddings; each distinct text is encoded once, and kept."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    for example in source.examples():
        queries.setdefault(example.query, len(queries))
        for text in _documents(example):
            documents.setdefault(text, len(documents))
    task = MiningTask(
        name=source.place,
        query_ids=[],
        queries=list(queries),
        document_ids=[],
        documents=list(documents),
        positives=[],
        fingerprint=source.fingerprint,
    )
    encoded = encode_task(load_encoder(teacher), task, cache, Shard(), precision)

    def score_examples(examples: Sequence[Example]) -> list[NDArray[np.float64]]:
        rows = np.array([queries[example.query] for example in examples])
        lists = [
            np.array([documents[text] for text in _documents(example)]) for example in examples
        ]
        scores = encoded.score(rows, pad_rows(lists))
        return [row[: len(own)] for row, own in zip(scores, lists, strict=True)]

    return Teacher(score_examples, encoded.key)


def _documents(example: Example) -> tuple[str, ...]:
    return example.positives + example.negatives


def _lines(examples: Sequence[Example], scores: Sequence[NDArray[np.float64]]) -> Iterator[str]:
    for example, own in zip(examples, scores, strict=True):
        row = {
            "query_id": example.query_id,
            "query": example.query,
            "positives": example.positives,
            "negatives": example.negatives,
            "scores": [round(value, DECIMALS) for value in own.tolist()],
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _begin(partial: Path, mark: Path, fingerprint: str) -> int:
    """Return how many rows are done; what a kill left behind the last whole block is cut off.

    Blocks are whole because the bits of a score may depend on the pairs it was computed with.
    """
    if partial.is_file() and mark.is_file() and mark.read_text("utf-8") == fingerprint:
        with partial.open("rb") as file:
            offsets, size = [0], 0
            for line in file:
                size += len(line)
                if line.endswith(b"\n"):
                    offsets.append(size)
        whole = (len(offsets) - 1) // EXAMPLES_PER_BLOCK * EXAMPLES_PER_BLOCK
        with partial.open("r+b") as file:
            file.truncate(offsets[whole])
        return whole
    write_file(mark, fingerprint)
    write_file(partial, b"")
    return 0
