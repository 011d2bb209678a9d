"""What a language model is asked about a query and a document."""

from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field, NonNegativeFloat

from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.errors import UserError
from embedtrain.section import Count, Section

ASKED = ("template", "instruction", "length", "query_length")
USED: dict[ScorerKind, tuple[str, ...]] = {
    "cross_encoder": ("instruction",),
    "yes_no": (*ASKED, "yes", "no", "centre", "gram"),
    "likelihood": (*ASKED, "normalize"),
    "graded": (*ASKED, "labels"),
    "listwise": (*ASKED, "window", "step"),
    "pairwise": ASKED,
    "answer": (*ASKED, "answers"),
    "attribution": (*ASKED, "answers", "attribution"),
}
"""The keys that each kind of scorer reads."""
Normalize = Literal["tokens", "sum", "pmi"]
Attribution = Literal["loo", "linear", "shapley"]


class EndpointSettings(Section):
    """How an OpenAI-compatible address is used, where the model is one."""

    served_name: str | None = None
    """The model's name there; null takes the first that is listed."""
    concurrency: Count = 16
    """Requests under way at once."""
    requests_per_minute: Count | None = None
    price: NonNegativeFloat | None = None
    """Of a million tokens, for the report of what was spent."""
    completion_price: NonNegativeFloat | None = None
    """Of a million tokens that are written; null: as those that are read."""
    timeout_seconds: Annotated[float, Field(gt=0, le=86400)] = 120.0
    """Until a request is given up and sent again."""
    characters: Count = 8000
    """Of a document at most: its tokens are known to the server only, which refuses what is too long."""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Return what tokens cost; None where no price is known."""
        if self.price is None:
            return None
        written = self.price if self.completion_price is None else self.completion_price
        return (prompt_tokens * self.price + completion_tokens * written) / 1e6


class LanguageSettings(Section):
    """How a language model scores pairs; each key is one for the kinds that its text names, and refused elsewhere."""

    template: str | None = None
    """A name (chat, plain, qwen3, bge_gemma, d2llm, d2llm_similarity, upr, monot5, sgpt, passage), a file, or the text itself, with ``{query}``,
    ``{document}`` and maybe ``{instruction}``; null: the model's own chat template, or plain without one."""
    instruction: str | None = None
    """What makes a document a good one, put in the place of ``{instruction}``; null: that it answers the query."""
    yes: str | None = None
    """The answer that counts (yes_no); null finds the form that the model prefers, and that of ``no``."""
    no: str | None = None
    """The other answer; an empty one leaves the logit of ``yes`` as it is."""
    centre: bool = False
    """Subtract the score of a pair that says nothing (yes_no): models lean to one answer whatever is asked, which an
    order does not feel and a sigmoid does (``d2llm``, ``pointwise_distillation``)."""
    gram: bool = False
    """Write beside the scores how alike a row's pairs are to the model (yes_no): the cosines between the states from
    which it reads its answers, which ``d2llm`` imitates."""
    normalize: Normalize = "tokens"
    """Of a likelihood: ``tokens`` is the mean log-probability of a token, ``sum`` their sum, ``pmi`` the sum less
    that of the same query behind an empty document."""
    labels: tuple[str, ...] = ("1", "2", "3", "4", "5")
    """Grades from the worst to the best (graded)."""
    answers: str | None = None
    """A .jsonl file with what a model is to write for each query: columns query and answer (answer, attribution)."""
    attribution: Attribution = "shapley"
    """How much each document helps, from answers written behind some of them: ``loo`` leaves one out, ``linear`` fits
    a sum to random halves, ``shapley`` averages over all orders (6 documents at most, else linear)."""
    window: Annotated[int, Field(ge=2, le=26)] = 20
    """Documents that are ordered at once (listwise)."""
    step: Count = 10
    """By how many documents the window moves up (listwise)."""
    length: Count = 2048
    """Tokens of a pair at most; documents are cut, never the template. A list has so many for each place of its window,
    and a comparison has twice as many."""
    query_length: Count = 512
    """Tokens of a query at most."""
    endpoint: EndpointSettings = EndpointSettings()
    """How an address is used."""

    def refuse_unused(self, kind: ScorerKind, *, at_an_address: bool = False) -> None:
        """Refuse what was set and would change nothing for a kind of scorer.

        Raises:
            UserError: Naming the first such key.
        """
        used = {*USED.get(kind, ())}
        if at_an_address:  # which counts characters, not tokens
            used = used - {"length", "query_length"} | {"endpoint"}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in used and value != field.default:
                flag = "--served-name, --concurrency, --requests-per-minute or --price"
                place = flag if name == "endpoint" else f"--{name.replace('_', '-')}"
                given = value.model_dump(exclude_defaults=True) if name == "endpoint" else value
                what = "an address" if at_an_address else f"a teacher that is {kind}"
                raise UserError(
                    place, f"changes nothing for {what}", got=given, cure="Leave it out"
                )


@runtime_checkable
class LanguageScorer(Protocol):
    """A scorer of pairs that is a language model."""

    def describe(self) -> dict[str, object]:
        """Return what the scores came from, for those who are to make them again."""
        ...
