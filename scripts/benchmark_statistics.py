"""How often do 95 % intervals of few skewed scores hold the truth, and how often does a test cry wolf?

    python scripts/benchmark_statistics.py --samples 2000

Draws samples whose true mean is zero, so that an interval should hold zero 95 times in 100 and a p-value be below
0.05 five times in 100. "nDCG-like" differences are mostly small; a tenth are +0.6 and three tenths -0.2.
"percentile" is the interval of earlier versions, "t" is Student's.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table
from scipy import stats

from embedtrain.evaluation.measures.statistics import compare_paired

Draw = Callable[[np.random.Generator, int], Float64[np.ndarray, " queries"]]
RESAMPLES = 999


def _ndcg_like(rng: np.random.Generator, num: int) -> Float64[np.ndarray, " queries"]:
    jumps = rng.choice([0.6, -0.2, 0.0], p=[0.1, 0.3, 0.6], size=num)
    return rng.normal(scale=0.05, size=num) + jumps


DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda rng, num: rng.normal(size=num),
    "exponential": lambda rng, num: rng.exponential(size=num) - 1,
    "lognormal": lambda rng, num: rng.lognormal(size=num) - np.exp(0.5),
    "nDCG-like": _ndcg_like,
}


def figures(samples: int, sizes: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Return, by distribution and size, each method's coverage and its rate of false alarms."""
    return {
        f"{name}, {num}": _judge(draw, num, samples)
        for name, draw in DISTRIBUTIONS.items()
        for num in sizes
    }


def _judge(draw: Draw, num: int, samples: int) -> dict[str, float]:
    rng = np.random.default_rng(num)
    rows = []
    for seed in range(samples):
        values = draw(rng, num)
        paired = compare_paired(values, np.zeros(num), num_resamples=RESAMPLES, seed=seed)
        means = values[rng.integers(num, size=(RESAMPLES, num))].mean(axis=1)
        low, high = np.quantile(means, (0.025, 0.975))
        reach = stats.t.ppf(0.975, num - 1) * stats.sem(values)
        rows.append(
            (
                low <= 0 <= high,
                abs(values.mean()) <= reach,
                paired.low <= 0 <= paired.high,
                paired.p_value < 0.05,
            )
        )
    names = ("percentile", "t", "studentised", "false_alarms")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def main() -> None:
    """Print the table; optionally write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 50, 200])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    found = figures(chosen.samples, tuple(chosen.sizes))
    table = Table("scores, queries")
    for heading in ("percentile", "t", "studentised", "p below 0.05"):
        table.add_column(heading, justify="right")
    for name, row in found.items():
        table.add_row(name, *(f"{value:.3f}" for value in row.values()))
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
