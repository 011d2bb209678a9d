"""The contract: how a text becomes token ids, and token states a vector.

It is written once, in the recipe, and travels with the weights. Training, mining, evaluation, encoding,
search and export all read it from there, so no two of them can disagree about a prompt or a length.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, model_validator

from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.pair_contract import PairContract, named_instruction
from embedtrain.contract.pieces import tokenise_heads
from embedtrain.contract.spans import is_marked, tokenise_marked
from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.errors import UserError
from embedtrain.packed import Texts
from embedtrain.section import Count, Section
from embedtrain.types import Side, Similarity

Pooling = Literal["cls", "mean", "last_token", "weighted_mean", "max"]
SpanVectors = Literal["mean", "mlp", "values"]
TEXTS_PER_CALL = 256
"""Texts given to the tokenizer at once: it keeps about 100 bytes per token until it is done, cut ones too."""


class TextSide(Section):
    """What one side, queries or documents, looks like to the backbone."""

    prompt: str | None = None
    """Put before every text; null takes the backbone's own prompt, or none."""
    length: Count | None = None
    """Tokens kept, special tokens included; null takes the backbone's own limit, at most 512."""


Template = Literal["instruct", "tart", "plain"]


class Demonstration(Section):
    """An example of the task: a query and a document that answers it."""

    query: str
    document: str


class Instruction(Section):
    """A task in words, put before its queries."""

    text: str
    """What is asked, such as "Given a claim, find documents that refute it"."""
    template: Template = "instruct"
    """``instruct``: "Instruct: TEXT", a new line, "Query: " (E5-Mistral, LG-ANNA). ``tart``: TEXT and the
    separator token. ``plain``: TEXT as it is."""
    examples: tuple[Demonstration, ...] = ()
    """Demonstrations before the query (LG-ANNA, few-shot); documents never get them. For ``instruct``."""
    both_sides: bool = False
    """Put the text before documents as well: for tasks that compare texts of one kind."""

    def query_prompt(self, separator: str) -> str:
        """Return what stands before a query; ``separator`` is the tokenizer's separator token."""
        shown = "".join(
            f"{self._head(separator)}{example.query}\nPassage: {example.document}\n\n"
            for example in self.examples
        )
        return shown + self._head(separator)

    def document_prompt(self, separator: str, default: str) -> str:
        """Return what stands before a document; ``default`` is the model's own prompt."""
        return self._head(separator) if self.both_sides else default

    def _head(self, separator: str) -> str:
        if self.template == "tart":
            return f"{self.text} {separator} "
        return f"Instruct: {self.text}\nQuery: " if self.template == "instruct" else self.text


class TaskPrompts(Section):
    """What an instruction puts before texts."""

    query: str
    document: str


class TokenPrepending(Section):
    """Show a causal model a summary of the whole text, from one layer on to another."""

    start: NonNegativeInt = 1
    """The first layer, counted from 0, before which the placeholder gets the last token's state."""
    stop: Count = 7
    """The layer at which that ends."""


class Contract(Section):
    """The resolved contract: nothing is left to a default of some other program."""

    pooling: Pooling
    """How token states become one vector."""
    similarity: Similarity
    """``cosine`` normalises the vectors, ``dot`` leaves them."""
    query_prompt: str
    document_prompt: str
    query_length: Count
    """Tokens of a query, special tokens included."""
    document_length: Count
    """Tokens of a document, special tokens included."""
    document_model: str = ""
    """Folder of the model that encodes documents, where only queries were tuned; empty: this model."""
    echo: bool = False
    """Show each text twice and pool the second time, whose tokens have seen all of it."""
    prepend: TokenPrepending | None = None
    """Put a summary of the text before its tokens, in some of the layers."""
    instructions: dict[str, TaskPrompts] = Field(default={})
    """Prompts of tasks, by name, that take the place of the two prompts where a command names them."""
    long_inputs: LongInputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """How positions go on behind those that the model was trained on, where they do."""
    spans: SpanVectors | None = Field(default=None, exclude_if=lambda value: value is None)
    """A text may have a marked span, whose tokens alone are pooled; ``mlp`` transforms their mean, ``values`` the value
    vector of the last of them."""
    late_chunks: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    """Tokens of a chunk at most, where a document has a vector per chunk (late chunking)."""

    def under(self, instruction: str | None) -> "Contract":
        """Return the contract with the prompts of an instruction; None changes nothing.

        Raises:
            UserError: If the model knows no instruction of that name.
        """
        if instruction is None:
            return self
        prompts = named_instruction(self.instructions, instruction)
        changed = {"query_prompt": prompts.query, "document_prompt": prompts.document}
        return self.model_copy(update=changed)

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``."""
        return self.query_length if side == "query" else self.document_length


class LateInteractionContract(Section):
    """The resolved contract of a model with several vectors per text."""

    similarity: Similarity
    """``cosine`` normalises every vector, ``dot`` leaves them; texts are compared by MaxSim."""
    query_prompt: str
    """Marker and prompt of a query, such as ``"[Q] "``; a marker is one token."""
    document_prompt: str
    query_length: Count
    """Tokens of a query, special tokens and expansion included."""
    document_length: Count
    markers: tuple[str, ...] = ()
    """Texts at the start of the prompts that the tokenizer must keep as one token."""
    query_expansion: bool = True
    """Fill queries up to their length with mask tokens, which the model turns into further terms."""
    attend_to_expansion: bool = False
    """Let other tokens look at the expansion."""
    skiplist: tuple[str, ...] = ()
    """Words, usually punctuation, whose vectors documents do not keep."""
    query_tokens: Count | None = None
    """Keep only so many vectors of a query, from its first token; null keeps all."""
    document_tokens: Count | None = None
    """Keep only so many vectors of a document, from its first token (ME-BERT); null keeps all."""
    dim: Count = 128
    """Dimension of a vector."""
    pool_factor: Count = 1
    """Merge similar document tokens until one in so many is left."""
    binary: bool = False
    """Documents keep only the signs of their vectors, scaled to length 1."""
    words: bool = False
    """One vector per distinct whole word instead of one per token (ColBERTer)."""
    gate: bool = False
    """Documents drop the words that a learned gate closes."""
    exact_match: bool = False
    """Only equal words are similar; with ``dim: 1`` a learned lexical index (Uni-ColBERTer)."""
    word_dim: Count | None = None
    """Dimension of the vectors that words are averaged and gated in, where ``dim`` is smaller."""
    cls_dim: Count | None = None
    """Add the inner product of one vector per text, from the first token, to the score."""
    long_inputs: LongInputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """How positions go on behind those that the model was trained on, where they do."""

    @model_validator(mode="after")
    def _fits_together(self) -> "LateInteractionContract":
        if len(self.markers) not in (0, 2):
            raise ValueError("markers are two, of queries and of documents, or none")
        if self.words and (self.pool_factor > 1 or self.binary):
            raise ValueError("words are neither pooled nor made binary")
        return self

    @property
    def is_portable(self) -> bool:
        """Whether PyLate and sentence-transformers can express it: they compute the same vectors."""
        own = (self.words, self.gate, self.exact_match, self.binary, self.cls_dim, self.word_dim)
        first = (self.query_tokens, self.document_tokens)
        positions = self.long_inputs is not None and not self.long_inputs.in_weights
        return (
            not any((*own, *first, positions))
            and self.pool_factor == 1
            and self.similarity == "cosine"
        )

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``."""
        return self.query_length if side == "query" else self.document_length

    def first_tokens(self, side: Side) -> int | None:
        """Return how many tokens of a text keep a vector; None for all."""
        return self.query_tokens if side == "query" else self.document_tokens


AnyContract = Contract | LateInteractionContract | SparseContract
ModelContract = AnyContract | PairContract


class Tokenization:
    """Turns texts into token ids under a contract; the only place where prompts and truncation happen."""

    def __init__(self, tokenizer: Any, contract: ModelContract) -> None:  # noqa: ANN401 - transformers is untyped
        self.tokenizer = tokenizer
        self.contract = contract
        # Those of a pair are put around both texts when they are joined.
        self.with_special = not isinstance(contract, PairContract)

    def __call__(self, texts: Sequence[str], side: Side) -> list[NDArray[np.int32]]:
        """Return the token ids of each text, at most ``contract.length(side)`` of them."""
        found: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            found += self._tokenise(texts[start : start + TEXTS_PER_CALL], side)
        return found

    def _tokenise(self, texts: Sequence[str], side: Side) -> list[NDArray[np.int32]]:
        prompt, length = self.contract.prompt(side), self.contract.length(side)
        tokenise = partial(
            self.tokenizer,
            truncation=True,
            max_length=length,
            padding=False,
            add_special_tokens=self.with_special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        marked = next(filter(is_marked, texts), None)
        if marked is not None:
            if not isinstance(self.contract, Contract) or self.contract.spans is None:
                raise UserError("a text", "has a span", got=marked, cure="Set model.spans")
            return tokenise_marked(tokenise, texts, prompt, length, f"model.{side}.length")
        whole = [prompt + text for text in texts]
        found = tokenise_heads(self.tokenizer, whole, length, special=self.with_special)
        if found is None:
            encoded = tokenise(whole)
            found = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        return found

    def encode(self, texts: Sequence[str], side: Side) -> Texts:
        """Return the texts laid end to end, ready for a model."""
        return join_texts(self(texts, side))

    def fingerprint(self, side: Side) -> str:
        """Return a hash that changes when any text of this side could get other token ids."""
        state = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for name in ("truncation", "padding"):  # set by the last call, not by the user
            state.pop(name, None)
        parts = [
            json.dumps(state, sort_keys=True),
            self.tokenizer.truncation_side,
            self.contract.prompt(side),
            str(self.contract.length(side)),
        ] + ["plain"] * (not self.with_special)
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def join_texts(ids: Iterable[NDArray[np.integer[Any]]]) -> Texts:
    """Lay token ids of several texts end to end."""
    arrays = list(ids)
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    return Texts(
        torch.from_numpy(flat.astype(np.int64)),
        torch.tensor([len(array) for array in arrays], dtype=torch.int64),
    )
