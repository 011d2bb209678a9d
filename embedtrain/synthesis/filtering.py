"""All filters, one after the other: from what was written to what is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedtrain.data.readers.rows import join_title
from embedtrain.progress import progress_bar
from embedtrain.synthesis.caps import Judge, ask_judge, cap, drop_improbable
from embedtrain.synthesis.corpus import Corpus
from embedtrain.synthesis.duplicates import drop_duplicates, join_same
from embedtrain.synthesis.filters import apply, set_aside, text_language, text_tests
from embedtrain.synthesis.reader import QueryVectors, open_reader
from embedtrain.synthesis.round_trip import ask_reader
from embedtrain.synthesis.row import Row
from embedtrain.synthesis.settings import SynthesisConfig
from embedtrain.synthesis.split import Groups, drop_leaks, drop_trivial


@dataclass(frozen=True)
class Helpers:
    """What filters know beside the rows."""

    examples: Sequence[str] = ()
    """Queries that the writer was shown."""
    judge: Judge | None = None
    languages: Mapping[tuple[str, int], str | None] | None = None
    """The language that the writer was asked for, by chunk and slot; that of the chunk where it is None."""
    titles: bool = False
    """Whether the round trip searches texts with their titles; beside a title as the query it would say nothing."""

    def wanted(self, row: Row) -> str | None:
        """Return the language that a row's query should be in; None where nobody can say."""
        if self.languages is None:
            return text_language(row)
        return self.languages.get((row.candidate.chunk, row.candidate.slot))


def filter_rows(
    rows: list[Row],
    corpus: Corpus,
    groups: Groups,
    config: SynthesisConfig,
    vectors: QueryVectors | None,
    helpers: Helpers,
    cache: Path,
) -> None:
    """Let the filters take what they do not believe, the cheap ones first.

    Args:
        rows: All that was written.
        corpus: What is searched.
        groups: Documents that are near copies, and their splits.
        config: The filters' settings.
        vectors: Of queries; without them only words are compared.
        helpers: What is known beside the rows.
        cache: Folder of caches.
    """
    apply(rows, text_tests(config, helpers.examples, helpers.wanted))
    set_aside(rows)
    drop_duplicates(rows, config.cosine, None if vectors is None else vectors.embed)
    texts = [
        join_title(chunk.title, chunk.text)
        if helpers.titles and config.chunks.title
        else chunk.text
        for chunk in corpus.chunks
    ]
    reader = open_reader(config.round_trip, texts, vectors, cache)
    if reader is not None:
        asked = sum(row.kept for row in rows)
        with progress_bar("Asking for each query", asked) as advance:
            ask_reader(rows, corpus.chunks, groups.clusters, reader, config.round_trip, advance)
    drop_improbable(rows, config.log_probability)
    ask_judge(rows, helpers.judge)
    drop_leaks(rows, groups.splits)
    join_same(rows, lambda row: groups.splits[row.unit], config.round_trip.top)
    drop_trivial(rows, groups.splits)
    cap(rows, config)
    # Rows that were joined have more texts than those that were looked at before.
    drop_leaks(rows, groups.splits)
