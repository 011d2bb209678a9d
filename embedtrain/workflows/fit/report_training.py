"""The parts of a fit's page about training: curves that begin at step 0, and how far from the start is best."""

from pathlib import Path
from typing import Any

from embedtrain.evaluation.results.page import Section, figures, heading, paragraph
from embedtrain.evaluation.results.plots import draw_curve
from embedtrain.files import read_json
from embedtrain.recipe.run_files import read_summary
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.workflows.evaluate.report import read_curves
from embedtrain.workflows.fit.report_scores import can_draw
from embedtrain.workflows.stages import Stage

TRIALS = {
    "plain": "plain: the other documents of a batch are the negatives",
    "guided": "guided: the same without those that the start finds better than the positive",
    "hard": "hard: with mined negatives",
    "cleaned": "cleaned: mined negatives and positives that the reranker judged",
    "taught": "taught: with the reranker's scores of mined negatives",
}
UNCHOSEN = (
    "No query chose among its steps, the last is taken: so few are held out that all are needed to decide, or there was no "
    "time for it."
)


def training_sections(output: Path, stages: tuple[Stage, ...]) -> list[Section]:
    """Draw what changed over the steps of each trial, and over the share of what was learned."""
    sections: list[Section] = []
    pieces = []
    for stage in stages:
        if stage.train is None:
            continue
        run = RunFolder(output / stage.name)
        ended = _ended(run, validated="validation" in stage.train)
        curves = read_curves(run.metrics) if can_draw() else {}
        drawings = [
            draw_curve(points, _title(name, _is_synthetic(stages)), "step")
            for name, points in curves.items()
            if len(points) > 1 and name in ("val/ndcg_at_10", "train/loss")
        ]
        if drawings or ended:
            pieces.append(heading(TRIALS.get(stage.name, stage.name)))
            pieces += [*([figures(drawings)] if drawings else []), *map(paragraph, ended)]
    if pieces:
        sections.append(("Training", pieces))
    return sections + _choice(output, stages)


def _ended(run: RunFolder, *, validated: bool) -> list[str]:
    """Say where the clock ended a trial, and where nothing chose among its steps."""
    said = [] if validated else [UNCHOSEN]
    found = read_summary(run).get("out_of_time")
    if found is None:
        return said
    weights = (
        "best weights until then are compared" if validated else "weights of that step are measured"
    )
    return [
        f"Its part of the budget was over at step {found['step']:,} of {found['of']:,}: steps took longer than was "
        f"measured before. The {weights}; a longer --budget trains on.",
        *said,
    ]


def _is_synthetic(stages: tuple[Stage, ...]) -> bool:
    """Whether the queries that choose were written by a program."""
    gates = [stage.gate for stage in stages if stage.gate is not None]
    return any(gate.synthetic for gate in gates)


def _title(name: str, synthetic: bool) -> str:
    if name != "val/ndcg_at_10":
        return "Loss"
    return "nDCG@10 on synthetic dev queries" if synthetic else "nDCG@10 on dev queries"


def _choice(output: Path, stages: tuple[Stage, ...]) -> list[Section]:
    """Draw the scores of mixtures of start and trained model: 0 is the start."""
    for stage in stages:
        place = output / stage.name / "select.json"
        if not place.is_file():
            continue
        found: dict[str, Any] = read_json(place)
        said = [paragraph(f"{found['sentence'].rstrip('.')}.")]
        points = [
            (p["alpha"], p[found["metric"]]) for p in found["points"] if p["alpha"] is not None
        ]
        if len(points) > 1 and can_draw():
            title = _title("val/ndcg_at_10", _is_synthetic(stages))
            said.insert(0, figures([draw_curve(points, title, "share of what was learned")]))
        return [("How far from the start", said)]
    return []
