"""What a judge is asked about, read and checked, and the judge opened."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from embedtrain.data.sources import load_task
from embedtrain.encoding.language.endpoint import is_endpoint
from embedtrain.encoding.language.endpoint_scorers import EndpointScorer
from embedtrain.encoding.pair_scorers import PairScorer, detect_kind, open_pair_scorer
from embedtrain.errors import UserError
from embedtrain.mining.identity import text_digest
from embedtrain.mining.judgement.labels import LabelledPairs, LabelTexts, read_labels
from embedtrain.mining.judgement.pairs import Pair, Selected, select_pairs
from embedtrain.mining.judgement.rows import JudgedQuery, read_mined
from embedtrain.mining.judgement.settings import Judge, JudgeConfig
from embedtrain.mining.output import MiningFolder
from embedtrain.mining.settings import Guard
from embedtrain.mining.task import from_retrieval_task
from embedtrain.models.backbone.folder_files import read_form
from embedtrain.models.language.model import name_of
from embedtrain.outside import reading
from embedtrain.redaction import redact

LOG_ODDS = ("cross_encoder", "yes_no")
"""Kinds of scorers whose scores are log-odds of being relevant."""


class _Settings(BaseModel):
    guard: Guard | None = None
    guards: tuple[Guard, ...] = ()


class _Data(BaseModel):
    writer: str | None = None


class _Manifest(BaseModel):
    """Of a mining: what of it a judge must know."""

    config: _Settings = _Settings()
    data: _Data = _Data()


class Task(NamedTuple):
    """What is to be judged."""

    mined: Path
    selected: Selected
    labelled: LabelledPairs
    guarded: Callable[[str], bool]
    fingerprint: str
    own: list[str]
    """Judges that wrote the queries themselves."""

    @property
    def measuring(self) -> list[Pair]:
        """Pairs that are asked about to see how good a judge is, beside positives."""
        return [*self.selected.random, *self.labelled.fit, *self.labelled.measure]


def open_judge(judge: Judge) -> PairScorer:
    """Open what gives pairs log-odds.

    Raises:
        UserError: If it cannot be loaded, or its scores are on another scale.
    """
    kind = judge.kind or (None if is_endpoint(judge.model) else detect_kind(judge.model))
    if kind not in LOG_ODDS:
        raise UserError(
            redact(judge.model), "gives no log-odds of being relevant, which a judge must",
            got=kind or "an address", cure="Give a cross-encoder, or a language model with --as yes_no",
        )  # fmt: skip
    return open_pair_scorer(
        judge.model, kind=kind, precision=judge.precision,
        batch_size=judge.batch_size, language=judge.language,
    )  # fmt: skip


def prepare(
    mined: Path, scorers: Sequence[PairScorer], config: JudgeConfig, cache: Path | None
) -> Task:
    """Read the rows, the labels and the guard.

    Raises:
        UserError: If one of them is not usable.
    """
    labels, *texts = read_labels(config)
    collected = LabelTexts(labels, *texts)

    def seen() -> Iterator[JudgedQuery]:
        for query in read_mined(mined):
            collected.add(query)
            yield query

    selected = select_pairs(seen(), config, labels)
    mining = MiningFolder(mined)
    manifest = read_form(mining.manifest, _Manifest, optional=True)
    own = manifest.config
    guards = [config.guard] if config.guard else [one for one in (own.guard, *own.guards) if one]
    guard, guard_key = _guard(guards, cache)
    files = [sha256(path) for path in (mining.training, mining.rejected) if path.is_file()]
    judges = [one for one in (config.judge, config.larger) if one is not None]
    keys = [f"{one.key()} {how.batch_size}" for one, how in zip(scorers, judges, strict=True)]
    known = hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()
    parts = [settings_of(config), files, keys, known, guard_key]
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    names = map(_name_of, scorers, judges)
    writers = [name for name in names if name == manifest.data.writer]
    return Task(mined, selected, collected.pairs(config), guard, fingerprint, writers)


def _name_of(scorer: PairScorer, judge: Judge) -> str:
    """Return a judge's name as ``embedtrain synth`` would give it."""
    return scorer.endpoint.name if isinstance(scorer, EndpointScorer) else name_of(judge.model)


def settings_of(config: JudgeConfig) -> dict[str, Any]:
    """Return what decides beside the judges themselves."""
    off = set() if config.grades else {"grades"}  # folders of before go on
    return config.model_dump(mode="json", exclude={"judge", "larger"} | off)


def _guard(guards: Sequence[Guard], cache: Path | None) -> tuple[Callable[[str], bool], str]:
    """Return what tells whether a text answers a query that is only for measuring, and a key of that."""
    tasks = [from_retrieval_task(load_task(one.path, one.split, cache)) for one in guards]
    texts = {
        text_digest(task.documents[row])
        for task in tasks
        for rows in task.positives
        for row in rows.tolist()
    }
    return (lambda text: text_digest(text) in texts), " ".join(one.fingerprint for one in tasks)


def sha256(path: Path) -> str:
    """Hash a file."""
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
