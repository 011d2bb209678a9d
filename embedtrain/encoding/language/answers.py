r"""Documents as help: how likely a language model's answer to the query is behind them.

``answer``: the mean log-probability of the answer's tokens behind one document and the query (UDR, where documents are
demonstrations). ``attribution``: what each document of a query adds to it when all stand there (SCARLet).
Source: Li et al. (2023), UDR, https://arxiv.org/abs/2305.04320.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import compress, groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.attribution import attribute, masks_for
from embedtrain.encoding.language.prompts import open_prompt, token_ids
from embedtrain.encoding.language.reader import PromptScorer, Reader, with_own_ends
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel
from embedtrain.outside import reading

DEMONSTRATION = "{document}\n\n{query}"
BETWEEN = "\n\n"
"""Stands between documents of one context."""
FLAG = "--answers"


class AnswerLikelihood(PromptScorer):
    """Scores pairs by the mean log-probability of the query's known answer behind both.

    Args:
        model: What is to write the answer.
        settings: How it is asked; the answer stands behind the template.
        share: Compute what pairs begin with once.

    Raises:
        UserError: If the file of answers is missing or cannot be used.
    """

    kind = "answer"

    def __init__(
        self, model: LanguageModel, settings: LanguageSettings, *, share: bool = True
    ) -> None:
        self.model = model
        if settings.answers is None:
            raise UserError(FLAG, "is missing", cure="Name a .jsonl file with query and answer")
        self.answers = read_answers(Path(settings.answers).expanduser())
        tokenizer = model.tokenizer
        words = [f" {answer}" for answer in self.answers.values()]
        ids = tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"]
        self.tokens: dict[str, list[int]] = dict(zip(self.answers, ids, strict=True))
        length = min(settings.length, model.max_length) - max(map(len, ids))
        prompt = open_prompt(
            tokenizer, settings.template, settings.instruction, default=DEMONSTRATION,
            length=length, query_length=settings.query_length,
        )  # fmt: skip
        self.reader = Reader(model, prompt, share=share)

    def key(self) -> str:
        """Return a hash of all that a score depends on."""
        content = json.dumps(self.answers, ensure_ascii=False, sort_keys=True)
        return self.reader.key(self.kind, hashlib.sha256(content.encode()).hexdigest())

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        return {
            "kind": self.kind, "precision": self.precision,
            "template": self.reader.prompt.text, "scale": "nats",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-probabilities in nats."""
        if not pairs:
            return np.empty(0)
        if (
            lost := next((query for query, _ in pairs if query not in self.tokens), None)
        ) is not None:
            raise UserError(FLAG, "has no answer to a query", got=lost, cure="Add it")
        texts, heads = self.reader.pairs(pairs)
        ends = [self.tokens[query] for query, _ in pairs]
        sizes = heads.new_tensor([len(end) for end in ends])
        whole = with_own_ends(texts, ends)
        found: Float64[np.ndarray, " pairs"] = self.reader.continuations(
            whole, heads, sizes, mean=True
        ).numpy()
        return found


class Attributed(AnswerLikelihood):
    """Scores the documents of a query by what each adds to the likelihood of its answer.

    Pairs of one query that follow one another are a list: a score depends on the others of its list. Where a list
    is longer than what is read, its long documents are cut alike.
    """

    kind = "attribution"

    def __init__(
        self, model: LanguageModel, settings: LanguageSettings, *, share: bool = True
    ) -> None:
        super().__init__(model, settings, share=share)
        self.attribution = settings.attribution

    def key(self) -> str:
        """Return a hash of all that a score depends on, but for the list that a document stands in."""
        return f"{super().key()} {self.attribution}"

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        return {**super().describe(), "attribution": self.attribution}

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by what the document adds, in nats per token of the answer."""
        if not pairs:
            return np.empty(0)
        groups = [
            self._cut_alike(query, [document for _, document in own])
            for query, own in groupby(pairs, key=lambda pair: pair[0])
        ]
        sets = [masks_for(self.attribution, len(documents)) for _, documents in groups]
        contexts = [
            (query, BETWEEN.join(compress(documents, mask)))
            for (query, documents), masks in zip(groups, sets, strict=True)
            for mask in masks
        ]
        logs = iter(super().logits(contexts).tolist())
        self.work.pairs += len(pairs) - len(contexts)
        likelihoods = [{mask: next(logs) for mask in masks} for masks in sets]
        return np.concatenate([attribute(self.attribution, one) for one in likelihoods])

    def _cut_alike(self, query: str, documents: list[str]) -> tuple[str, list[str]]:
        """Cut long documents to one number of tokens, so that all fit together: none is lost for standing last."""
        tokenizer, prompt = self.model.tokenizer, self.reader.prompt
        between = len(token_ids(tokenizer, BETWEEN)) * (len(documents) - 1)
        taken = min(len(token_ids(tokenizer, query)), prompt.query_length)
        found = tokenizer(documents, add_special_tokens=False, return_offsets_mapping=True)
        ends = [[end for _, end in offsets] for offsets in found["offset_mapping"]]
        most = common_length(
            [len(own) for own in ends], prompt.length - prompt.parts.size - between - taken
        )
        if most < 1:
            raise UserError(
                "--length", f"leaves nothing for {len(documents)} documents", got=prompt.length,
                cure="Raise it",
            )  # fmt: skip
        self.work.cut_documents += sum(len(own) > most for own in ends)
        return query, [
            text[: own[most - 1]] if len(own) > most else text
            for text, own in zip(documents, ends, strict=True)
        ]


def common_length(sizes: Sequence[int], room: int) -> int:
    """Return to how many tokens texts must be cut for all to fit; those that are shorter leave theirs to others."""
    ordered = sorted(sizes)
    for number, size in enumerate(ordered):
        share = room // (len(ordered) - number)
        if size > share:
            return share
        room -= size
    return max(1, ordered[-1])


def read_answers(path: Path) -> Mapping[str, str]:
    """Return the answer to each query.

    Raises:
        UserError: With the first line that has no query or no answer.
    """
    found: dict[str, str] = {}
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold other ends of lines
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        with reading(f"{path}:{number}"):
            row = json.loads(line)
        both = [row.get(name) if isinstance(row, dict) else None for name in ("query", "answer")]
        query, answer = both
        if not (isinstance(query, str) and isinstance(answer, str) and answer.strip()):
            raise UserError(
                f"{path}:{number}", "has no query or no answer", got=row, cure="Give both as texts"
            )
        found[query] = answer
    if not found:
        raise UserError(path, "holds no answer", cure="Give a line per query")
    return found
