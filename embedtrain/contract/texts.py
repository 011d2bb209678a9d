"""The contract: how a text becomes token ids, and token states a vector.

It is written once, in the recipe, and travels with the weights. Training, mining, evaluation, encoding,
search and export all read it from there, so no two of them can disagree about a prompt or a length.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from embedtrain.contract.adapters import ChosenAdapters
from embedtrain.contract.framing import Framing, tokenise_framed
from embedtrain.contract.late_contract import LateInteractionContract
from embedtrain.contract.long_inputs import LongInputs
from embedtrain.contract.pair_contract import PairContract, named_instruction
from embedtrain.contract.pieces import tokenise_heads
from embedtrain.contract.spans import is_marked, tokenise_marked
from embedtrain.contract.sparse_contract import SparseContract
from embedtrain.contract.stored import StoredOutputs
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
    place: Literal["after_first", "before_text"] = "after_first"
    """Where the placeholder stands: behind the first token, or between the prompt and the text, as published."""
    token: Literal["eos", "random"] = "eos"
    """What it is until then: the EOS token, or a random row that the model keeps, as published."""


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
    in_context: bool = Field(default=False, exclude_if=lambda value: not value)
    """Chunks of a corpus whose rows name their ``document`` are marked within it, and of a text that is too long the
    tokens around its span are kept."""
    late_chunks: Count | None = Field(default=None, exclude_if=lambda value: value is None)
    """Tokens of a chunk at most, where a document has a vector per chunk (late chunking)."""
    framing: Framing | None = Field(default=None, exclude_if=lambda value: value is None)
    """What stands behind texts as well as before them, where something does."""
    adapters: ChosenAdapters | None = Field(default=None, exclude_if=lambda value: value is None)
    """Which of several adapters acts on each side, by task."""
    outputs: StoredOutputs | None = Field(default=None, exclude_if=lambda value: value is None)
    """What its vectors were trained to be stored as, where they were."""

    def under(self, instruction: str | None) -> "Contract":
        """Return the contract with the prompts and adapters of a task; None changes nothing.

        Raises:
            UserError: If the model knows no task of that name.
        """
        if instruction is None:
            return self
        if self.framing is not None and self.framing.prompts:
            raise UserError("--instruction", "does not go with a model of several prompts")
        tasks, changed = self.adapters.tasks if self.adapters else {}, dict[str, object]()
        if self.adapters is not None and instruction in tasks:
            changed["adapters"] = self.adapters.under(instruction)
        if not changed or instruction in self.instructions:
            prompts = named_instruction(self.instructions, instruction, tasks)
            changed |= {"query_prompt": prompts.query, "document_prompt": prompts.document}
        return self.model_copy(update=changed)

    def prompt(self, side: Side) -> str:
        """Return the text put before every text of ``side``."""
        return self.query_prompt if side == "query" else self.document_prompt

    def length(self, side: Side) -> int:
        """Return the number of tokens kept of a text of ``side``, in each of its frames."""
        return self.query_length if side == "query" else self.document_length

    @property
    def marks_text(self) -> bool:
        """Whether a placeholder stands before the text itself."""
        return self.prepend is not None and self.prepend.place == "before_text"


def framing_of(contract: object) -> Framing | None:
    """Return what frames the texts of a model; None where a prompt is all that stands around them."""
    if not isinstance(contract, Contract):
        return None
    return contract.framing or (Framing() if contract.marks_text else None)


AnyContract = Contract | LateInteractionContract | SparseContract
ModelContract = AnyContract | PairContract


class Tokenization:
    """Turns texts into token ids under a contract; the only place where prompts and truncation happen."""

    def __init__(self, tokenizer: Any, contract: ModelContract) -> None:  # noqa: ANN401 - transformers is untyped
        self.tokenizer = tokenizer
        self.contract = contract
        # Those of a pair are put around both texts when they are joined.
        self.with_special = not isinstance(contract, PairContract)
        self.framing = framing_of(contract)

    def under(self, contract: ModelContract) -> "Tokenization":
        """Return the tokenization under another contract."""
        view = copy.copy(self)
        view.contract, view.framing = contract, framing_of(contract)
        return view

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
            place, windowed = f"model.{side}.length", self.contract.in_context
            return tokenise_marked(tokenise, texts, prompt, length, place, windowed=windowed)
        if self.framing is not None:
            frames = self.framing.frames(side, prompt)
            keep_end = side == "query" and self.framing.query_cut == "start"
            return tokenise_framed(
                self.tokenizer, texts, frames, length, place=self.place, keep_end=keep_end
            )
        whole = [prompt + text for text in texts]
        found = tokenise_heads(self.tokenizer, whole, length, special=self.with_special)
        if found is None:
            encoded = tokenise(whole)
            found = [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]
        return found

    @property
    def place(self) -> int | None:
        """The token that stands before each text itself; None for none."""
        marks = isinstance(self.contract, Contract) and self.contract.marks_text
        return int(self.tokenizer.eos_token_id) if marks else None

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
        if self.framing is not None:
            parts += [self.framing.model_dump_json(), str(self.place)]
        if isinstance(self.contract, Contract) and self.contract.in_context:
            parts.append("windows around spans")
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def join_texts(ids: Iterable[NDArray[np.integer[Any]]]) -> Texts:
    """Lay token ids of several texts end to end."""
    arrays = list(ids)
    flat = np.concatenate(arrays) if arrays else np.zeros(0)
    return Texts(
        torch.from_numpy(flat.astype(np.int64)),
        torch.tensor([len(array) for array in arrays], dtype=torch.int64),
    )
