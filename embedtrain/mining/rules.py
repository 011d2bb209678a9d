"""How high a negative may score before it is suspected to be a positive."""

from typing import Literal

import numpy as np
from jaxtyping import Float64
from pydantic import NonNegativeFloat

from embedtrain.section import Section


class ScoreRule(Section):
    r"""Keep a candidate whose teacher score lies below a threshold that follows the positive's score.

    With $s^+$ the smallest score among the query's positives the threshold is

    - ``percentage``: $s^+ - (1 - \mathrm{ratio}) |s^+|$, which is ratio times the score where that is positive
      and never looser than it where it is negative,
    - ``margin``: $s^+ - \mathrm{margin}$,
    - ``absolute``: maximum,
    - ``adaptive``: $\min(s^+ - \mathrm{margin}, \mathrm{maximum})$: a doubtful positive gets a lower bound, a
      certain one no higher than maximum (LG-ANNA),
    - ``none``: infinity.

    Margins are in units of the teacher's similarity: those of cosine mean nothing for MaxSim or dot products.

    Source: NV-Retriever, Moreira et al. (2024), https://arxiv.org/abs/2407.15831; ``adaptive``:
    LG-ANNA-Embedding (2025), https://arxiv.org/abs/2506.07438.
    """

    kind: Literal["percentage", "margin", "absolute", "adaptive", "none"] = "percentage"
    ratio: float = 0.95
    """For ``percentage``."""
    margin: NonNegativeFloat = 0.05
    """For ``margin`` and ``adaptive``."""
    maximum: float = 0.7
    """For ``absolute`` and ``adaptive``."""
    tolerance: NonNegativeFloat = 1.0e-4
    """Scores so close below the threshold are kept out too: rounding must not decide."""

    def thresholds(
        self, positive: Float64[np.ndarray, " queries"]
    ) -> Float64[np.ndarray, " queries"]:
        """Return the score from which candidates are kept out, given each query's lowest positive."""
        threshold = {
            "percentage": positive - (1 - self.ratio) * np.abs(positive),
            "margin": positive - self.margin,
            "absolute": np.full_like(positive, self.maximum),
            "adaptive": np.minimum(positive - self.margin, self.maximum),
            "none": np.full_like(positive, np.inf),
        }[self.kind]
        bound: Float64[np.ndarray, " queries"] = threshold - self.tolerance
        return bound
