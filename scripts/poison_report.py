"""The table of the poison test: hidden positives mined, nDCG@10, and whether it differs from the baseline's."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from embedtrain.evaluation.measures.statistics import (
    PairedComparison,
    compare_paired,
    holm_correction,
)


def report(
    scores: dict[str, list[dict[str, float]]],
    poison: dict[str, list[tuple[int, int]]],
    untrained: float | None,
    output: Path | None,
    judged: dict[str, object],
) -> None:
    """Print the table; write the same figures as JSON if asked."""
    rules = list(scores)
    trained = [rule for rule in rules if scores[rule]]
    baseline = "naive" if "naive" in trained or not trained else trained[0]
    figures: dict[str, object] = {"num_seeds": len(poison[rules[0]]), **judged}
    table = Table(
        "Rule", "Hidden positives mined", "nDCG@10", "by seed", f"to {baseline}", "p (Holm)"
    )
    tests = tested(scores, baseline)
    for rule in rules:
        mined, hidden = (sum(counts) for counts in zip(*poison[rule], strict=True))
        by_seed = [float(np.mean(list(seed.values()))) for seed in scores[rule]]
        figures[f"{rule}_poison_ratio"] = 0.0 if rule == "none" else mined / max(hidden, 1)
        shown = p_value = mean = ""
        if by_seed:
            figures[f"{rule}_ndcg_at_10"] = float(np.mean(by_seed))
            mean = f"{np.mean(by_seed):.4f}"
        if rule in tests:
            test, p = tests[rule]
            shown = f"{test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f})"
            p_value = f"{p:.4f}"
            figures[f"{rule}_difference"], figures[f"{rule}_p_value"] = test.difference, p
        count = "none" if rule == "none" else f"{mined} of {hidden} ({mined / max(hidden, 1):.1%})"
        table.add_row(rule, count, mean, " ".join(f"{one:.4f}" for one in by_seed), shown, p_value)
    if untrained is not None:
        figures["untrained_ndcg_at_10"] = untrained
        table.add_row("no training", "", f"{untrained:.4f}")
    Console(width=140).print(table)
    if output:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def tested(
    scores: dict[str, list[dict[str, float]]], baseline: str
) -> dict[str, tuple[PairedComparison, float]]:
    """Compare each rule with the baseline over the means of the seeds; give the corrected p as well."""
    if not scores.get(baseline):
        return {}
    names = sorted(scores[baseline][0])
    means = {
        rule: np.mean([[seed[name] for name in names] for seed in seeds], axis=0)
        for rule, seeds in scores.items()
        if seeds
    }
    others = [rule for rule in means if rule != baseline]
    found = {rule: compare_paired(means[rule], means[baseline]) for rule in others}
    corrected = holm_correction([found[rule].p_value for rule in others])
    return {rule: (found[rule], p) for rule, p in zip(others, corrected, strict=True)}
