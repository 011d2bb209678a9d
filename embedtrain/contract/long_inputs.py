"""What a contract says of texts that are longer than those its model was trained on."""

from math import ceil
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from embedtrain.errors import UserError
from embedtrain.section import Count, Section

LongMethod = Literal["grouped", "interpolated", "recurrent", "ntk", "self_extend"]
METHODS: tuple[LongMethod, ...] = ("grouped", "interpolated", "recurrent", "ntk", "self_extend")
DEFAULT_NEIGHBOURS_RATIO = 1 / 8
"""Of the window, that self_extend leaves alone: 64 of 512 tokens, as LongEmbed does."""


class LongInputs(Section):
    r"""Positions for texts beyond a model's window $W$, without training; $n$ is a text's tokens.

    ``grouped``: neighbours share a position, $\lfloor i / \lceil n/W \rceil \rfloor$. ``interpolated``: positions
    lie closer together, $i/s$ with $s = \lceil \text{length}/W \rceil$. ``recurrent``: they begin again,
    $i \bmod W$, for tables of positions. ``ntk``: the base of rotary positions becomes
    $\theta\, s^{d/(d-2)}$. ``self_extend``: rotary positions are exact among neighbours and grouped beyond.

    Source: Zhu et al. (2024), LongEmbed, https://arxiv.org/abs/2404.12096; Chen et al. (2023), Position
    Interpolation, https://arxiv.org/abs/2306.15595; Jin et al. (2024), SelfExtend,
    https://arxiv.org/abs/2401.01325.
    """

    method: LongMethod
    length: Count
    """Tokens of the longest text; documents are cut there unless the recipe gives them a length."""
    window: Count | None = None
    """Tokens that the model was trained on; null: as many as it has positions."""
    keep_short: bool | None = None
    """Leave texts within the window exactly as they were; only embedtrain can read such a folder. false
    writes the change into weights or config, for texts of any length, so that every library has it. null:
    true where the method can, which ``ntk`` cannot; ``recurrent`` does both at once."""
    neighbours: Count | None = None
    """For ``self_extend``: tokens around each whose distances stay exact; null: an eighth of the window."""

    tune: bool = Field(default=False, exclude_if=lambda value: not value)
    """For ``interpolated`` with tables of positions: the rows between the table's own begin as mixtures of these and
    are trained, while those that short texts read never move."""

    @model_validator(mode="after")
    def _possible(self) -> "LongInputs":
        if self.method == "ntk" and self.keep_short:
            raise ValueError("ntk changes short texts as well: leave keep_short out")
        if self.method == "self_extend" and self.keep_short is False:
            raise ValueError("self_extend always keeps short texts: leave keep_short out")
        if self.method == "recurrent" and self.keep_short is False:
            raise ValueError("recurrent always keeps short texts: leave keep_short out")
        if self.method != "self_extend" and self.neighbours is not None:
            raise ValueError("neighbours are for self_extend")
        if self.window is not None and self.length <= self.window:
            raise ValueError(f"length must be more than the window of {self.window} tokens")
        if self.tune and (self.method != "interpolated" or self.keep_short is False):
            raise ValueError("tune is for interpolated positions that keep short texts")
        near = self.neighbours
        if self.window is not None and near is not None and near >= self.window:
            raise ValueError(f"neighbours must be fewer than the window of {self.window} tokens")
        return self

    @property
    def in_weights(self) -> bool:
        """Whether weights and config say it all, so that any reader of them does the same."""
        return self.method in ("ntk", "recurrent") or self.keep_short is False

    @property
    def known_window(self) -> int:
        """The window of a resolved value."""
        assert self.window is not None
        return self.window

    @property
    def factor(self) -> int:
        """How many windows the longest text has."""
        return ceil(self.length / self.known_window)

    @property
    def near(self) -> int:
        """Tokens whose distances self_extend leaves alone."""
        return self.neighbours or max(1, int(self.known_window * DEFAULT_NEIGHBOURS_RATIO))

    @property
    def group(self) -> int:
        """Tokens that share a position in self_extend: as few as keep all distances within the window."""
        return ceil((self.length - self.near) / (self.known_window - self.near))


def parse_long_inputs(text: str | None) -> LongInputs | None:
    """Read ``METHOD:LENGTH``, the form of the command line; None stays None.

    Raises:
        UserError: If it is not of that form.
    """
    if text is None:
        return None
    method, _, length = text.partition(":")
    try:
        return LongInputs.model_validate({"method": method, "length": length})
    except ValidationError as error:
        raise UserError(
            "--long-inputs",
            "is not METHOD:LENGTH",
            got=text,
            cure=f"Methods are {', '.join(METHODS)}, the length is in tokens: grouped:2048",
        ) from error
