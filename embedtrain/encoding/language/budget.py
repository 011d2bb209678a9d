"""Where asking ends: a number of tokens, a sum of money, a time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embedtrain.encoding.language.request_store import Bill

Cost = Callable[[int, int], float | None]
"""Of tokens of prompts and of completions; None where no price is known."""


@dataclass(frozen=True)
class Budget:
    """What may be spent, with what earlier runs have spent; None does not limit it.

    Attributes:
        tokens: Of prompts and answers.
        money: In the currency of the price.
        seconds: Of this run.
        cost: What tokens cost.
    """

    tokens: int | None = None
    money: float | None = None
    seconds: float | None = None
    cost: Cost = lambda _prompt, _completion: None
    _began: float = field(default_factory=time.monotonic)

    def reason(
        self, bill: Bill, prompt_tokens: int, completion_tokens: int, wait: float = 0.0
    ) -> str:
        """Return why no request may be sent, ``wait`` seconds from now, that costs so much at most; empty if it may."""
        prompt, completion = bill.both()
        prompt, completion = prompt + prompt_tokens, completion + completion_tokens
        cost = self.cost(prompt, completion)
        if self.tokens is not None and prompt + completion > self.tokens:
            return f"the budget of {self.tokens:,} tokens is used up"
        if self.money is not None and cost is not None and cost > self.money:
            return f"the budget of {self.money:g} in money is used up"
        if self.seconds is not None and time.monotonic() - self._began + wait > self.seconds:
            return f"the budget of {self.seconds:g} seconds is used up"
        return ""
