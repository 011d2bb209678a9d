r"""A language model grades a document; the score is the grade that it expects: $E = \sum_k k\, p(k)$.

The probabilities are those of the grades alone. The likeliest grade would tie most documents.
Source: InstUPR (2024), https://arxiv.org/abs/2403.16435.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from embedtrain.encoding.language.prompts import CHAT, GRADES, has_chat, open_prompt
from embedtrain.encoding.language.reader import PromptScorer, Reader
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.errors import UserError
from embedtrain.models.language.model import LanguageModel


class Graded(PromptScorer):
    """Scores pairs by the expected grade.

    Args:
        model: What grades.
        settings: How it is asked.

    Raises:
        UserError: If there are fewer than two labels, or two are tokenised alike.
    """

    def __init__(self, model: LanguageModel, settings: LanguageSettings) -> None:
        self.model = model
        self.labels = settings.labels
        if len(self.labels) < 2:
            raise UserError("--labels", "must be two or more", got=self.labels, cure="Add grades")
        question = GRADES.replace("{grades}", ", ".join(settings.labels))
        chats = settings.template is None and has_chat(model.tokenizer)
        prompt = open_prompt(
            model.tokenizer, settings.template or (CHAT if chats else f"{question}\nAnswer:"),
            settings.instruction, default=CHAT, question=question,
            length=min(settings.length, model.max_length), query_length=settings.query_length,
        )  # fmt: skip
        self.reader = Reader(model, prompt)
        space = "" if prompt.text[-1:].isspace() or has_chat(model.tokenizer) else " "
        self.answers = [prompt.answer(space + label) for label in settings.labels]
        for number, one in enumerate(self.answers):
            if any(one == other[: len(one)] for other in self.answers[number + 1 :]):
                raise UserError(
                    "--labels", "are words that the tokenizer splits alike", got=settings.labels,
                    cure="Give labels of which none begins with another",
                )  # fmt: skip

    def key(self) -> str:
        """Return a hash of all that a score depends on."""
        return self.reader.key("graded", self.answers)

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        return {
            "kind": "graded", "precision": self.precision, "template": self.reader.prompt.text,
            "labels": self.labels, "scale": f"grade from 1 to {len(self.labels)}",
        }  # fmt: skip

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by expected grades, which lie in [1, number of labels]."""
        if not pairs:
            return np.empty(0)
        texts, heads = self.reader.pairs(pairs)
        logs = self.reader.answer_logs(texts, heads, self.answers)
        scores: Float64[np.ndarray, " pairs"] = expected_grades(logs).numpy()
        return scores


def expected_grades(logs: Float64[Tensor, "pairs labels"]) -> Float64[Tensor, " pairs"]:
    """Return the mean grade, the first label being 1, under the softmax of each row."""
    grades = torch.arange(1, logs.shape[1] + 1, dtype=logs.dtype)
    return logs.softmax(1) @ grades
