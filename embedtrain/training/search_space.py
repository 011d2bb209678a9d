"""The section ``tune:`` of a recipe: which keys `embedtrain tune` varies, and between what."""

from typing import Any

from pydantic import Field, model_validator

from embedtrain.section import Section


class SearchedKey(Section):
    """A key of the recipe and its values: a range from ``low`` to ``high``, or ``choices``."""

    key: str = Field(min_length=1)
    """Such as ``trainer.learning_rate``."""
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    """Draw the logarithm evenly; for learning rates and temperatures."""
    choices: tuple[Any, ...] = ()

    @model_validator(mode="after")
    def _one_form(self) -> "SearchedKey":
        ends = (self.low, self.high)
        if self.choices:
            if any(end is not None for end in ends) or self.log:
                raise ValueError("give choices alone, or low and high")
            return self
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError("give choices, or low below high")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        return self


class TuneConfig(Section):
    """What is searched; ``tune`` takes a space of its own where a recipe has none."""

    space: tuple[SearchedKey, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    """Of what is drawn; the trials' own is ``trainer.seed``."""
