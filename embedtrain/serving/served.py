"""Models as a server uses them: one thread makes token ids of texts, another computes what they give."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedtrain.contract.context import reads_contexts
from embedtrain.contract.texts import Contract, Tokenization, framing_of, join_texts
from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_scorers import detect_kind
from embedtrain.encoding.texts import encode_tokens, encoder_of, join_blocks, sparse_block
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.models.chunking import Execution
from embedtrain.models.cross_encoder.build import load_cross_encoder
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.dense.encoder import DenseEncoder
from embedtrain.models.encoder import TextEncoder
from embedtrain.models.sparse.encoder import SparseEncoder
from embedtrain.models.text_model import TextModel
from embedtrain.packed import Texts
from embedtrain.precision import Precision, choose
from embedtrain.serving.queue import Prepared
from embedtrain.serving.refusals import Refusal
from embedtrain.sparse_vectors import SparseVectors
from embedtrain.types import Side, TokenVectors

Kind = Literal["dense", "late_interaction", "sparse", "cross_encoder"]
Vector = NDArray[np.float32] | TokenVectors | SparseVectors
"""What a model of vectors makes of one text: shape [dim]; the vectors of its tokens; or what is not 0."""
ENTRIES = 512
"""Of a sparse vector, for a guess of the memory that it takes."""
WARM_UP = "a text to begin with"


class Served(ABC):
    """A model under a name."""

    kind: Kind
    model: TextModel

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.model.backbone.config.vocab_size)

    @property
    @abstractmethod
    def sides(self) -> tuple[str, ...]:
        """What it computes: vectors of a side, or scores of pairs."""

    @abstractmethod
    def compute(self, side: str, texts: Sequence[Prepared]) -> list[Any]:
        """Return the result of each text: a vector, the vectors of its tokens, or a score."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compute one text, so that a model that cannot is known before the first request."""


class ServedEncoder(Served):
    """A model of vectors; a result is a :data:`Vector`."""

    def __init__(
        self, name: str, path: str, model: TextEncoder, precision: Precision, batch_tokens: int
    ) -> None:
        super().__init__(name, path)
        self.model: TextEncoder = model
        self.kind = "late_interaction"
        if isinstance(model, DenseEncoder):
            self.kind = "dense"
        elif isinstance(model, SparseEncoder):
            self.kind = "sparse"
        self._precision = choose(precision, model.device.type)
        self._execution = Execution(batch_tokens)
        self._of: dict[Side, TextEncoder] = {
            side: encoder_of(model, side) for side in ("query", "document")
        }
        for encoder in self._of.values():
            encoder.eval()

    @property
    def sides(self) -> tuple[str, ...]:
        """Queries and documents; queries alone where a document is a chunk within another, which no request gives."""
        return ("query",) if reads_contexts(self.model.contract) else ("query", "document")

    @property
    def numbers(self) -> int:
        """Numbers that a text's result holds, of late interaction at most, of a sparse model about."""
        if self.kind == "sparse":
            return 2 * ENTRIES
        tokens = self.model.contract.length("document") if self.kind == "late_interaction" else 1
        return tokens * self.model.dim

    def prepare(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        side: Side,
        *,
        instruction: str | None = None,
        truncate: bool = True,
    ) -> tuple[list[Prepared], int]:
        """Return token ids and how many texts were cut; ids that are given get no prompt and no special tokens.

        Raises:
            Refusal: If a text cannot be encoded, or is too long and may not be cut.
        """
        if side not in self.sides:
            problem = "the model reads chunks within their documents, and answers for queries alone"
            raise Refusal("validation", problem, param="input")
        if not isinstance(texts[0], str):
            return self._given(cast("Sequence[Sequence[int]]", texts), side, truncate=truncate)
        words = cast("Sequence[str]", texts)
        if side == "query" and not all(map(str.strip, words)):
            raise Refusal("empty", "a query is empty", param="input")
        tokenization = self._tokenization(side, instruction)
        try:
            found = tokenization(words, side)
        except UserError as error:
            raise Refusal("validation", _without_value(error), param="input") from error
        if not all(map(len, found)):
            raise Refusal("empty", "a text has no tokens", param="input")
        cut = self._count_cut(words, found, side, tokenization)
        if cut and not truncate:
            raise self._too_long(side)
        return [Prepared(ids) for ids in found], cut

    def compute(self, side: str, texts: Sequence[Prepared]) -> list[Vector]:
        """Return the vectors of each text, as :func:`~embedtrain.encoding.texts.encode_texts` gives them."""
        own = cast("Side", side)
        encoder = self._of[own]
        tokens = join_texts([text.ids for text in texts])
        block = encode_tokens(encoder, tokens, own, self._execution, self._precision)
        if isinstance(encoder, SparseEncoder):
            entries = sparse_block(block)
            return [entries.part(row, row + 1) for row in range(len(texts))]
        if isinstance(block, Tensor):
            return list(block.numpy())
        vectors = join_blocks([block])
        return [vectors.part(row, row + 1) for row in range(len(texts))]

    def warm_up(self) -> None:
        """Encode a text of each side."""
        for side in cast("tuple[Side, ...]", self.sides):
            self.compute(side, self.prepare([WARM_UP], side)[0])

    def _tokenization(self, side: Side, instruction: str | None) -> Tokenization:
        tokenization = self._of[side].tokenization
        if instruction is None:
            return tokenization
        contract = tokenization.contract
        if not isinstance(contract, Contract):
            problem = "instructions are for models with one vector per text"
            raise Refusal("validation", problem, param="instruction")
        try:
            return Tokenization(tokenization.tokenizer, contract.under(instruction))
        except UserError as error:
            known = ", ".join(contract.instructions) or "none"
            problem = f"the model knows no such instruction; it knows: {known}"
            raise Refusal("validation", problem, param="instruction") from error

    def _count_cut(
        self,
        texts: Sequence[str],
        found: Sequence[np.ndarray],
        side: Side,
        tokenization: Tokenization,
    ) -> int:
        """Count the texts that were cut: of those that fill the length, one token more would have been kept."""
        length = tokenization.contract.length(side)
        full = {row: len(ids) for row, ids in enumerate(found) if len(ids) >= length}
        if not full:
            return 0
        longer = tokenization.contract.model_copy(update={f"{side}_length": length + 1})
        again = Tokenization(tokenization.tokenizer, longer)([texts[row] for row in full], side)
        # A text in several frames has the tokens of all.
        return sum(len(ids) > before for ids, before in zip(again, full.values(), strict=True))

    def _given(
        self, texts: Sequence[Sequence[int]], side: Side, *, truncate: bool
    ) -> tuple[list[Prepared], int]:
        if framing_of(self._of[side].contract) is not None:
            # Frames are told apart by marks on their tokens, which ids from outside lack.
            problem = "the model puts a frame around each text: send texts, not token ids"
            raise Refusal("validation", problem, param="input")
        length, size = self._of[side].contract.length(side), self.vocabulary
        if any(not 0 <= one < size for ids in texts for one in ids):
            problem = f"token ids must lie between 0 and {size - 1}"
            raise Refusal("validation", problem, param="input")
        cut = sum(len(ids) > length for ids in texts)
        if cut and not truncate:
            raise self._too_long(side)
        return [Prepared(np.asarray(ids[:length], dtype=np.int32)) for ids in texts], cut

    def _too_long(self, side: Side) -> Refusal:
        length = self._of[side].contract.length(side)
        return Refusal("validation", f"a text has more than {length} tokens", param="input")


class ServedCrossEncoder(Served):
    """A model that reads a query and a document together; a result is their score, the log-odds of being relevant."""

    kind = "cross_encoder"

    def __init__(
        self,
        name: str,
        path: str,
        model: CrossEncoderModel,
        precision: Precision,
        batch_tokens: int,
    ) -> None:
        super().__init__(name, path)
        self.model: CrossEncoderModel = model.eval()
        self._scorer = CrossEncoder(model, precision=precision)
        self._scorer.execution = Execution(batch_tokens)

    @property
    def sides(self) -> tuple[str, ...]:
        """Pairs."""
        return ("pair",)

    def prepare_pairs(
        self, query: str, documents: Sequence[str], *, truncate: bool = True
    ) -> tuple[list[Prepared], int]:
        """Return the token ids of a query with each of some documents, and how many were cut.

        Raises:
            Refusal: If the query is empty, or a pair is too long and may not be cut.
        """
        if not query.strip():
            raise Refusal("empty", "the query is empty", param="query")
        before = self.model.num_cut
        pairs = self.model.pairs_of([(query, document) for document in documents])
        cut = self.model.num_cut - before
        if cut and not truncate:
            length = self.model.contract.pair_length
            raise Refusal("validation", f"a pair has more than {length} tokens", param="documents")
        begins = [None] * len(pairs) if pairs.second is None else pairs.second.tolist()
        return [
            Prepared(ids.numpy().astype(np.int32), begin)
            for ids, begin in zip(pairs.each(), begins, strict=True)
        ], cut

    def compute(self, side: str, texts: Sequence[Prepared]) -> list[float]:
        """Return the score of each pair."""
        assert side in self.sides
        joined = join_texts([text.ids for text in texts])
        if texts[0].second is not None:
            second = torch.tensor([text.second for text in texts], dtype=torch.int64)
            joined = Texts(joined.ids, joined.lengths, second=second)
        scores: list[float] = self._scorer.score_tokens(joined).tolist()
        return scores

    def warm_up(self) -> None:
        """Score a pair."""
        self.compute("pair", self.prepare_pairs(WARM_UP, [WARM_UP])[0])


def open_served(
    path: str, name: str | None, precision: Precision, batch_tokens: int
) -> ServedEncoder | ServedCrossEncoder:
    """Load a model folder or Hub id, of whichever kind it says it is, and let it compute once.

    Raises:
        UserError: If there is no model, or its results are not finite.
    """
    called = name or Path(path).name or path
    served: ServedEncoder | ServedCrossEncoder
    if detect_kind(path) == "cross_encoder":
        read = load_cross_encoder(path)
        served = ServedCrossEncoder(called, path, read, precision, batch_tokens)
    else:
        served = ServedEncoder(called, path, load_encoder(path), precision, batch_tokens)
    served.warm_up()
    return served


def _without_value(error: UserError) -> str:
    """Return what a mistake says without the text that it shows: an answer never repeats one."""
    return str(error).partition("; got ")[0].rstrip(".")
