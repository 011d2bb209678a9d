"""Workflow: a model answers queries over documents."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.data.readers.beir import RetrievalTask
from embedtrain.encoding.cache import embed_once, embeddings_folder, model_key
from embedtrain.encoding.pair_cache import score_once
from embedtrain.encoding.pair_scorers import PairScorer
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.measures.second_stage import reorder
from embedtrain.evaluation.tasks.subject import kind_of
from embedtrain.files import default_cache
from embedtrain.mining.bm25 import Bm25Index, Bm25Search
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.late_chunking import chunk_late
from embedtrain.models.dense.pair_head import interaction_of, refuse_interaction
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.precision import Precision, choose
from embedtrain.recipe.retrieval import load_retrieval_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.dense.sets import set_query
from embedtrain.retrieval.indexes import open_index, read_index
from embedtrain.retrieval.search import for_many_searches, search
from embedtrain.workflows.encode.file import DOCUMENT_COLUMNS, read_texts
from embedtrain.workflows.evaluate.first_stage import BM25, refuse_model_settings
from embedtrain.workflows.prepare import load_task, open_data


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    rank: int
    score: float
    document_id: str
    text: str


class Searcher:
    """A model and an encoded corpus.

    Args:
        model: Model folder, run's ``model/`` or Hub id; or ``bm25``.
        data: A BEIR folder, ``python_docs`` or a ``.jsonl`` of documents; None takes what the run that
            made the model was evaluated on.
        split: Split of ``data``, where it has splits.
        instruction: Name of one of the model's, whose prompts take the place of the usual ones.
        long_inputs: How documents may be longer than the model was trained on.
        late_chunks: Tokens of a chunk, where documents are found by their best chunk.
        precision: What the network computes in.
        second: What orders the first results anew, if anything does.
        depth: How many of them.
        index: Words of an index, as for :func:`embedtrain.retrieval.indexes.read_index`; None searches exactly.
    """

    def __init__(
        self,
        model: str,
        data: str | None = None,
        split: str | None = None,
        instruction: str | None = None,
        long_inputs: LongInputs | None = None,
        late_chunks: int | None = None,
        precision: Precision = "auto",
        second: PairScorer | None = None,
        depth: int = 50,
        index: str | None = None,
    ) -> None:
        self.second, self.depth, self.precision = second, depth, precision
        task = _find_task(model, data, split)
        if task is None:
            lines: dict[str, int] = {}  # rows that share a document hold one document
            for number, text in enumerate(read_texts(Path(str(data)), None, DOCUMENT_COLUMNS), 1):
                lines.setdefault(text, number)
            self.texts, self.ids = list(lines), list(map(str, lines.values()))
        else:
            self.texts, self.ids = task.documents, task.document_ids
        if model == BM25:
            refuse_model_settings(model, instruction, long_inputs, late_chunks)
            if index is not None:
                raise UserError(
                    "--index", "is for models", got=index, cure="Leave it out: bm25 has its own"
                )
            self.model, self._find = None, Bm25Index(Bm25Search(), self.texts).search
            return
        encoder = lengthen_encoder(load_encoder(model, instruction=instruction), long_inputs)
        self.model = chunk_late(encoder, late_chunks)
        settings = None
        if index is not None:
            settings = read_index(index, kind_of(self.model))
            refuse_interaction(self.model, "--index")
        key, cache = model_key(self.model), default_cache()
        kept = embed_once(self.model, key, self.texts, "document", cache, precision=precision)
        if settings is not None:
            chosen = choose(precision, self.model.device.type)
            digest = embeddings_folder(cache, key, self.texts, "document", chosen).name
            place = cache / "indices" / digest
            self.index = open_index(kept, settings, place, self.model.device)
            self._find = self._find_in_index
            return
        self.embeddings = for_many_searches(kept, interaction_of(self.model), self.model.device)
        self._find = self._find_near

    def search(self, query: str, num_results: int = 5) -> list[Hit]:
        """Return the best documents for a query, best first.

        With a second stage they come in its order and with its scores; what it has not seen follows.
        """
        if self.second is None:
            found = self._find([query], num_results)
        else:
            found = self._find([query], max(num_results, self.depth))
            shown = found.indices[:, : self.depth]
            pairs = [(query, self.texts[index]) for index in shown[0].tolist() if index >= 0]
            scores = np.full(shown.shape, -np.inf, dtype=np.float32)
            scores[shown >= 0] = score_once(self.second, pairs, "--rerank", None).scores
            found = reorder(found, scores, shown.shape[1])
        return list_hits(found, self.ids, self.texts)[0][:num_results]

    def _find_near(self, queries: Sequence[str], num_results: int) -> SearchResult:
        assert self.model is not None
        vectors = encode_texts(self.model, queries, "query", precision=self.precision)
        interaction, device = interaction_of(self.model), self.model.device
        return search(vectors, self.embeddings, num_results, interaction, device)

    def _find_in_index(self, queries: Sequence[str], num_results: int) -> SearchResult:
        assert self.model is not None
        vectors = encode_texts(self.model, queries, "query", precision=self.precision)
        return self.index.search(vectors, num_results)

    def search_sets(
        self, like: Sequence[Path], unlike: Sequence[Path] = (), num_results: int = 5
    ) -> list[Hit]:
        """Return the documents that are like the texts of some files and unlike those of others.

        Raises:
            UserError: If there is no file of texts, or a text has several vectors.
        """
        if not isinstance(self.model, DenseEncoder) or self.model.interaction is not None:
            raise UserError("--like", "needs a model with one vector per text and inner products")

        def encode(path: Path) -> NDArray[np.float32]:
            assert isinstance(self.model, DenseEncoder)
            texts = list(read_texts(path, None))
            return encode_texts(self.model, texts, "document", precision=self.precision)

        vector = set_query([encode(path) for path in like], [encode(path) for path in unlike])
        found = search(vector, self.embeddings, num_results, device=self.model.device)
        return list_hits(found, self.ids, self.texts)[0]


def list_hits(found: SearchResult, ids: Sequence[str], texts: Sequence[str]) -> list[list[Hit]]:
    """Return the results of each query, with the ids and texts of the documents searched."""
    return [
        [
            Hit(rank, float(score), ids[index], texts[index])
            for rank, (index, score) in enumerate(zip(indices.tolist(), scores, strict=True), 1)
            if index >= 0
        ]
        for indices, scores in zip(found.indices, found.scores, strict=True)
    ]


def _find_task(model: str, data: str | None, split: str | None) -> RetrievalTask | None:
    """Return what to search; None if ``data`` is a file."""
    if data is not None:
        return None if Path(data).is_file() else load_task(data, split or "test")
    run = RunFolder(Path(model).parent)
    if run.is_run:
        recipe = load_retrieval_recipe(run.recipe)
        if split is not None and recipe.evaluation is not None and recipe.evaluation.path:
            return load_task(recipe.evaluation.path, split)
        if recipe.evaluation is not None:
            return open_data(recipe).evaluation
    raise UserError(
        "--data",
        "is missing and the model's run names no evaluation data",
        cure="Say what to search",
    )
