"""What every part of a recipe and every stored record is built on."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings or a record: frozen, an unknown key is an error, a field's docstring describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
