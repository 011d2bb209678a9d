"""What every part of a recipe and every stored record is built on."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0, le=10**9)]
"""A number of steps, rows, tokens, dimensions: more than the largest is a slip, which nothing could compute."""


class Section(BaseModel):
    """Settings or a record: frozen, an unknown key is an error, a field's docstring describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
