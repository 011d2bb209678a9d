"""Workflow: a teacher scores the (query, document) lists of training rows, for distillation."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from embedtrain.contract.spans import alone, as_fields
from embedtrain.data.batches import pad_rows
from embedtrain.data.examples import Example, Source, SourceConfig
from embedtrain.data.gram import gram_of
from embedtrain.data.readers.rows import GRAM_NAME, MASKED_NAME
from embedtrain.data.sources import open_source
from embedtrain.encoding.language.endpoint import is_endpoint
from embedtrain.encoding.language.endpoint_scorers import EndpointScorer
from embedtrain.encoding.language.settings import LanguageScorer, LanguageSettings
from embedtrain.encoding.language.yes_no import YesNo
from embedtrain.encoding.pair_scorers import (
    PairScorer,
    detect_kind,
    open_pair_scorer,
)
from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.encoding.shards import Shard
from embedtrain.errors import UserError
from embedtrain.files import default_cache, finish, write_json
from embedtrain.leftovers import fitting
from embedtrain.locks import owns
from embedtrain.mining.sources import encode_task
from embedtrain.mining.task import MiningTask
from embedtrain.models.build import load_encoder
from embedtrain.outside import writing
from embedtrain.precision import Precision
from embedtrain.progress import console, progress_bar
from embedtrain.redaction import redact
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.workflows.scored_so_far import Tally, added, begin, mark_done
from embedtrain.workflows.teacher import Judged, Teacher, mixed

EXAMPLES_PER_BLOCK = 256
EXAMPLES_PER_LANGUAGE_BLOCK = 16
"""A language model may take an hour for more, which a kill must not cost."""
SHARE = 0.5
"""Of a teacher's scores, where a first stage's are mixed in and nothing else is said."""
DECIMALS = 6
GRAM_DECIMALS = 4
ORIGIN = ".teacher.json"
CURE = "Make room and start the same command again: it goes on where it was"


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
    language: LanguageSettings | None = None,
    first: str | None = None,
    share: float | None = None,
    cache: Path | None = None,
) -> int:
    """Write the rows of ``data`` again, with the teacher's ``scores`` beside their documents.

    Scores are what the teacher says: log-odds of a cross-encoder, similarities of an encoder, log-odds or
    log-probabilities of a language model. A killed run goes on behind the last whole block of rows and ends with
    the same bytes. What a language model was asked stands beside the file, in ``NAME.teacher.json``. With
    ``language.gram`` rows get a ``teacher_gram`` as well, in the order of :mod:`embedtrain.data.gram`.

    Args:
        teacher: A sequence classifier, an encoder of either kind, or a language model; folder or Hub id.
        data: Training rows; those mined by ``embedtrain mine`` are a good choice.
        output: A ``.jsonl`` file, itself a source of training rows.
        kind: What the teacher is; None finds out from its ``config.json``. A language model's must be said.
        batch_size: Pairs that a cross-encoder scores at once.
        precision: What the teacher computes in.
        language: How a language model is asked.
        first: An encoder whose scores are mixed in, such as the retriever that is to learn: what it knows and the
            teacher does not is kept. Scores are then z-scores of each row's documents.
        share: Of the teacher's scores in the mixture, between 0 and 1, both excluded; a half if None.
        cache: Folder of caches; the user's if None.

    Returns:
        Number of rows.

    Raises:
        UserError: If the teacher, the first stage or the rows cannot be used, or the share is none of a mixture.
    """
    if output.suffix != ".jsonl":
        raise UserError("--output", "must end in .jsonl", got=str(output), cure="Rename it")
    _check_share(first, share)
    source = open_source(data, cache)
    found = kind or detect_kind(teacher)
    gram = _wants_gram(teacher, found, language)
    if found == "encoder":
        (language or LanguageSettings()).refuse_unused(found)
        opened = open_encoder(teacher, source, cache or default_cache(), precision)
    else:
        scorer = open_pair_scorer(
            teacher, kind=found, precision=precision, batch_size=batch_size, language=language
        )
        opened = open_scorer(scorer, batch_size, gram=gram)
    if first is not None:
        encoder = open_encoder(first, source, cache or default_cache(), precision)
        opened = mixed(opened, encoder, SHARE if share is None else share)
    fingerprint = hashlib.sha256(f"{source.fingerprint}\n{opened.key}".encode()).hexdigest()
    rows, tally = _write(opened, source, output, fingerprint, teacher)
    if tally.get("cut_documents"):
        console.print(
            f"Documents were longer than the teacher reads, and cut: {tally['cut_documents']:,} times "
            f"for {tally['pairs']:,} pairs"
        )
    return rows


def _check_share(first: str | None, share: float | None) -> None:
    if share is not None and first is None:
        raise UserError("--blend", "needs --first", got=share, cure="Name the encoder to mix in")
    if share is not None and not 0 < share < 1:
        raise UserError(
            "--blend", "must lie between 0 and 1", got=share,
            cure="Leave --first out for the teacher alone; score with the other model for that alone",
        )  # fmt: skip


def _wants_gram(teacher: str, kind: ScorerKind, language: LanguageSettings | None) -> bool:
    """Whether cosines between pairs are asked for; refuse it where the teacher shows no states."""
    if language is None or not language.gram:
        return False
    if kind != "yes_no" or is_endpoint(teacher):
        raise UserError(
            "--gram", "needs the states of a language model that says yes or no",
            got=f"{redact(teacher)} as {kind}", cure="Give a folder, a Hub id or a .gguf file, and --as yes_no",
        )  # fmt: skip
    return True


def _write(
    teacher: Teacher, source: Source, output: Path, fingerprint: str, name: str
) -> tuple[int, Tally]:
    """Score block after block into a file that gets its name at the end; return the number of rows and the tally."""
    partial, mark = (
        output.with_name(fitting(output.stem, end)) for end in (".partial", ".fingerprint")
    )
    num_done, before = begin(partial, mark, fingerprint, teacher.block)
    examples = islice(source.examples(), num_done, None)
    with progress_bar("Scoring", source.length) as advance:
        advance(num_done)
        while block := list(islice(examples, teacher.block)):
            try:
                scores = teacher.score(block)
            finally:  # what was asked is paid for, even if its rows are lost
                mark_done(mark, fingerprint, added(before, teacher.tally()))
            lines = "".join(_lines(block, _checked(scores, source.place, num_done)))
            with writing(output, cure=CURE), partial.open("ab") as file:
                file.write(lines.encode())
            num_done += len(block)
            advance(len(block))
    tally = added(before, teacher.tally())
    if teacher.describe is not None:
        origin = {"teacher": redact(name), **teacher.describe(), **tally}
        write_json(output.with_suffix(ORIGIN), origin)
    with writing(output):
        finish(partial, output)
        mark.unlink()
    return num_done, tally


def open_scorer(scorer: PairScorer, batch_size: int, *, gram: bool = False) -> Teacher:
    """Score the pairs of a block of rows in one call; ``gram`` is for a :class:`YesNo`."""

    def score_examples(examples: Sequence[Example]) -> list[Judged]:
        pairs = [
            (example.query, alone(text)) for example in examples for text in _documents(example)
        ]
        ends = np.cumsum([len(_documents(example)) for example in examples])[:-1]
        if not gram:
            return [Judged(own) for own in np.split(scorer.logits(pairs), ends)]
        assert isinstance(scorer, YesNo)
        both = (np.split(values, ends) for values in scorer.logits_and_states(pairs))
        return [Judged(own, gram_of(states)) for own, states in zip(*both, strict=True)]

    def score_lists(examples: Sequence[Example]) -> list[Judged]:
        # Some language models judge a list as a whole: rows of one query that follow one another are several.
        found: list[Judged] = []
        begin = 0
        for end in range(1, len(examples) + 1):
            if end == len(examples) or examples[end].query == examples[end - 1].query:
                found += score_examples(examples[begin:end])
                begin = end
        return found

    def tally() -> Tally:
        work = scorer.work
        spent = scorer.tally() if isinstance(scorer, EndpointScorer) else {}
        return {"pairs": work.pairs, "cut_documents": work.cut_documents, **spent}

    if isinstance(scorer, LanguageScorer):
        block = EXAMPLES_PER_LANGUAGE_BLOCK
        key = f"{scorer.key()} {block}{' gram' if gram else ''}"
        return Teacher(score_lists, key, block, scorer.describe, tally)
    key = f"{scorer.key()} {batch_size}"
    return Teacher(score_examples, key, EXAMPLES_PER_BLOCK, tally=tally)


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

    def score_examples(examples: Sequence[Example]) -> list[Judged]:
        rows = np.array([queries[example.query] for example in examples])
        lists = [
            np.array([documents[text] for text in _documents(example)]) for example in examples
        ]
        scores = encoded.score(rows, pad_rows(lists))
        return [Judged(row[: len(own)]) for row, own in zip(scores, lists, strict=True)]

    return Teacher(score_examples, encoded.key, EXAMPLES_PER_BLOCK)


def _documents(example: Example) -> tuple[str, ...]:
    return example.positives + example.negatives


def _lines(examples: Sequence[Example], judged: Sequence[Judged]) -> Iterator[str]:
    for example, own in zip(examples, judged, strict=True):
        row = {
            "query_id": example.query_id,
            "query": example.query,
            "positives": list(map(as_fields, example.positives)),
            "negatives": list(map(as_fields, example.negatives)),
            "scores": [round(value, DECIMALS) for value in own.scores.tolist()],
        }
        if example.not_negatives:
            row[MASKED_NAME] = list(map(as_fields, example.not_negatives))
        if own.gram is not None:
            row[GRAM_NAME] = [round(value, GRAM_DECIMALS) for value in own.gram.tolist()]
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _checked(judged: list[Judged], place: str, num_done: int) -> list[Judged]:
    """Refuse scores that are no numbers: a loss would be none either.

    Raises:
        UserError: With the first row that has one.
    """
    for number, own in enumerate(judged, num_done + 1):
        if not np.isfinite(own.scores).all():
            raise UserError(
                f"{place}: row {number}", "gets a score that is no finite number from the teacher",
                got=own.scores.tolist(), cure="Use another --precision, or another teacher",
            )  # fmt: skip
    return judged
