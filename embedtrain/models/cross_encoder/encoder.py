"""Cross-encoder: a query and a document in, one score out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from embedtrain.contract.pair_contract import PairContract
from embedtrain.contract.pairs import PairParts, join_pairs, refuse_no_room
from embedtrain.models.backbone.loading import Backbone, Packing
from embedtrain.models.chunking import Execution, encode_in_chunks
from embedtrain.models.cross_encoder.answers import AnswerHead
from embedtrain.models.cross_encoder.first_word import FirstWordHead
from embedtrain.models.cross_encoder.head import ClassifierHead
from embedtrain.models.first_tokens import let_first_alone
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts, upload
from embedtrain.types import RetrievalBatch, RetrievalOutputs, Side

Head = ClassifierHead | AnswerHead | FirstWordHead


class CrossEncoderModel(TextModel):
    """Backbone and head: pairs in, one number each out, the raw log-odds of being relevant, or one for each class.

    Args:
        backbone: Model and tokenizer.
        contract: Lengths and template.
        parts: The tokens that the contract puts around both texts.
        whole: The classifier that ``backbone`` and ``head`` are parts of, which is saved.
        head: Makes the score.
        packing: See :class:`TextModel`.
        exits: Layers, without the last, whose states are scored too in training.

    Raises:
        UserError: As :class:`TextModel` does, or if the template leaves no room for a document.
    """

    contract: PairContract
    length_keys: ClassVar[Mapping[Side, str]] = {
        "query": "model.query_length",
        "document": "model.length",
    }

    def __init__(
        self,
        backbone: Backbone,
        contract: PairContract,
        parts: PairParts,
        whole: Any,  # noqa: ANN401 - transformers is untyped
        head: Head,
        *,
        packing: Packing = "auto",
        exits: tuple[int, ...] = (),
    ) -> None:
        super().__init__(backbone, contract, packing=packing)
        self.exits = exits
        self._first_alone = head.pooling == "cls" and let_first_alone(self.backbone)
        refuse_no_room(parts, length=contract.pair_length, query_length=contract.query_length)
        self.parts = parts
        self.head = head
        self._whole = (whole,)  # its layers are those above: as a module they would be named twice
        self.num_cut = self.num_joined = 0
        """Pairs whose document was cut, and pairs that were joined."""

    @property
    def whole(self) -> Any:  # noqa: ANN401 - transformers is untyped
        """The classifier whose layers these are."""
        return self._whole[0]

    def forward(self, batch: RetrievalBatch, execution: Execution) -> RetrievalOutputs:
        """Score each candidate with the query that brought it; a pair that occurs twice is read once."""
        pairs, places = self._pairs(batch)
        device = batch.relevance.owners.device
        values = self._logits(pairs.to(device), execution, self.exits)[upload(places, device)]
        outputs = RetrievalOutputs(
            query=values.new_empty(len(batch.query_rows), 0),
            document=values.new_empty(len(batch.document_rows), 0),
            relevance=batch.relevance,
            similarity="dot",
        )
        if self.contract.classes:
            return replace(outputs, pair_logits=values)
        if self.exits:
            last = int(self.backbone.config.num_hidden_layers)
            outputs = replace(outputs, exits=(*self.exits, last), exit_scores=values)
        return replace(outputs, pair_scores=values[:, -1])

    def texts_of(self, batch: RetrievalBatch) -> Texts:
        """Return the distinct pairs."""
        return self._pairs(batch)[0].to(batch.relevance.owners.device)

    def values(self, texts: Texts, execution: Execution) -> Float[Tensor, "rows dim"]:
        """Return the score of each pair, in a column, or the logits of its classes."""
        return self._logits(texts, execution)

    def _logits(
        self, texts: Texts, execution: Execution, layers: tuple[int, ...] = ()
    ) -> Float[Tensor, "rows dim"]:
        """Return what the head says of the states after each of ``layers`` and after the last, side by side."""
        packed = self.packs(texts)

        def encode(chunk: Texts) -> Float[Tensor, "chosen dim"]:
            if self.head.pooling == "cls" and not layers:
                ones = torch.ones_like(chunk.lengths)  # a first token alone is its text's first
                scored: Tensor = self.head(self.first_states(chunk, packed=packed), ones)
                return scored
            states = self.states(chunk, packed=packed, layers=layers)
            if isinstance(self.head, FirstWordHead):
                return self.head(states, chunk)  # type: ignore[no-any-return]
            parts = states.chunk(len(layers) + 1, dim=1)
            return torch.cat([self.head(part, chunk.lengths) for part in parts], dim=1)

        return encode_in_chunks(encode, texts, execution, padded=not packed)

    def score(self, pairs: Texts, execution: Execution) -> Float[Tensor, " pairs"]:
        """Return the score of each pair, in their order, in float32 at least."""
        return self.values(pairs, execution)[:, 0]

    def join(
        self,
        queries: Texts,
        documents: Texts,
        query_rows: Int64[Tensor, " pairs"],
        document_rows: Int64[Tensor, " pairs"],
    ) -> Texts:
        """Join texts, which hold no special tokens, to pairs; all on the CPU."""
        pairs, begins, num_cut = join_pairs(
            queries,
            documents,
            query_rows,
            document_rows,
            self.parts,
            length=self.contract.pair_length,
            query_length=self.contract.query_length,
        )
        self.num_cut += num_cut
        self.num_joined += len(begins)
        second = begins if self.parts.has_types else None
        return Texts(pairs.ids, pairs.lengths, second=second)

    def pairs_of(self, pairs: Sequence[tuple[str, str]]) -> Texts:
        """Tokenise and join pairs of texts, each distinct text once."""
        queries, query_rows = self._tokenized([query for query, _ in pairs], "query")
        documents, document_rows = self._tokenized([document for _, document in pairs], "document")
        return self.join(queries, documents, query_rows, document_rows)

    def _tokenized(self, texts: Sequence[str], side: Side) -> tuple[Texts, Int64[Tensor, " texts"]]:
        """Tokenise each distinct text once; say which of them each text is."""
        known = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        rows = torch.tensor([known[text] for text in texts], dtype=torch.int64)
        return self.tokenization.encode(list(known), side), rows

    def _pairs(self, batch: RetrievalBatch) -> tuple[Texts, Int64[Tensor, " documents"]]:
        """Return the distinct pairs of a batch, and which of them each candidate's is; on the CPU."""
        host = batch.on_host
        size = len(host.documents)
        numbers = host.query_rows[host.relevance.owners] * size + host.document_rows
        distinct, places = torch.unique(numbers, return_inverse=True)
        rows = distinct.div(size, rounding_mode="floor"), distinct % size
        return self.join(host.queries, host.documents, *rows), places
