"""Dense encoder: one vector per text."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.contract.framing import Contrast
from embedtrain.models.chunking import (
    Encoded,
    Execution,
    encode_in_chunks,
    encode_tokens_in_chunks,
)
from embedtrain.models.dense.contrast import (
    contrasted,
    last_tokens,
    reading_heads,
    replacing_heads,
)
from embedtrain.models.dense.echo import prepending, twice, with_placeholder
from embedtrain.models.dense.frames import apart, longest_first, without_place
from embedtrain.models.dense.pair_head import interaction_of
from embedtrain.models.dense.part_slots import DenseParts
from embedtrain.models.dense.query_head import QueryHead
from embedtrain.models.dense.span_pooling import merge_spans, pool_spans
from embedtrain.models.pooling import pool, widen
from embedtrain.models.value_vectors import recorded_values
from embedtrain.ops.similarity import as_computed
from embedtrain.packed import Texts, laid_end_to_end
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side, TokenEmbeddings


class DenseEncoder(DenseParts):
    """Backbone, pooling, optional projection, normalisation: texts in, one vector each out."""

    @property
    def num_layers(self) -> int:
        """Layers of the backbone."""
        return int(self.backbone.config.num_hidden_layers)

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the embeddings out by query and candidate."""
        queries, documents = batch.queries, batch.documents
        if self.sides_differ:
            return self._by_sides(batch, execution)
        together = laid_end_to_end(queries, documents)
        layers = () if self.exits is None else self.exits.layers
        embeddings = as_computed(self.embed_layers(together, execution, layers))
        query, document = torch.split(embeddings, [len(queries), len(documents)])
        if self.query_gate is not None:
            query, document = query.chunk(2, dim=1)[1], document.chunk(2, dim=1)[0]
        return RetrievalOutputs(
            query=query[batch.query_rows],
            document=document[batch.document_rows],
            relevance=batch.relevance,
            temperature=self.temperature,
            similarity=self.contract.similarity,
            pair_classifier=None if self.pair_classifier is None else self.pair_classifier.weight,
            word_prediction=None if self.word_head is None else self.word_head(query, batch),
            interaction=None if self.interaction is None else self.interaction.weights,
            exits=(*layers, self.num_layers) if layers else (),
        )

    def _by_sides(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Do what :meth:`forward` does where a head makes other numbers of queries than of documents."""
        query = self.embed(batch.queries, execution, "query")
        document = as_computed(self.embed(batch.documents, execution))
        return RetrievalOutputs(
            query=query[batch.query_rows],
            document=document[batch.document_rows],
            relevance=batch.relevance,
            temperature=self.temperature,
            similarity=self.contract.similarity,
            interaction=interaction_of(self),
        )

    def embed(
        self,
        texts: Texts,
        execution: Execution,
        side: Side = "document",
    ) -> Float[Tensor, "texts dim"]:
        """Return one vector per text, in float32 at least, normalised if the similarity is cosine.

        Of queries that pass a head it returns what the head makes of them.
        """
        if self.query_head is not None and side == "query":
            return self._embed_queries(texts, execution, self.query_head)
        vectors = self.embed_layers(texts, execution, side=side)
        if self.query_gate is None:
            return vectors
        plain, gated = vectors.chunk(2, dim=1)
        return gated if side == "query" and (self.gates_queries or self.training) else plain

    def embed_layers(
        self,
        texts: Texts,
        execution: Execution,
        layers: tuple[int, ...] = (),
        side: Side = "document",
    ) -> Float[Tensor, "texts dim"]:
        """Return one vector per text as :meth:`embed` does, those of ``layers`` side by side before it.

        With a query gate the plain vector comes first, then the gated one.
        """
        if self.situated is not None:
            own, read = self.situated.split(texts)
            return self.situated.beside(
                self._embed_layers(own, execution, layers, side), read, execution
            )
        return self._embed_layers(texts, execution, layers, side)

    def _embed_layers(
        self, texts: Texts, execution: Execution, layers: tuple[int, ...], side: Side
    ) -> Float[Tensor, "texts dim"]:
        packed = self.packs(texts)
        if self.contract.echo:
            execution = replace(execution, chunk_tokens=max(1, execution.chunk_tokens // 2))
        if self.contract.spans is not None:
            return self._embed_spans(texts, execution, side, packed=packed)
        every = () if self.layer_pooling is None else self.layer_pooling.layers_before

        framing = self.contract.framing
        several = framing is not None and bool(framing.prompts or framing.contrast)

        def encode(chunk: Texts) -> Float[Tensor, "texts dim"]:
            if several:
                return self._embed_frames(chunk, packed=packed)
            states, chunk = self._own_states(chunk, packed=packed, layers=every or layers)
            parts = states.chunk(len(every or layers) + 1, dim=1)
            if self.layer_pooling is not None:
                pooled = [pool(part, chunk.lengths, self.contract.pooling) for part in parts]
                return self._finish(self.layer_pooling(torch.stack(pooled, 1)), self.projection)
            vectors = [
                self.head(part, chunk, layer)
                for part, layer in zip(parts, (*layers, None), strict=True)
            ]
            if self.query_gate is not None:
                vectors.append(self.query_gate(vectors[0], states, chunk))
            return torch.cat(vectors, dim=1) if len(vectors) > 1 else vectors[0]

        return encode_in_chunks(
            self._under_adapter(encode, side), texts, execution, padded=not packed
        )

    def _embed_queries(
        self, texts: Texts, execution: Execution, head: QueryHead
    ) -> Float[Tensor, "texts numbers"]:
        packed = self.packs(texts)

        def encode(chunk: Texts) -> Float[Tensor, "texts numbers"]:
            states, own = self._own_states(chunk, packed=packed, layers=())
            made: Tensor = head(states, own.lengths)
            return made

        return encode_in_chunks(
            self._under_adapter(encode, "query"), texts, execution, padded=not packed
        )

    def _embed_spans(
        self, texts: Texts, execution: Execution, side: Side, *, packed: bool
    ) -> Float[Tensor, "texts dim"]:
        """Return the vector of each text's span; texts that differ in it alone are encoded once."""
        merged, places = merge_spans(texts)

        def states(plain: Texts) -> Float[Tensor, "tokens width"]:
            return self._own_states(plain, packed=packed, layers=())[0]

        def finish(pooled: Float[Tensor, "spans width"]) -> Float[Tensor, "spans dim"]:
            behind = self.span_mlp or self.value_spans
            return self._finish(behind(pooled) if behind else pooled, self.projection)

        def encode(chunk: Texts) -> TokenEmbeddings:
            return pool_spans(chunk, states, finish, "last_token" if self.value_spans else "mean")

        act = self._under_adapter(encode, side)
        return encode_tokens_in_chunks(act, merged, execution, padded=not packed).tokens[places]

    def _run(self, layers: tuple[int, ...], **inputs: object) -> Float[Tensor, "texts width dim"]:
        """Return what is pooled: states, or where the contract says so the value vectors of the last layer."""
        if self.contract.spans != "values":
            return super()._run(layers, **inputs)
        with recorded_values(self.backbone) as found:
            super()._run((), **inputs)
        return found[-1]

    def _embed_frames(self, texts: Texts, *, packed: bool) -> Float[Tensor, "texts dim"]:
        """Return one vector per text of several frames: their mean, or the first against the last."""

        def pooled(some: Texts) -> Float[Tensor, "texts width"]:
            states, own = self._own_states(some, packed=packed, layers=())
            return pool(states, own.lengths, self.contract.pooling)

        frames, width = apart(texts), int(self.backbone.config.hidden_size)
        framing = self.contract.framing
        assert framing is not None
        if framing.contrast is None:
            vectors = longest_first(frames, pooled).view(len(texts), -1, width).mean(1)
        else:
            vectors = self._contrasted(frames, framing.contrast, pooled, packed=packed)
        return self._finish(vectors, self.projection)

    def _contrasted(
        self,
        frames: Texts,
        config: Contrast,
        pooled: Callable[[Texts], Tensor],
        *,
        packed: bool,
    ) -> Float[Tensor, "texts width"]:
        """Pool texts with what they say under another frame taken away; usual and other frames come in turn."""
        rows = torch.arange(len(frames) // 2)
        usual, other = frames.select(2 * rows), frames.select(2 * rows + 1)
        places = last_tokens(other, packed=packed)
        with reading_heads(self.backbone, config.layer, places) as found:
            self.states(other, packed=packed)
        heads = int(self.backbone.config.num_attention_heads)
        change = partial(contrasted, other=found[0], config=config, num_heads=heads)
        places = last_tokens(usual, packed=packed)
        with replacing_heads(self.backbone, config.layer, places, change):
            return pooled(usual)

    def _own_states(
        self, texts: Texts, *, packed: bool, layers: tuple[int, ...]
    ) -> tuple[Float[Tensor, "tokens width"], Texts]:
        """Return the states of the texts' own tokens, whatever else the backbone is shown, and those texts."""
        contract = self.contract
        if contract.prepend is not None:
            places = None
            if contract.marks_text:
                shown, texts, own, places = without_place(texts)
            else:
                shown, own = with_placeholder(texts, self.tokenizer.eos_token_id)
            with prepending(
                self.backbone,
                contract.prepend,
                shown.lengths,
                packed=packed,
                places=places,
                placeholder=self.placeholder,
            ):
                return self.states(shown, packed=packed, layers=layers)[own], texts
        if contract.echo:
            shown, own = twice(texts)
            return self.states(shown, packed=packed, layers=layers)[own], texts
        return self.states(texts, packed=packed, layers=layers), texts

    def _under_adapter(
        self, encode: Callable[[Texts], Encoded], side: Side
    ) -> Callable[[Texts], Encoded]:
        """Let the adapter of a side act whenever a chunk is encoded, in the backward pass as well."""
        adapters, chosen = self.adapters, self.contract.adapters
        if adapters is None or chosen is None:
            return encode
        name = chosen.active.of(side)

        def act(chunk: Texts) -> Encoded:
            adapters.use(name)
            return encode(chunk)

        return act

    def _finish(
        self, pooled: Float[Tensor, "texts width"], projection: nn.Linear | None
    ) -> Float[Tensor, "texts dim"]:
        if projection is not None:
            pooled = widen(projection(pooled))
        return F.normalize(pooled, dim=-1) if self.contract.similarity == "cosine" else pooled

    def head(
        self, states: Float[Tensor, "tokens width"], texts: Texts, layer: int | None = None
    ) -> Float[Tensor, "texts dim"]:
        """Return the vectors of texts, or of parts of them, from the states of their tokens."""
        if self.attention_pooling is not None:
            pooled: Tensor = self.attention_pooling(states, texts.lengths)
        elif self.decoder_pooling is not None:
            pooled = self.decoder_pooling(states, texts)
        else:
            pooled = pool(states, texts.lengths, self.contract.pooling)
        own = None if self.exits is None or layer is None else self.exits.head(layer)
        if self.words is None:
            return self._finish(pooled, own or self.projection)
        if self.projection is not None:
            pooled = widen(self.projection(pooled))
        return self._finish(torch.cat([pooled, self.words(states, texts.lengths)], 1), None)
