"""Workflow: a model and a corpus become hard negatives without false negatives."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedtrain.contract.spans import is_marked, unmark
from embedtrain.data.near_duplicates import near_duplicates
from embedtrain.data.sources import load_task
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.shards import Shard, current_shard, use_own_device, wait_for
from embedtrain.errors import UserError
from embedtrain.files import default_cache, write_file, write_json
from embedtrain.locks import owns
from embedtrain.mining.filters import Filters
from embedtrain.mining.identity import cluster_rows, first_rows, text_digest
from embedtrain.mining.miner import Miner
from embedtrain.mining.output import MiningFolder, join_parts, remove_parts, write_part
from embedtrain.mining.report import render_suspects
from embedtrain.mining.search import CandidateSource, EncodedTask
from embedtrain.mining.settings import MiningConfig, settings_of
from embedtrain.mining.sources import encode_task, open_sources
from embedtrain.mining.task import MiningTask, from_retrieval_task, load_mining_task
from embedtrain.models.build import load_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import choose
from embedtrain.progress import progress_bar
from embedtrain.stopping import SAME_COMMAND, going_on

QUERIES_PER_PART = 1024


@dataclass(frozen=True)
class Guarded:
    """What the guard changes: the queries that are mined, and documents that are no negatives."""

    rows: NDArray[np.int64]
    identities: NDArray[np.int64]
    report: dict[str, Any]


@going_on(SAME_COMMAND)
@owns("output")
def mine(
    model: str,
    data: str,
    output: Path,
    config: MiningConfig,
    *,
    split: str = "train",
    cache: Path | None = None,
) -> MiningFolder:
    """Mine hard negatives for the queries of ``data``.

    Started again after a kill, it goes on with what is finished and ends with the same bytes. Under
    torchrun each rank mines a share of the queries and rank 0 joins them.

    Args:
        model: The teacher: its scores decide what is kept out. Model folder, run's ``model/`` or Hub id.
        data: A BEIR folder, ``python_docs``, or a file of training rows.
        output: Folder to write.
        config: Sources, rules, sampling.
        split: Which judgments, where the data have splits.
        cache: Folder of caches; the user's if None.

    Raises:
        UserError: If data, models or settings are not usable.
    """
    use_own_device()
    task = load_mining_task(data, split, cache)
    return mine_task(load_encoder(model), task, output, config, cache=cache)


@owns("output")
def mine_task(
    model: TextEncoder,
    task: MiningTask,
    output: Path,
    config: MiningConfig,
    *,
    cache: Path | None = None,
    shard: Shard | None = None,
) -> MiningFolder:
    """Mine for a task in memory with a model in memory; see :func:`mine`."""
    cache, shard = cache or default_cache(), shard or current_shard()
    folder = MiningFolder(output)
    # What the device decides stands in the manifest, and another device's negatives are not taken for these.
    chosen = choose(config.precision, model.device.type)
    config = config.model_copy(update={"precision": chosen})
    # Rows to train on have documents as the model read them, and equal chunks of two documents are two.
    task = replace(task, documents=task.read_by(model.contract))
    encoded = encode_task(model, task, cache, shard, config.precision)
    sources = open_sources(config, encoded, task, cache, shard)
    parts = [settings_of(config), task.fingerprint, encoded.key]
    content = json.dumps([*parts, [source.report for source in sources]], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    if folder.is_complete(fingerprint):
        return folder
    folder.begin(fingerprint, shard)
    identities = first_rows([text_digest(text) for text in task.documents])
    guarded = _apply_guard(config, task, identities, cache)
    miner = Miner(sources, _filters(config, task, encoded, identities, guarded, cache, shard))
    starts = range(0, len(guarded.rows), QUERIES_PER_PART)
    files = [folder.part(number) for number in range(len(starts))]
    with progress_bar("Mining", len(guarded.rows)) as advance:
        for number, start in enumerate(starts):
            rows = guarded.rows[start : start + QUERIES_PER_PART]
            if shard.takes(number) and not files[number].is_file():
                write_part(files[number], miner.mine(rows))
            advance(len(rows))
    if shard.is_first:
        wait_for(files)
        _finish(folder, len(files), config, task, model, sources, guarded.report, fingerprint)
    return folder


def _filters(
    config: MiningConfig,
    task: MiningTask,
    encoded: EncodedTask,
    identities: NDArray[np.int64],
    guarded: Guarded,
    cache: Path,
    shard: Shard,
) -> Filters:
    clusters = identities
    if config.near_duplicates:
        with progress_bar("Looking for near duplicates", None):
            clusters = _near(task, cache)
    guide = cross_encoder = None
    if config.guide is not None:
        guide_model = load_encoder(config.guide.model)
        guide = encode_task(guide_model, task, cache, shard, config.precision).score
    if config.cross_encoder is not None:
        check = config.cross_encoder
        cross_encoder = CrossEncoder(
            check.model, batch_size=check.batch_size, precision=config.precision
        ).probabilities
    return Filters(
        config=config,
        task=task,
        identities=identities,
        clusters=clusters,
        guarded=guarded.identities,
        teacher=encoded.score,
        guide=guide,
        cross_encoder=cross_encoder,
    )


def _near(task: MiningTask, cache: Path) -> NDArray[np.int64]:
    """Return the row that each document nearly repeats; of marked chunks, whose documents are near as well."""
    alone = cluster_rows(task.chunks, cache)
    if not any(map(is_marked, task.documents)):
        return alone
    around = cluster_rows([unmark(text)[0] for text in task.documents], cache)
    return first_rows([b"%d %d" % pair for pair in zip(alone, around, strict=True)])


def _apply_guard(
    config: MiningConfig, task: MiningTask, identities: NDArray[np.int64], cache: Path
) -> Guarded:
    """Drop queries that repeat a guarded one; find the documents that answer guarded queries."""
    every = np.arange(len(task.queries))
    nothing = np.zeros(0, dtype=np.int64)
    named = [*([config.guard] if config.guard is not None else []), *config.guards]
    if not named:
        return Guarded(every, nothing, {})
    guards = [from_retrieval_task(load_task(one.path, one.split, cache)) for one in named]
    queries = [query for guard in guards for query in guard.queries]
    digests = {text_digest(query) for query in queries}
    originals = near_duplicates([*queries, *task.queries])[len(queries) :]
    kept = [
        row
        for row, query in enumerate(task.queries)
        if originals[row] >= len(queries) and text_digest(query) not in digests
    ]
    if not kept:
        raise UserError(
            "guard",
            "drops every query: all repeat one of the guarded",
            cure="Name the split that is only for measuring",
        )
    answers = _answers(guards, task, identities)
    kept_out = [guard for guard, one in zip(guards, named, strict=True) if one.exclude_positives]
    report = {
        "guarded_queries_dropped": len(task.queries) - len(kept),
        "guarded_positives_in_corpus": len(answers),
        "guarded_positives_excluded": bool(kept_out),
    }
    excluded = np.array(_answers(kept_out, task, identities), dtype=np.int64)
    return Guarded(np.array(kept, dtype=np.int64), excluded, report)


def _answers(
    guards: Sequence[MiningTask], task: MiningTask, identities: NDArray[np.int64]
) -> list[int]:
    """Return the rows of documents that answer a guarded query."""
    texts = {
        text_digest(guard.documents[row])
        for guard in guards
        for rows in guard.positives
        for row in rows.tolist()
    }
    return [row for row in np.unique(identities).tolist() if text_digest(task.chunks[row]) in texts]


def _finish(
    folder: MiningFolder,
    num_parts: int,
    config: MiningConfig,
    task: MiningTask,
    model: TextEncoder,
    sources: list[CandidateSource],
    guard: dict[str, Any],
    fingerprint: str,
) -> None:
    """Join the parts; the manifest comes last and says that all is there."""
    tally, shown = join_parts(folder, num_parts, config, task)
    write_file(folder.suspects, render_suspects(shown, task))
    manifest = {
        "fingerprint": fingerprint,
        "data": {
            "name": task.name,
            "fingerprint": task.fingerprint,
            "num_queries": len(task.queries),
            "num_documents": len(task.documents),
            "writer": task.writer,
        },
        "contract": model.contract.model_dump(),
        "config": config.model_dump(mode="json"),
        "sources": [{"name": source.name, **source.report} for source in sources],
        "guard": guard,
        "outcome": tally.report(),
        "sha256": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (folder.negatives, folder.training, folder.suspects, folder.rejected)
            if path.is_file()
        },
        "environment": {
            "num_threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("embedtrain", "torch", "numpy")},
        },
    }
    write_json(folder.manifest, manifest)
    remove_parts(folder)
