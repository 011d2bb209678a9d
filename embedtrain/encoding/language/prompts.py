"""Prompts: a template, filled with an instruction and a model's own words, as the tokens around two texts.

A space before a text belongs to the text: byte-level vocabularies write it into a word's first token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from embedtrain.contract.pairs import (
    PairParts,
    join_pairs,
    parts_of_template,
    refuse_no_room,
    space_before,
    without_spaces,
)
from embedtrain.contract.texts import join_texts
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.packed import Texts

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
"""The one that Qwen3-Reranker was trained with most."""
QUESTION = (
    "Task: {instruction}\nQuery: {query}\nPassage: {document}\n\n"
    "Does the passage meet the task for this query? Answer Yes or No."
)
GRADES = (
    "Task: {instruction}\nQuery: {query}\nPassage: {document}\n\n"
    "How well does the passage meet the task for this query? Answer with one grade, from the worst to the best: "
    "{grades}."
)
CHAT = "chat"
TEMPLATES = {
    "plain": f"{QUESTION}\nAnswer:",
    "qwen3": (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    "bge_gemma": (
        "A: {query}\nB: {document}\nGiven a query A and a passage B, determine whether the passage contains an "
        "answer to the query by providing a prediction of either 'Yes' or 'No'."
    ),
    "d2llm": (
        "#Q将描述一个问题，#A将描述一个网络段落，它们可能并没有关系。"  # noqa: RUF001
        "仅依据这些描述和您对世界的了解，"  # noqa: RUF001
        "判断#A能不能正确地回答#Q中提出的问题，请回答能或不能。\n"  # noqa: RUF001
        "#Q：{query}\n#A：{document}\n回答："  # noqa: RUF001
    ),
    "d2llm_similarity": (
        "#P和#H将分别描述一种事件或问题，它们可能并无关系。"  # noqa: RUF001
        "仅使用此描述和您对世界的了解，"  # noqa: RUF001
        "判断#H是不是一个关于#P中的事件绝对正确的句子，"  # noqa: RUF001
        "或者#H是不是绝对正确地描述了#P的事件或问题，"  # noqa: RUF001
        "请回答是或不是，若您不确定，请回答不是。\n"  # noqa: RUF001
        "#P：{query}\n#H：{document}\n回答："  # noqa: RUF001
    ),
    "monot5": "Query: {query} Document: {document} Relevant:</s>",
    "sgpt": (
        "Documents are searched to find matches with the same content.\n"
        'The document "{document}" is a good search result for "{query}'
    ),
    "upr": "Passage: {document}. Please write a question based on this passage. Question: {query}",
    "passage": "Passage: {document}\nPlease write a question based on this passage.\nQuestion: {query}",
}
"""Published protocols, byte for byte: qwen3 (Qwen3-Reranker), bge_gemma (bge-reranker-v2-gemma), d2llm and
d2llm_similarity (D2LLM's teacher), monot5, sgpt (Muennighoff, 2022, https://arxiv.org/abs/2202.08904, with
``normalize: sum``), upr (Sachan et al., 2022, https://arxiv.org/abs/2204.07496); plain and passage are ours."""
MONOT5 = "monot5"
ANSWERS = {
    MONOT5: ("true", "false"),
    "qwen3": ("yes", "no"),
    "bge_gemma": ("Yes", ""),
    "d2llm": ("能", "不能"),
    "d2llm_similarity": ("是", "不是"),
}
"""What the models of these protocols answer."""
FORMS = (("Yes", "No"), ("yes", "no"), (" Yes", " No"), (" yes", " no"))
"""Answers to a question of ours, of which a model may prefer any."""
PLACES = ("{query}", "{document}")
FLAG = "--template"


@dataclass(frozen=True)
class Prompt:
    """A template as tokens, and how texts are tokenised to stand in it."""

    text: str
    """The template as it is read, with the places of both texts."""
    tokenizer: Any
    parts: PairParts
    spaces: tuple[str, str]
    """What is put before a query and before a document."""
    length: int
    query_length: int

    def join(self, pairs: Sequence[tuple[str, str]]) -> tuple[Texts, Int64[Tensor, " pairs"], int]:
        """Return the tokens of pairs, how many of each it shares with others of its first text, and cut documents.

        Each distinct text is tokenised once.
        """
        sides = [self._side(number, [pair[number] for pair in pairs]) for number in (0, 1)]
        (queries, query_rows), (documents, document_rows) = sides
        return join_pairs(
            queries, documents, query_rows, document_rows, self.parts,
            length=self.length, query_length=self.query_length,
        )  # fmt: skip

    def answer(self, word: str) -> tuple[int, ...]:
        """Return the tokens of an answer behind the template's end.

        Raises:
            UserError: If it has none, or changes the tokens before it.
        """
        end = self.text[max(self.text.find(place) + len(place) for place in PLACES) :]
        # Some vocabularies join what a template ends with otherwise where a word follows: then its last letter tells.
        for context in dict.fromkeys((end, end[-1:])):
            before = token_ids(self.tokenizer, context)
            together = token_ids(self.tokenizer, context + word)
            if together[: len(before)] == before and len(together) > len(before):
                return together[len(before) :]
        raise UserError(
            "--yes and --no", "cannot be told from the template's end by the tokenizer",
            got=end[-20:] + word, cure="End the template otherwise, or give other words",
        )  # fmt: skip

    def _side(self, number: int, texts: Sequence[str]) -> tuple[Texts, Int64[Tensor, " pairs"]]:
        row_of = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        wanted = [self.spaces[number] + text for text in row_of]
        found = self.tokenizer(wanted, add_special_tokens=False, verbose=False)["input_ids"]
        ids = join_texts([np.array(one, dtype=np.int64) for one in found])
        return ids, torch.tensor([row_of[text] for text in texts], dtype=torch.int64)


def open_prompt(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    template: str | None,
    instruction: str | None,
    *,
    default: str,
    length: int,
    query_length: int,
    question: str = QUESTION,
) -> Prompt:
    """Return a template ready to be filled with texts.

    Args:
        tokenizer: The model's.
        template: As :class:`LanguageSettings` has it.
        instruction: As :class:`LanguageSettings` has it.
        default: Name of the template where none is given.
        length: Tokens of a pair at most.
        query_length: Tokens of a query at most.
        question: What a chat template shows.

    Raises:
        UserError: If a place is missing, or nothing is left for a document.
    """
    name = template or default
    text = chat_turn(tokenizer, question) if name == CHAT else read_template(name)
    text = with_beginning(tokenizer, filled_instruction(text, instruction))
    space = space_before(tokenizer)
    spaces = [space if f" {place}" in text else "" for place in PLACES]
    parts = parts_of_template(tokenizer, without_spaces(text), FLAG, any_order=True)
    refuse_no_room(parts, length=length, query_length=query_length, place="--length")
    return Prompt(text, tokenizer, parts, (spaces[0], spaces[1]), length, query_length)


def answer_forms(settings: LanguageSettings) -> Sequence[tuple[str, str]]:
    """Return the two answers that are asked for, or several forms of them to choose from.

    Raises:
        UserError: If one is given without the other.
    """
    if settings.yes is None and settings.no is not None:
        raise UserError("--no", "is given without --yes", got=settings.no, cure="Give both")
    if settings.yes is None:
        return (ANSWERS[settings.template],) if settings.template in ANSWERS else FORMS
    if settings.no is None:
        raise UserError(
            "--yes", "is given without --no", got=settings.yes,
            cure='Give both; --no "" scores by the logit of --yes alone, which an address does not give',
        )  # fmt: skip
    return ((settings.yes, settings.no),)


def has_chat(tokenizer: Any) -> bool:  # noqa: ANN401 - transformers is untyped
    """Whether the model was taught to answer in turns."""
    return bool(getattr(tokenizer, "chat_template", None))


def filled_instruction(text: str, instruction: str | None) -> str:
    """Return a template with the instruction in its place; None is the common one.

    Raises:
        UserError: If one is given and there is no place.
    """
    if "{instruction}" not in text and instruction is not None:
        raise UserError(
            FLAG, "has no place for the instruction", got=text, cure="Write {instruction} into it"
        )
    return text.replace("{instruction}", instruction or INSTRUCTION)


def read_template(template: str) -> str:
    """Return the text of a template: of a name, of a file, or what was given.

    Raises:
        UserError: If it is none of them.
    """
    if template in TEMPLATES:
        return TEMPLATES[template]
    if "{" in template or "\n" in template:
        return template
    file = Path(template)
    if not file.is_file():
        raise UserError(
            FLAG, "is no template", got=template,
            cure=f"Give {', '.join([CHAT, *TEMPLATES])}, a file, or a text with {{query}} and {{document}}",
        )  # fmt: skip
    return file.read_text(encoding="utf-8")


def chat_turn(tokenizer: Any, question: str) -> str:  # noqa: ANN401 - transformers is untyped
    """Return a question as a turn, up to where the answer begins; models that think are told not to."""
    if not has_chat(tokenizer):
        raise UserError(
            FLAG, "asks for a chat template, and the tokenizer has none", cure="Use plain"
        )
    return chat_text(tokenizer, [("user", question)])


def chat_text(
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    turns: Sequence[tuple[str, str]],
    *,
    thinks: bool = False,
    answered: bool = False,
) -> str:
    """Return roles and what they said in the model's own form, up to where the next answer begins.

    Args:
        tokenizer: With a chat template.
        turns: Of the roles system, user and assistant. A template that knows no system gets its words before those
            of the first user.
        thinks: Whether a model that can think before it answers may do so.
        answered: End behind the last turn, without beginning another.
    """
    from jinja2 import TemplateError

    def rendered(said: Sequence[tuple[str, str]]) -> str:
        messages = [{"role": role, "content": content} for role, content in said]
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not answered, enable_thinking=thinks
        )
        return text

    try:
        return rendered(turns)
    except TemplateError:
        (role, content), *others = turns
        if role != "system" or not others:
            raise
        (first, question), *rest = others
        return rendered([(first, f"{content}\n\n{question}"), *rest])


def with_beginning(tokenizer: Any, text: str) -> str:  # noqa: ANN401 - transformers is untyped
    """Put the token before a text that the tokenizer itself puts before each, unless it stands there."""
    begin = tokenizer.bos_token
    adds = bool(begin) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return begin + text if adds and not text.startswith(begin) else text


def token_ids(tokenizer: Any, text: str) -> tuple[int, ...]:  # noqa: ANN401 - transformers is untyped
    """Return the tokens of a text by itself; special tokens are recognised where they are written."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()
