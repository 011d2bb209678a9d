r"""Late chunking: a document is encoded whole, and each chunk is the mean of its tokens' states afterwards.

A chunk's vector therefore knows the rest of the document; chunks of a document that fits the model are

$$c_k = \frac{1}{|S_k|} \sum_{t \in S_k} h_t(\text{document}),$$

projected and normalised as whole texts are. The first chunk has the prompt and the special tokens before the
text, the last one those behind it, so that a document of one chunk has the vector it always had. Longer
documents are read in windows that overlap, each with the prompt and the special tokens; a token's state is
that of the window in which it stands farther from an edge.

Source: Günther et al. (2024), https://arxiv.org/abs/2409.04701.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.contract.texts import Contract, Tokenization, join_texts
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import Backbone
from embedtrain.models.backbone.special_ends import special_ends
from embedtrain.models.chunking import Execution, encode_tokens_in_chunks
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.dense.windows import windows
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.whole_words import WholeWords
from embedtrain.ops.similarity import as_computed
from embedtrain.packed import Texts, upload
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side, TokenEmbeddings

ENDLESS = 10_000_000
"""Tokens of a document, which nothing cuts."""
OVERLAP_RATIO = 1 / 4
"""Of a window, that the next one reads again."""


class LateChunkEncoder(TextEncoder):
    """A dense encoder whose documents have a vector per chunk; queries keep their one.

    A query is compared with the nearest chunk of a document: MaxSim with one query vector.

    Args:
        model: A dense encoder that pools means.
        chunk_length: Tokens of a chunk at most. Chunks of a document are about equally long and end where
            words do.

    Raises:
        UserError: If the model does not pool plain means of its own documents' states.
    """

    contract: Contract

    def __init__(self, model: DenseEncoder, chunk_length: int) -> None:
        contract = model.contract
        if not pools_plain_means(model):
            raise UserError(
                "--late-chunks",
                "needs a model whose vectors are means of token states, and nothing more",
                got=contract.pooling,
                cure="Choose another model",
            )
        model.use_padded_attention()  # the wrapper takes it for the one to return to
        backbone = Backbone(model.backbone, model.tokenizer, "", Path())
        known = contract.model_copy(update={"late_chunks": chunk_length})
        super().__init__(backbone, known, packing=model.packing)
        self.dense = model
        del self._modules["backbone"]  # a checkpoint would hold each weight twice
        self.chunk_length = chunk_length
        self.words = WholeWords(model.tokenizer)
        self.num_before, self.num_behind = special_ends(model.tokenizer, contract.document_prompt)
        self.room = contract.document_length - self.num_before - self.num_behind
        if self.room < 2:
            raise UserError(
                "--late-chunks",
                "finds no room for text beside the prompt",
                cure="Lengthen documents",
            )

    @property
    def backbone(self) -> Any:  # noqa: ANN401 - transformers is untyped
        """That of the dense encoder."""
        return self.dense.backbone

    @property
    def dim(self) -> int:
        """Dimension of a vector."""
        return self.dense.dim

    @property
    def whole(self) -> DenseEncoder:
        """The dense encoder, whose contract says that its documents have chunks."""
        model = copy.copy(self.dense)
        model.contract = self.contract
        return model

    @property
    def tokenization(self) -> Tokenization:
        """Texts to token ids; documents are not cut."""
        return Tokenization(
            self.tokenizer, self.contract.model_copy(update={"document_length": ENDLESS})
        )

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Encode each distinct text of the batch once and lay the embeddings out by query and candidate."""
        query = self.embed(batch.queries, execution, "query")
        document = self.embed(batch.documents, execution)
        return RetrievalOutputs(
            query=as_computed(query).select(batch.on_host.query_rows),
            document=as_computed(document).select(batch.on_host.document_rows),
            relevance=batch.relevance,
            temperature=self.dense.temperature,
            similarity=self.contract.similarity,
        )

    def embed(self, texts: Texts, execution: Execution, side: Side = "document") -> TokenEmbeddings:
        """Return one vector of a query, one per chunk of a document, in float32 at least."""
        if side == "query":
            vectors = self.dense.embed(texts, execution, "query")
            one_each = torch.ones_like(texts.lengths)
            return TokenEmbeddings(vectors, one_each, host_lengths=torch.ones_like(texts.sizes))
        packed = self.packs(texts)

        def encode(chunk: Texts) -> TokenEmbeddings:
            parts = [self.chunk_lengths(ids) for ids in _split(chunk.on_host)]
            return self._pool(chunk, parts, execution, packed=packed)

        return encode_tokens_in_chunks(encode, texts, execution, padded=not packed)

    def embed_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        execution: Execution,
    ) -> TokenEmbeddings:
        """Return one vector per span of each document, whose chunks these are instead of equally long ones.

        Args:
            texts: Documents without prompts.
            spans: Where chunks start and end, in characters; of each document in order, without overlap.
                What stands between two belongs to the one before.
            execution: How many tokens are encoded at once.

        Raises:
            UserError: If spans are not in order, or one holds no token.
        """
        rows, parts = [], []
        for text, chunks in zip(texts, spans, strict=True):
            ids, starts = self._tokens(text)
            rows.append(ids)
            parts.append(self._span_lengths(starts, list(chunks), text))
        documents = join_texts(rows).to(self.device)
        return self._pool(documents, parts, execution, packed=self.packs(documents))

    def chunk_lengths(self, ids: Int64[Tensor, " tokens"]) -> list[int]:
        """Return how many tokens each chunk of a document has, prompt and special tokens included."""
        body = len(ids) - self.num_before - self.num_behind
        count = max(1, -(-body // self.chunk_length))
        starts = self.words.starts[ids].tolist()
        ends, previous = [], self.num_before
        for number in range(1, count):
            end = wanted = self.num_before + round(number * body / count)
            while end > previous + 1 and not starts[end]:
                end -= 1
            ends.append(end if starts[end] else wanted)
            previous = ends[-1]
        places = [0, *ends, len(ids)]
        return [stop - start for start, stop in pairwise(places)]

    def chunk_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the chunks of a document start and end, in characters."""
        ids, starts = self._tokens(text)
        lengths = self.chunk_lengths(torch.from_numpy(ids).long())
        firsts = starts[np.cumsum([0, *lengths[:-1]])].clip(min=0).tolist()
        firsts[0] = 0
        return list(zip(firsts, [*firsts[1:], len(text)], strict=True))

    def _tokens(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the tokens of a document and the character of it at which each starts."""
        prompt = self.contract.prompt("document")
        found = self.tokenizer(prompt + text, return_offsets_mapping=True, verbose=False)
        starts = np.asarray([start for start, _ in found["offset_mapping"]]) - len(prompt)
        return np.asarray(found["input_ids"], dtype=np.int32), starts

    def _span_lengths(
        self, starts: NDArray[np.int64], spans: list[tuple[int, int]], text: str
    ) -> list[int]:
        """Count the tokens of each span; those before the first and behind the last belong to these."""
        body = starts[self.num_before : len(starts) - self.num_behind]
        edges = [edge for span in spans for edge in span]
        firsts = [int(np.searchsorted(body, start)) for start, _ in spans]
        places = [*firsts, len(body)]
        each_has_one = all(first < after for first, after in pairwise(places))
        if not spans or edges != sorted(edges) or not each_has_one:
            raise UserError(
                "spans",
                "must be in order, each with a token of its own",
                got=spans,
                cure=f"Correct those of {text[:40]!r}",
            )
        cuts = [0, *(self.num_before + first for first in firsts[1:]), len(starts)]
        return [stop - start for start, stop in pairwise(cuts)]

    def _pool(
        self, documents: Texts, parts: list[list[int]], execution: Execution, *, packed: bool
    ) -> TokenEmbeddings:
        states = self._whole_states(documents, execution, packed=packed)
        lengths = torch.tensor([n for part in parts for n in part])
        spans = Texts(documents.on_host.ids, lengths).to(states.device)
        counts = torch.tensor([len(part) for part in parts])
        return TokenEmbeddings(
            self.dense.head(states, spans), upload(counts, states.device), host_lengths=counts
        )

    def _whole_states(
        self, documents: Texts, execution: Execution, *, packed: bool
    ) -> Float[Tensor, "tokens width"]:
        """Return the states of all tokens; what exceeds the model is read in windows."""
        before, behind = self.num_before, self.num_behind
        pieces: list[Tensor] = []
        kept: list[tuple[int, int]] = []
        for ids in _split(documents):
            body = len(ids) - before - behind
            for window in windows(body, self.room, int(self.room * OVERLAP_RATIO)):
                inner = ids[before + window.start : before + window.stop]
                pieces.append(torch.cat([ids[:before], inner, ids[len(ids) - behind :]]))
                first = 0 if window.first == 0 else before + window.first - window.start
                end = before + window.end - window.start + (behind if window.end == body else 0)
                kept.append((first, end))
        states: list[Tensor] = []
        for batch in _batches([len(piece) for piece in pieces], execution.chunk_tokens):
            some = pieces[batch]
            lengths = [len(piece) for piece in some]
            sizes = torch.tensor(lengths)
            texts = Texts(torch.cat(some), upload(sizes, some[0].device), sizes)
            found = torch.split(self.dense.states(texts, packed=packed), lengths)
            states += [
                state[first:end] for state, (first, end) in zip(found, kept[batch], strict=True)
            ]
        return torch.cat(states)


def pools_plain_means(model: DenseEncoder) -> bool:
    """Whether the model's vectors are means of its own token states, projected and normalised at most."""
    contract = model.contract
    own = (
        *(model.words, model.layer_pooling, model.interaction, model.situated),
        *(model.attention_pooling, model.decoder_pooling, model.query_head, model.adapters),
    )
    shown = contract.echo or contract.prepend or contract.document_model or contract.spans
    gated = model.gates_queries or any(part is not None for part in own)
    return contract.pooling == "mean" and not shown and not gated


def chunk_late(model: TextEncoder, chunk_length: int | None) -> TextEncoder:
    """Return the encoder whose documents have a vector per chunk; None changes nothing.

    Raises:
        UserError: If the model is not of the kind for it.
    """
    if chunk_length is None:
        return model
    if isinstance(model, LateChunkEncoder):
        model = model.dense
    if not isinstance(model, DenseEncoder):
        raise UserError(
            "--late-chunks", "is for models with one vector per text", cure="Leave it out"
        )
    if model.contract.framing is not None:
        suffix = model.contract.framing.document_suffix or "several frames"
        raise UserError(
            "--late-chunks", "does not go with a suffix", got=suffix, cure="Leave one out"
        )
    return LateChunkEncoder(model, chunk_length)


def _split(texts: Texts) -> tuple[Tensor, ...]:
    return torch.split(texts.ids, texts.sizes.tolist())


def _batches(lengths: list[int], most: int) -> list[slice]:
    """Group windows in their order until their padded size exceeds ``most`` tokens."""
    found, start, widest = [], 0, 0
    for place, length in enumerate(lengths):
        widest = max(widest, length)
        if place > start and (place + 1 - start) * widest > most:
            found.append(slice(start, place))
            start, widest = place, length
    return [*found, slice(start, len(lengths))]
