"""What finds documents among some texts for queries that come one after the other: a model, or BM25."""

from collections.abc import Callable, Sequence

from embedtrain.contract.context import Context, marked_in, reads_contexts
from embedtrain.contract.long_inputs import LongInputs
from embedtrain.encoding.cache import embed_once, embeddings_folder, model_key
from embedtrain.encoding.texts import encode_texts
from embedtrain.errors import UserError
from embedtrain.evaluation.tasks.subject import kind_of
from embedtrain.files import default_cache
from embedtrain.mining.bm25 import Bm25Index
from embedtrain.models.build import load_encoder
from embedtrain.models.dense.late_chunking import chunk_late
from embedtrain.models.dense.pair_head import interaction_of, refuse_interaction
from embedtrain.models.edits.lengthen import lengthen_encoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.precision import Precision, choose
from embedtrain.retrieval.dense.exact import SearchResult
from embedtrain.retrieval.feedback import Vectors, search_again
from embedtrain.retrieval.indexes import open_index, read_index
from embedtrain.retrieval.search import Documents, for_many_searches, search
from embedtrain.workflows.evaluate.asking import read_feedback
from embedtrain.workflows.evaluate.first_stage import (
    RUN,
    is_model,
    read_bm25,
    refuse_model_settings,
)
from embedtrain.workflows.stored import named_index


class Finder:
    """A model and the vectors of texts, or BM25 over them.

    Args:
        name: A model folder or Hub id, ``bm25`` or ``bm25:key=value,...``.
        texts: What is searched.
        contexts: The documents that they are chunks of, for models that read chunks within them.
        instruction: Name of one of the model's, whose prompts take the place of the usual ones.
        long_inputs: How documents may be longer than the model was trained on.
        late_chunks: Tokens of a chunk, where documents are found by their best chunk.
        precision: What the network computes in.
        index: Words of an index, as for :func:`embedtrain.retrieval.indexes.read_index`; None searches exactly.
        feedback: Words of :func:`embedtrain.workflows.evaluate.asking.read_feedback`; None searches once.

    Raises:
        UserError: If it cannot search, or takes no part of these.
    """

    find: Callable[[Sequence[str], int], SearchResult]
    """Finds the best documents of each query."""
    _near: Callable[[Vectors, int], SearchResult]

    def __init__(
        self,
        name: str,
        texts: list[str],
        contexts: list[Context] | None = None,
        instruction: str | None = None,
        long_inputs: LongInputs | None = None,
        late_chunks: int | None = None,
        precision: Precision = "auto",
        index: str | None = None,
        feedback: str | None = None,
    ) -> None:
        self.name, self.precision = name, precision
        self.model: TextEncoder | None = None
        self.embeddings: Documents | None = None
        if not is_model(name):
            if name.startswith(RUN):
                cure = "Measure it with embedtrain evaluate"
                raise UserError("search", "needs systems that search", got=name, cure=cure)
            refuse_model_settings(name, instruction, long_inputs, late_chunks)
            for flag, words in (("--index", index), ("--feedback", feedback)):
                if words is not None:
                    raise UserError(flag, "is for models", got=words, cure="Leave it out")
            self.find = Bm25Index(read_bm25(name), texts).search
            return
        encoder = lengthen_encoder(load_encoder(name, instruction=instruction), long_inputs)
        self.model = chunk_late(encoder, late_chunks)
        if contexts is not None and reads_contexts(self.model.contract):
            texts = marked_in(contexts, self.model.contract.length("document"))
        index = named_index(index, encoder)
        settings = None if index is None else read_index(index, kind_of(self.model))
        if settings is not None or feedback is not None:
            refuse_interaction(self.model, "--index and --feedback")
        key, cache = model_key(self.model), default_cache()
        kept = embed_once(self.model, key, texts, "document", cache, precision=precision)
        if settings is None:
            interaction, device = interaction_of(self.model), self.model.device
            near = self.embeddings = for_many_searches(kept, interaction, device)
            self._near = lambda one, number: search(one, near, number, interaction, device)
        else:
            chosen = choose(precision, self.model.device.type)
            vectors = embeddings_folder(cache, key, texts, "document", chosen)
            place = cache / "indices" / vectors.name
            self._near = open_index(kept, settings, place, self.model.device).search
        if feedback is not None:
            again, similarity = (
                read_feedback(feedback, kind_of(self.model)),
                self.model.contract.similarity,
            )
            once = self._near
            self._near = lambda one, number: search_again(
                once, one, kept, number, again, similarity
            )
        self.find = self._encode_and_find

    def _encode_and_find(self, queries: Sequence[str], num_results: int) -> SearchResult:
        assert self.model is not None
        vectors = encode_texts(self.model, queries, "query", precision=self.precision)
        return self._near(vectors, num_results)
