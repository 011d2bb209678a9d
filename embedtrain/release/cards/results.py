"""Further evaluations in a model card: from result files of exactly this model, nothing typed by hand."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import EvaluationResult, load_results_in
from embedtrain.evaluation.results.wording import describe_data
from embedtrain.release.cards.markdown import inline

HEADING = "## Further evaluations"
SECTION = r"^{}$.*?(?=^## |\Z)"
"""A heading of the second level and all below it."""


def add_results(card: str, results: Sequence[EvaluationResult], weights: str) -> str:
    """Return the card with a table and an entry of its ``model-index`` for each result.

    Results that the card holds already are replaced.

    Raises:
        UserError: If a result is of another model.
    """
    for result in results:
        if result.model is None or result.model.weights != weights:
            raise UserError(
                "--results",
                f"hold the result of another model on {result.data.name}",
                got=... if result.model is None else result.model.name,
                cure="Evaluate this very model again",
            )
    parsed = ModelCard(card)
    metadata = parsed.data.to_dict()  # type: ignore[no-untyped-call]
    index = metadata.setdefault("model-index", [{"name": "model", "results": []}])[0]
    known = {_place(result_entry(result)) for result in results}
    kept = [entry for entry in index["results"] if _place(entry) not in known]
    index["results"] = [*kept, *(result_entry(result) for result in results)]
    head = yaml.safe_dump(metadata, sort_keys=False).strip()
    return f"---\n{head}\n---\n{_with_section(parsed.text, results)}"


def load_results(paths: Sequence[Path]) -> list[EvaluationResult]:
    """Read result files, or all of a folder's.

    Raises:
        UserError: If a file is no result, or a folder has none.
    """
    return [result for path in paths for result in load_results_in(path)]


def result_entry(result: EvaluationResult) -> dict[str, Any]:
    """Return what the Hub's ``model-index`` holds of a result."""
    data = result.data
    return {
        "task": {"type": data.task},
        "dataset": {"type": data.name, "name": data.name, "split": data.split},
        "metrics": [
            {"type": name, "value": round(interval.value, 5)}
            for name, interval in result.metrics.items()
        ],
    }


def _place(entry: dict[str, Any]) -> tuple[str, str]:
    return entry["dataset"]["name"], entry["dataset"].get("split", "")


def _with_section(body: str, results: Sequence[EvaluationResult]) -> str:
    """Put the tables below the scores of the run, or, where there are none, before everything else."""
    body = replace_section(body, HEADING, "")
    tables = "\n".join(map(_table, results))
    scores = re.search(SECTION.format("## Scores"), body, re.MULTILINE | re.DOTALL)
    first = re.search(r"^## ", body, re.MULTILINE)
    place = scores.end() if scores else first.start() if first else len(body)
    return f"{body[:place].rstrip()}\n\n{HEADING}\n\n{tables}\n{body[place:]}"


def _table(result: EvaluationResult) -> str:
    shown = result.data.model_copy(update={"name": inline(result.data.name)})
    table = render_text(result.model_copy(update={"data": shown}), markdown=True)
    return f"{describe_data(shown)}.\n\n{table}"


def replace_section(body: str, heading: str, instead: str) -> str:
    """Replace a section of the second level, up to the next one."""
    pattern = SECTION.format(re.escape(heading))
    return re.sub(pattern, lambda _: instead, body, flags=re.MULTILINE | re.DOTALL)
