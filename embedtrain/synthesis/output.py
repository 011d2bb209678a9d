"""What is written: a BEIR folder, training rows, every candidate, and a report."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from embedtrain.data.documents.document import Chunk
from embedtrain.data.raw_text.rules import holds, key_of, without
from embedtrain.data.readers.rows import join_title
from embedtrain.files import appearing
from embedtrain.synthesis.language_settings import ABSTRACT, MISLEADING
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.synthesis.split import SPLITS, Split


class SynthesisFolder:
    """The output folder of a synthesis, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = path / "synth.yaml"
        """What was asked for, and what the corpus was."""
        self.corpus = path / "corpus.jsonl"
        self.queries = path / "queries.jsonl"
        self.training = path / "train.jsonl"
        """Rows of query and positive: a source for ``embedtrain train``."""
        self.descriptions = path / "descriptions.jsonl"
        """Rows of a text, descriptions that fit it and such that almost do; only where a language model wrote both."""
        self.candidates = path / "candidates.jsonl"
        """Every query that was written, with the first filter that took it."""
        self.answers = path / "answers.jsonl"
        """Of tasks about contexts: each query with its answer."""
        self.report = path / "report.json"
        """Written last: it says that all is there."""

    def is_whole(self, *, of_contexts: bool = False) -> bool:
        """Whether nothing of it was removed since; ``of_contexts``: it holds tasks about contexts."""
        own = (self.answers,) if of_contexts else (self.corpus, self.queries)
        return all(path.is_file() for path in (*own, self.training, self.candidates))

    def judgments(self, split: Split) -> Path:
        """The file that says which documents answer the queries of a split."""
        return self.path / "qrels" / f"{split}.tsv"


class Writing:
    """Writes rows of kept queries; ``splits`` says where each document belongs."""

    def __init__(
        self, folder: SynthesisFolder, config: SynthesisConfig, splits: Mapping[str, Split]
    ) -> None:
        self.folder, self.config, self.splits = folder, config, splits

    def write(self, chunks: Sequence[Chunk], rows: Sequence[Row]) -> None:
        """Write everything but settings and report."""
        kept = [row for row in rows if row.kept]
        held = [row for row in kept if self.splits[row.unit] != "train"]
        _write_rows(self.folder.corpus, self._corpus(chunks, held))
        _write_rows(self.folder.queries, map(self._query, kept))
        train = (row for row in kept if self.splits[row.unit] == "train")
        _write_rows(self.folder.training, map(self.training_row, train))
        _write_rows(self.folder.candidates, map(self._candidate, rows))
        described = list(self._described(rows))
        if described:
            _write_rows(self.folder.descriptions, described)
        else:
            self.folder.descriptions.unlink(missing_ok=True)
        for split in SPLITS:
            own = [row for row in kept if self.splits[row.unit] == split]
            place = self.folder.judgments(split)
            if own:
                write_lines(place, self._judgments(own))
            else:
                place.unlink(missing_ok=True)

    def positive(self, row: Row) -> str:
        """Return a row's positive as it is searched: with the title before it, unless the query holds that."""
        return self._searched(row.chunk.title, row.candidate.positive, [row])

    def training_row(self, row: Row) -> dict[str, object]:
        """Return a row as ``data.sources`` reads it; a query of several documents has a list of positives."""
        positives = list(dict.fromkeys(self.positive(one) for one in (row, *row.also)))
        return {
            "query_id": query_id(row),
            "query": row.candidate.query,
            "positive": positives[0] if len(positives) == 1 else positives,
            "document": row.candidate.document,
            "maker": row.candidate.maker,
        }

    def _described(self, rows: Sequence[Row]) -> Iterable[dict[str, object]]:
        """Yield texts of training as queries, for which descriptions that almost fit are negatives.

        Source: Ravfogel et al. (2023), https://arxiv.org/abs/2305.12517.
        """
        fit: dict[str, list[Row]] = {}
        almost: dict[str, list[str]] = {}
        for row in rows:
            if self.splits[row.unit] != "train":
                continue
            if row.taken_by == MISLEADING:
                almost.setdefault(row.chunk.id, []).append(row.candidate.query)
            elif row.kept and row.candidate.type == ABSTRACT:
                fit.setdefault(row.chunk.id, []).append(row)
        for chunk, own in fit.items():
            right = list(dict.fromkeys(row.candidate.query for row in own))
            wrong = [one for one in dict.fromkeys(almost.get(chunk, ())) if one not in right]
            if wrong:
                text = self._searched(own[0].chunk.title, own[0].chunk.text, ())
                yield {"query": text, "positive": right, "negatives": wrong}

    def _searched(self, title: str, text: str, queries: Iterable[Row]) -> str:
        is_asked = any(
            holds(row.candidate.query, title)
            if row.by_rule
            else key_of(row.candidate.query) == key_of(title)
            for row in queries
        )
        return join_title(title, text) if self.config.chunks.title and not is_asked else text

    def _corpus(self, chunks: Sequence[Chunk], held: Sequence[Row]) -> Iterable[dict[str, object]]:
        """Yield the chunks; those that held-out queries are about lack what rules took from them.

        Else the synthetic test would only ask whether a text is found by a copy of its own words.
        """
        asked: dict[str, list[Row]] = {}
        for row in held:
            for one in (row, *row.also):
                asked.setdefault(one.chunk.id, []).append(one)
        for chunk in chunks:
            own = [row for row in asked.get(chunk.id, ()) if row.by_rule]
            text, title = chunk.text, chunk.title if self.config.chunks.title else ""
            for row in own:
                text = without(text, row.candidate.query) or text
                title = "" if holds(row.candidate.query, title) else title
            line = asdict(chunk) | {"text": text, "title": title}
            yield {"_id": line.pop("id"), **line}

    def _query(self, row: Row) -> dict[str, object]:
        one = row.candidate
        return {
            "_id": query_id(row),
            "text": one.query,
            "type": one.type,
            "maker": one.maker,
            "rank": row.rank,
            "log_probability": one.log_probability,
            **self._own_positives(row),
        }

    def _own_positives(self, row: Row) -> dict[str, object]:
        """Return the texts of a training query that differ from those searched, for mining."""
        if self.splits[row.unit] != "train":
            return {}
        own = {one.chunk.id: self.positive(one) for one in (row, *row.also)}
        whole = {
            one.chunk.id: self._searched(one.chunk.title, one.chunk.text, ())
            for one in (row, *row.also)
        }
        different = {name: text for name, text in own.items() if text != whole[name]}
        return {"positives": different} if different else {}

    def _candidate(self, row: Row) -> dict[str, object]:
        return {
            "_id": query_id(row),
            **asdict(row.candidate),
            "split": self.splits[row.unit],
            "rank": row.rank,
            "taken_by": row.taken_by,
        }

    def _judgments(self, rows: Sequence[Row]) -> Iterable[str]:
        yield "query-id\tcorpus-id\tscore\n"
        for row in rows:
            for chunk in dict.fromkeys(one.chunk.id for one in (row, *row.also)):
                yield f"{query_id(row)}\t{chunk}\t1\n"


def query_id(row: Row) -> str:
    """Return a name that follows from the chunk, the writer and the query: the same in every run."""
    one = row.candidate
    content = "|".join((one.chunk, row.chunk.text, one.maker, str(one.slot), one.query))
    return "s-" + hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    write_lines(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each with its end, to a file that appears whole."""
    with appearing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
