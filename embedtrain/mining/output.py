"""Files of a mining: parts while it runs, then negatives, training rows and a manifest."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from embedtrain.contract.spans import as_fields
from embedtrain.encoding.shards import Shard, wait_for
from embedtrain.errors import UserError
from embedtrain.files import appearing, write_file
from embedtrain.mining.miner import RANDOM, MinedQuery
from embedtrain.mining.settings import MiningConfig, makes_positives
from embedtrain.mining.task import MiningTask


class MiningFolder:
    """The output folder of a mining, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.negatives = path / "negatives.jsonl"
        """Ids, ranks, scores and sources of each query's negatives."""
        self.training = path / "train.jsonl"
        """The same as texts: a source for ``embedtrain train``."""
        self.suspects = path / "suspects.md"
        """A sample of suspected false negatives, to be read by a person."""
        self.rejected = path / "rejected.jsonl"
        """What was kept out as a suspected false negative, with texts, where the settings ask for it."""
        self.manifest = path / "manifest.json"
        """What was mined, how, and with what outcome; written last."""
        self.parts = path / "parts"
        """What is finished so far; removed at the end."""

    def part(self, number: int) -> Path:
        """One block of queries."""
        return self.parts / f"{number:06d}.jsonl"

    def is_complete(self, fingerprint: str) -> bool:
        """Tell whether this very mining was finished before.

        Raises:
            UserError: If another one was.
        """
        if not self.manifest.is_file():
            return False
        stored = json.loads(self.manifest.read_text(encoding="utf-8")).get("fingerprint")
        self._refuse_other(stored, fingerprint)
        return True

    def begin(self, fingerprint: str, shard: Shard) -> None:
        """Make the folder, or go on with what it holds of this very mining.

        Raises:
            UserError: If it holds parts of another one.
        """
        mark = self.parts / "fingerprint"
        if shard.is_first and not mark.is_file():
            write_file(mark, fingerprint)
        wait_for([mark])
        self._refuse_other(mark.read_text(encoding="utf-8"), fingerprint)

    def _refuse_other(self, found: object, fingerprint: str) -> None:
        if found != fingerprint:
            raise UserError(
                self.path,
                "was mined with other settings, data or weights",
                cure="Choose another --output or remove the folder",
            )


def write_part(path: Path, queries: Sequence[MinedQuery]) -> None:
    """Write the block of queries that one search covered."""
    write_file(path, "".join(json.dumps(query) + "\n" for query in queries))


@dataclass
class Tally:
    """Figures of the manifest, summed up while the files are written."""

    num_queries: int = 0
    num_dropped_queries: int = 0
    num_short_queries: int = 0
    num_negatives: int = 0
    num_new_positives: int = 0
    num_doubted_positives: int = 0
    num_scored_pairs: int = 0
    ratio_sum: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, query: MinedQuery, wanted: int) -> None:
        """Count a query."""
        self.num_queries += 1
        found = [negative for negative in query["neg"] if negative["source"] != RANDOM]
        self.num_short_queries += len({negative["id"] for negative in found}) < wanted
        self.num_negatives += len(query["neg"])
        self.num_new_positives += len(query["new_pos"])
        self.num_doubted_positives += len(query["doubted"])
        self.dropped.update(query["dropped"])
        self.sources.update(negative["source"] for negative in query["neg"])
        lowest = min(positive["score"] for positive in query["pos"])
        if lowest > 0:
            self.num_scored_pairs += len(query["neg"])
            self.ratio_sum += sum(negative["score"] / lowest for negative in query["neg"])

    def report(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "num_queries": self.num_queries,
            "num_dropped_queries": self.num_dropped_queries,
            "num_negatives": self.num_negatives,
            "num_new_positives": self.num_new_positives,
            "num_doubted_positives": self.num_doubted_positives,
            "short_ratio": round(self.num_short_queries / max(self.num_queries, 1), 6),
            "mean_score_ratio": round(self.ratio_sum / max(self.num_scored_pairs, 1), 6),
            "negatives_by_source": dict(sorted(self.sources.items())),
            "dropped": dict(sorted(self.dropped.items())),
        }


def join_parts(
    folder: MiningFolder, num_parts: int, config: MiningConfig, task: MiningTask
) -> tuple[Tally, list[MinedQuery]]:
    """Write negatives and training rows; return the figures and the queries that have suspects.

    Of the latter only ``config.num_suspects`` are kept, chosen by a seeded hash of their ids.
    """
    tally = Tally()
    shown: list[tuple[bytes, MinedQuery]] = []
    with ExitStack() as stack:
        ids, texts = (
            stack.enter_context(_lines_of(path)) for path in (folder.negatives, folder.training)
        )
        kept_out = stack.enter_context(_lines_of(folder.rejected)) if config.num_rejected else None
        for query in _read_parts(folder, num_parts):
            if query["suspects"]:
                name = f"{config.seed}|{query['qid']}".encode()
                shown.append((hashlib.blake2b(name, digest_size=8).digest(), query))
                shown = sorted(shown, key=lambda item: item[0])[: config.num_suspects]
            if config.shortfall == "drop" and len(query["neg"]) < config.num_negatives:
                tally.num_dropped_queries += 1
                continue
            tally.add(query, config.num_negatives)
            line: dict[str, object] = {key: query[key] for key in ("qid", "pos", "neg", "dropped")}
            row = _training_row(query, task)
            if makes_positives(config):
                line |= {"new_pos": query["new_pos"], "doubted": query["doubted"]}
                told = ["judged"] * len(query["pos"]), ["model"] * len(query["new_pos"])
                row["positive_sources"] = told[0] + told[1]
            ids.write(json.dumps(line) + "\n")
            texts.write(json.dumps(row, ensure_ascii=False) + "\n")
            if kept_out is not None:
                kept_out.write(json.dumps(_rejected_row(query, task), ensure_ascii=False) + "\n")
    return tally, [query for _, query in shown]


def remove_parts(folder: MiningFolder) -> None:
    """Remove what only a run that goes on needs."""
    shutil.rmtree(folder.parts, ignore_errors=True)


@contextmanager
def _lines_of(path: Path) -> Iterator[TextIO]:
    with appearing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def _read_parts(folder: MiningFolder, num_parts: int) -> Iterator[MinedQuery]:
    for number in range(num_parts):
        with folder.part(number).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def _training_row(query: MinedQuery, task: MiningTask) -> dict[str, object]:
    positives, negatives = [*query["pos"], *query["new_pos"]], query["neg"]
    both = [*positives, *negatives]

    own = task.own_positives.get(query["qid"], {})

    def texts(found: Sequence[Any], own: Mapping[str, str]) -> list[str | dict[str, object]]:
        return [own.get(one["id"]) or _text_of(task, one["id"]) for one in found]

    return {
        "query_id": query["qid"],
        "query": task.queries[task.row_of_query[query["qid"]]],
        "positives": texts(positives, own),
        "negatives": texts(negatives, {}),
        "positive_ids": [document["id"] for document in positives],
        "negative_ids": [document["id"] for document in negatives],
        "scores": [document["score"] for document in both],
    }


def _rejected_row(query: MinedQuery, task: MiningTask) -> dict[str, object]:
    found = [{**one, "text": _text_of(task, one["id"])} for one in query.get("rejected", ())]
    return {"query_id": query["qid"], "rejected": found}


def _text_of(task: MiningTask, document_id: str) -> str | dict[str, object]:
    return as_fields(task.documents[task.row_of_document[document_id]])
