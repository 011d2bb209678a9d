"""Workflow: documents become queries with the texts that answer them: data to train on and to measure with."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from embedtrain.data.documents.folder import read_documents
from embedtrain.data.words import overlap
from embedtrain.encoding.cache import model_key
from embedtrain.encoding.pair_cache import PairCache, score_once
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.errors import NothingLeftError, UserError
from embedtrain.files import default_cache, read_json, write_file, write_json
from embedtrain.leftovers import is_empty
from embedtrain.locks import owns
from embedtrain.models.build import load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.stopping import SAME_COMMAND, going_on
from embedtrain.synthesis.candidate import Writer
from embedtrain.synthesis.caps import Judge
from embedtrain.synthesis.corpus import Corpus, cut_corpus
from embedtrain.synthesis.filtering import Helpers, filter_rows
from embedtrain.synthesis.language_writer import LanguageWriter, open_language_writer
from embedtrain.synthesis.makers import Rules
from embedtrain.synthesis.output import SynthesisFolder, Writing
from embedtrain.synthesis.reader import QueryVectors
from embedtrain.synthesis.report import describe, notes
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.synthesis.split import Groups, check_leaks, split_documents
from embedtrain.workflows.first_recipe import usual_model
from embedtrain.workflows.judge_task import open_judge
from embedtrain.workflows.synthesize_contexts import (
    forecast_contexts,
    refuse_other_ways,
    write_contexts,
)


@dataclass(frozen=True)
class Plan:
    """What would be done, without doing it."""

    figures: dict[str, Any]
    candidates: dict[str, int]
    """Queries that each rule would write."""
    forecast: dict[str, object]
    """What a language model would be asked, and its price; empty without one."""


def plan(
    corpus: str,
    output: Path,
    config: SynthesisConfig,
    *,
    llm: str | None = None,
    like: Path | None = None,
) -> Plan:
    """Read the corpus and count what would be written; nobody is asked.

    Raises:
        UserError: If the corpus or the settings are not usable.
    """
    documents, reading = read_documents(Path(corpus), config.encoding)
    found = cut_corpus(documents, reading, config, open_base(config))
    writer = open_writer(config, output, llm, like)
    if config.contexts is not None:
        refuse_other_ways(writer, like=like is not None)
        assert isinstance(writer, LanguageWriter)
        return Plan(found.figures(), {}, forecast_contexts(found, config, writer))
    counts: Counter[str] = Counter()
    if writer is None or config.makers is not None:
        rules = Rules.of(config, found.documents, found.chunks)
        counts.update(one.maker for one in rules.write(found.choice.chunks))
    forecast = {} if writer is None else writer.forecast(found.choice.chunks)
    return Plan(found.figures(), dict(counts), forecast)


@going_on(SAME_COMMAND)
@owns("output")
def synthesize(
    corpus: str,
    output: Path,
    config: SynthesisConfig,
    *,
    llm: str | None = None,
    like: Path | None = None,
    writer: Writer | None = None,
    judge: Judge | None = None,
    cache: Path | None = None,
) -> SynthesisFolder:
    """Write queries for the documents of ``corpus``, filter and split them.

    Started again after a kill, it goes on with what is cached and ends with the same bytes; on a finished folder
    with the same corpus and settings it does nothing.

    Args:
        corpus: A folder of documents, or a file.
        output: Folder to write.
        config: Rules, filters, split.
        llm: A language model that writes queries: an address, a folder, a Hub id or a ``.gguf`` file; rules alone
            write if it and ``writer`` are None.
        like: A file of the user's own queries, which it imitates.
        writer: What writes in the place of a language model.
        judge: Asked whether a text answers its query, in the place of ``config.judge``.
        cache: Folder of caches; the user's if None.

    Raises:
        UserError: If the corpus, the settings or the output are not usable.
        NothingLeftError: If no query is left.
    """
    folder, cache = SynthesisFolder(output), cache or default_cache()
    _refuse_other(folder)
    documents, reading = read_documents(Path(corpus), config.encoding)
    base = open_base(config)
    found = cut_corpus(documents, reading, config, base)
    writer = writer or open_writer(config, output, llm, like)
    if config.contexts is not None:
        refuse_other_ways(writer, like=like is not None)
    asked = None if config.judge is None else open_judge(config.judge)
    settings = _settings(config, found, base, writer, asked)
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if _is_done(folder, fingerprint, config):
        return folder
    folder.report.unlink(missing_ok=True)
    write_file(folder.settings, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    if config.contexts is not None:
        assert isinstance(writer, LanguageWriter)
        write_contexts(folder, found, config, writer, fingerprint)
        return folder
    rows = _write_queries(found, config, writer)
    groups = split_documents(found.chunks, config.split, config.seed, cache)
    vectors = None if base is None else QueryVectors(base, cache, config.precision)
    helpers = _helpers(writer, found, judge or _kept_answers(asked, cache))
    filter_rows(rows, found, groups, config, vectors, helpers, cache)
    writing = Writing(folder, config, groups.splits)
    writing.write(found.chunks, rows)
    _refuse_nothing(corpus, rows, groups, writer)
    report = {
        "fingerprint": fingerprint,
        "corpus": found.figures(),
        **describe(rows, groups.splits, writing, config),
        **_told(rows, found, groups, writer),
    }
    write_json(folder.report, report)
    return folder


def open_writer(
    config: SynthesisConfig, output: Path, llm: str | None, like: Path | None
) -> LanguageWriter | None:
    """Open a language model, whose answers are kept below ``output``; None where none is named.

    Raises:
        UserError: If it cannot be opened, or there are queries to imitate and nobody to do so.
    """
    if llm is None:
        if like is not None:
            cure = "Add --llm, or leave --like out"
            raise UserError(
                "--like", "is for a language model, which imitates the queries", cure=cure
            )
        return None
    return open_language_writer(llm, config.language, output, like, seed=config.seed)


def _is_done(folder: SynthesisFolder, fingerprint: str, config: SynthesisConfig) -> bool:
    """Whether all was written, no budget ended the work, and no request is to be asked again."""
    report = read_json(folder.report, optional=True)
    ended = report.get("language_model", {}).get("ended")
    return (
        report.get("fingerprint") == fingerprint
        and not ended
        and folder.is_whole(of_contexts=config.contexts is not None)
    )


def _helpers(writer: Writer | None, corpus: Corpus, judge: Judge | None) -> Helpers:
    if isinstance(writer, LanguageWriter):
        languages = writer.wanted_languages(corpus.choice.chunks)
        return Helpers(writer.examples, judge, languages, titles=True)
    return Helpers(judge=judge, titles=writer is not None)


def _kept_answers(scorer: PairScorer | None, cache: Path) -> Judge | None:
    """Return a judge that is asked about no pair twice."""
    if scorer is None:
        return None
    known = PairCache(cache, scorer.key())
    return lambda pairs: score_once(scorer, pairs, "judge", known).scores.tolist()


def _refuse_other(folder: SynthesisFolder) -> None:
    if not folder.settings.is_file() and folder.path.is_dir() and not is_empty(folder.path):
        cure = "Choose another folder or remove it"
        raise UserError("--output", "holds something else", got=str(folder.path), cure=cure)


def _told(
    rows: Sequence[Row], corpus: Corpus, groups: Groups, writer: Writer | None
) -> dict[str, Any]:
    """Return what the report says beside its figures."""
    found: dict[str, Any] = {
        "version": version("embedtrain"),
        "writer": "rules" if writer is None else writer.name,
        "leaks": (leaks := check_leaks(rows, groups.splits)),
        "notes": notes(rows, groups.splits, corpus, leaks),
    }
    if isinstance(writer, LanguageWriter):
        found["language_model"] = writer.report()
        found["notes"] += writer.notes()
        if shares := [overlap(one.query, one.positive) for one in writer.own if one.positive]:
            found["overlap_of_own_queries"] = round(fmean(shares), 3)
    return found


def open_base(config: SynthesisConfig) -> TextEncoder | None:
    """Load the base model, or none where it is not named and BM25 or nobody reads."""
    if config.base is None and config.round_trip.reader in (None, "bm25"):
        return None
    return load_encoder(config.base or usual_model())


def _settings(
    config: SynthesisConfig,
    corpus: Corpus,
    base: TextEncoder | None,
    writer: Writer | None,
    judge: PairScorer | None,
) -> dict[str, Any]:
    unused = {name for name in ("judge", "contexts") if getattr(config, name) is None}
    return {
        "version": version("embedtrain"),
        "corpus": corpus.digest,
        "base": None if base is None else model_key(base),
        "writer": "rules" if writer is None else writer.name,
        **(writer.stands_for() if isinstance(writer, LanguageWriter) else {}),
        **({} if judge is None else {"judge": judge.key()}),  # folders of before go on
        "config": config.model_dump(mode="json", exclude=unused),
    }


def _write_queries(corpus: Corpus, config: SynthesisConfig, writer: Writer | None) -> list[Row]:
    """Let rules and the writer write, each for all chosen chunks."""
    chunk_of = {chunk.id: chunk for chunk in corpus.choice.chunks}
    writers: list[Writer] = [] if writer is None else [writer]
    if writer is None or config.makers is not None:
        writers.append(Rules.of(config, corpus.documents, corpus.chunks))
    return [
        Row(candidate, chunk_of[candidate.chunk])
        for one in writers
        for candidate in one.write(corpus.choice.chunks)
    ]


def _refuse_nothing(
    corpus: str, rows: Sequence[Row], groups: Groups, writer: Writer | None
) -> None:
    if any(row.kept and groups.splits[row.unit] == "train" for row in rows):
        return
    ended = writer.tally.ended if isinstance(writer, LanguageWriter) else ""
    if ended:
        cure = "Start the same command again once that is mended: it goes on where it was"
        raise NothingLeftError(corpus, f"gives no query to train on yet: {ended}", cure=cure)
    cure = "Look into candidates.jsonl of the output, or give more text"
    taken = Counter(row.taken_by for row in rows if row.taken_by).most_common(3)
    by = ", ".join(f"{name} took {number:,}" for name, number in taken)
    problem = f"gives no query to train on; of {len(rows):,} written none is left to train" + (
        f" ({by})" if by else ""
    )
    raise NothingLeftError(corpus, problem, cure=cure)
