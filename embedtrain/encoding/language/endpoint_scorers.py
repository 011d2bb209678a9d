"""Scores of pairs from an OpenAI-compatible address: log-odds of an answer, or the likelihood of the query.

Servers list the likeliest tokens only, as text: forms of an answer that differ in spaces and capitals are one here.
"""

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from embedtrain.encoding.language.endpoint import ROUTES, Endpoint
from embedtrain.encoding.language.posting import Answer
from embedtrain.encoding.language.prompts import (
    CHAT,
    FLAG,
    PLACES,
    QUESTION,
    answer_forms,
    filled_instruction,
    read_template,
)
from embedtrain.encoding.language.settings import LanguageSettings
from embedtrain.encoding.pair_work import PairWork
from embedtrain.errors import UserError
from embedtrain.precision import Chosen

LISTED = 20
"""Tokens that servers list at most."""
MOST_MISSING = 0.1
"""Share of pairs that may lack an answer among the listed tokens."""
MOST_MALFORMED = 0.05
"""Share of all pairs so far that may lack both; a single one may anyway."""
LEAST_MASS = 0.1
"""Probability that both answers together must have on average, of pairs that list one."""
NO_LOGS = "answers without the log-probabilities that were asked for"
CURE = "Use a server that gives logprobs: vLLM, llama.cpp's server, OpenAI"


class EndpointScorer(ABC):
    """What both ways to ask an address share: the prompt, the counts, the identity.

    Args:
        url: The address.
        kind: ``yes_no`` or ``likelihood``.
        settings: How it is asked.
    """

    precision: Chosen = "fp32"

    def __init__(self, url: str, kind: str, settings: LanguageSettings) -> None:
        self.kind = kind
        self.settings = settings
        chats = kind == "yes_no"
        self.endpoint = Endpoint(url, settings.endpoint, route=ROUTES[0] if chats else ROUTES[1])
        self.chats = self.endpoint.route == ROUTES[0]
        name = settings.template or (CHAT if chats else "passage")
        text = QUESTION if name == CHAT else read_template(name)
        self.text = filled_instruction(text, settings.instruction)
        if any(self.text.count(place) != 1 for place in PLACES):
            problem = "must hold {query} and {document}, each once"
            raise UserError(FLAG, problem, got=self.text, cure="Add them")
        self.work = PairWork()

    @abstractmethod
    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs."""

    def key(self) -> str:
        """Return a hash of what is known of the model: its address and name, and what it is asked."""
        asked = self.settings.model_dump(exclude={"endpoint"})
        characters = self.settings.endpoint.characters
        identity = [
            self.kind,
            self.endpoint.base,  # one name may stand for other weights elsewhere
            self.endpoint.name,
            self.endpoint.route,
            self.text,
            characters,
            asked,
        ]
        return hashlib.sha256(json.dumps(identity, default=str).encode()).hexdigest()

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, without the address; what was spent is :meth:`tally`."""
        return {"kind": self.kind, "served_name": self.endpoint.name, "template": self.text}

    def tally(self) -> dict[str, object]:
        """Return the part of the description that grows with the work, numbers all."""
        return {"spent": self.endpoint.spent()}

    def ask(
        self, bodies: Sequence[Mapping[str, object]], pairs: Sequence[tuple[str, str]]
    ) -> list[Answer]:
        """Post the requests of pairs and count them."""
        before = self.endpoint.prompt_tokens
        answers = self.endpoint.ask(bodies)
        self.work.pairs += len(pairs)
        self.work.tokens += self.endpoint.prompt_tokens - before
        limit = self.settings.endpoint.characters
        self.work.cut_documents += sum(len(document) > limit for _, document in pairs)
        return answers

    def filled(self, pair: tuple[str, str], text: str | None = None) -> str:
        """Return the prompt of a pair; long documents are cut."""
        values = dict(
            zip(PLACES, (pair[0], pair[1][: self.settings.endpoint.characters]), strict=True)
        )
        places = "|".join(map(re.escape, PLACES))
        return re.sub(places, lambda found: values[found[0]], self.text if text is None else text)

    def no_logs(self, answer: Answer) -> UserError:
        """The error for an answer in which something is missing."""
        return UserError(self.endpoint.base, NO_LOGS, got=answer.get("choices"), cure=CURE)


class EndpointYesNo(EndpointScorer):
    """Scores pairs by the log-odds of yes against no, from the tokens that the server lists."""

    def __init__(self, url: str, settings: LanguageSettings) -> None:
        super().__init__(url, "yes_no", settings)
        if settings.centre:
            cure = "Leave it out, or use the model's folder"
            raise UserError("--centre", "is not offered for an address", cure=cure)
        self.words = answer_forms(settings)[0]
        if not self.words[1]:
            raise UserError(
                "--no", "is empty: an address gives no logits, only odds", got=self.words,
                cure="Give --yes and --no",
            )  # fmt: skip
        if _form(self.words[0]) == _form(self.words[1]) or not all(map(_form, self.words)):
            raise UserError(
                "--yes and --no", "are alike, or empty", got=self.words, cure="Give two words"
            )
        self.missing = self.malformed = 0

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-odds; an answer that is not listed is taken as a little rarer than the rarest listed.

        Where neither is listed the log-odds are 0, and the pair is counted as ``malformed``.

        Raises:
            UserError: If there are no log-probabilities, or the answers are not what the model is about to say.
        """
        if not pairs:
            return np.empty(0)
        answers = self.ask([self._body(pair) for pair in pairs], pairs)
        scores, mass, missing, malformed = np.empty(len(pairs)), 0.0, 0, 0
        lists = [self._listed(answer) for answer in answers]
        for row, listed in enumerate(lists):
            yes, no = (_log_sum(listed, _form(word)) for word in self.words)
            mass += math.exp(yes) + math.exp(no)
            missing += math.isinf(yes) or math.isinf(no)
            malformed += math.isinf(yes) and math.isinf(no)
            lowest = min(listed.values()) - 1
            scores[row] = max(yes, lowest) - max(no, lowest)
        self.missing += missing
        self.malformed += malformed
        if (
            mass < LEAST_MASS * (len(pairs) - malformed)
            or missing > max(1, MOST_MISSING * len(pairs))
            or self.malformed > max(1, MOST_MALFORMED * self.work.pairs)
        ):
            raise UserError(
                self.endpoint.base,
                f"is not about to answer {self.words[0]!r} or {self.words[1]!r}: they hold {mass / len(pairs):.2g} of "
                f"the probability; an answer is missing for {missing} of {len(pairs)} pairs, both for {malformed}",
                got=list(lists[0])[:5], cure="Switch thinking off, or change --template, --yes and --no",
            )  # fmt: skip
        return scores

    def describe(self) -> dict[str, object]:
        """Return what the scores came from."""
        yes, no = self.words
        return {**super().describe(), "yes": yes, "no": no, "scale": "log_odds"}

    def tally(self) -> dict[str, object]:
        """Return what was spent, how many pairs lacked an answer, and how many of them both."""
        lacking = {"answers_not_listed": self.missing, "answers_malformed": self.malformed}
        return {**super().tally(), **lacking}

    def _body(self, pair: tuple[str, str]) -> dict[str, object]:
        common: dict[str, object] = {"max_tokens": 1, "temperature": 0}
        if self.chats:
            turn = [{"role": "user", "content": self.filled(pair)}]
            return {**common, "messages": turn, "logprobs": True, "top_logprobs": LISTED}
        return {**common, "prompt": self.filled(pair), "logprobs": LISTED}

    def _listed(self, answer: Answer) -> dict[str, float]:
        """Return the listed tokens of the first place and their log-probabilities."""
        try:
            logs = answer["choices"][0]["logprobs"]
            if self.chats:
                found = {
                    one["token"]: float(one["logprob"])
                    for one in logs["content"][0]["top_logprobs"]
                }
            else:
                found = {str(token): float(log) for token, log in logs["top_logprobs"][0].items()}
        except (LookupError, TypeError, ValueError, AttributeError):
            raise self.no_logs(answer) from None
        if not found or any(math.isnan(log) for log in found.values()):
            raise self.no_logs(answer)
        return found


class EndpointLikelihood(EndpointScorer):
    """Scores pairs by the log-probability of the query, from a server that echoes the prompt's tokens."""

    def __init__(self, url: str, settings: LanguageSettings) -> None:
        super().__init__(url, "likelihood", settings)
        if self.chats or not self.text.endswith(PLACES[0]):
            raise UserError(
                FLAG, "must end with {query} for a likelihood, and the address with /completions or /v1",
                got=self.text[-60:], cure="Write what stands behind the query before it",
            )  # fmt: skip
        if settings.normalize == "pmi":
            raise UserError(
                "--normalize", "is not offered for an address", got="pmi", cure="Use sum"
            )

    def logits(self, pairs: Sequence[tuple[str, str]]) -> Float64[np.ndarray, " pairs"]:
        """Score pairs by log-probabilities in nats, of the tokens that lie in the query or reach into it."""
        bodies = [
            {
                "prompt": self.filled(pair),
                "max_tokens": 0,
                "temperature": 0,
                "echo": True,
                "logprobs": 1,
            }
            for pair in pairs
        ]
        scores = np.empty(len(pairs))
        for row, answer in enumerate(self.ask(bodies, pairs)):
            before = len(self.filled(pairs[row], self.text.removesuffix(PLACES[0])))
            logs = self._of_query(answer, before)
            scores[row] = np.mean(logs) if self.settings.normalize == "tokens" else np.sum(logs)
        return scores

    def describe(self) -> dict[str, object]:
        """Return what the scores came from."""
        return {**super().describe(), "normalize": self.settings.normalize, "scale": "nats"}

    def _of_query(self, answer: Answer, before: int) -> list[float]:
        try:
            logs: Any = answer["choices"][0]["logprobs"]
            starts, tokens = logs["text_offset"], logs["tokens"]
            found = [
                float(log)
                for start, token, log in zip(starts, tokens, logs["token_logprobs"], strict=True)
                if start + len(token) > before
            ]
        except (LookupError, TypeError, ValueError):
            raise self.no_logs(answer) from None
        if not found or any(math.isnan(log) for log in found):
            raise self.no_logs(answer)
        return found


def open_endpoint(url: str, kind: str | None, settings: LanguageSettings) -> EndpointScorer:
    """Return a scorer that asks an address.

    Raises:
        UserError: If the kind is missing, or none of those.
    """
    kinds = {"yes_no": EndpointYesNo, "likelihood": EndpointLikelihood}
    if kind not in kinds:
        raise UserError(
            "--as", "must be yes_no or likelihood for an address", got=kind, cure="Give it"
        )
    return kinds[kind](url, settings)


def _form(word: str) -> str:
    return word.strip().casefold()


def _log_sum(listed: Mapping[str, float], form: str) -> float:
    """Return the log-probability of all listed tokens of a form; -inf if there is none."""
    found = [log for token, log in listed.items() if _form(token) == form]
    return math.log(sum(map(math.exp, found))) if found and max(found) > -700 else -math.inf
