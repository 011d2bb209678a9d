"""Further evaluations in a model card: from result files of exactly this model, nothing typed by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from embedtrain.errors import UserError
from embedtrain.evaluation.results.report import render_text
from embedtrain.evaluation.results.result import EvaluationResult, load_result

HEADING = "## Further evaluations"
BEFORE = "## Training data"


def add_results(card: str, results: Sequence[EvaluationResult], weights: str) -> str:
    """Return the card with a table and an entry of its ``model-index`` for each result.

    Args:
        card: A card that we rendered; results that it holds already are replaced.
        results: What was measured.
        weights: Hash of the model that the card is of.

    Raises:
        UserError: If a result is of another model.
    """
    for result in results:
        if result.model is None or result.model.weights != weights:
            raise UserError(
                "--results",
                f"hold the result of another model on {result.data.name}",
                got=None if result.model is None else result.model.name,
                cure="Evaluate this very model again",
            )
    parsed = ModelCard(card)
    metadata = parsed.data.to_dict()  # type: ignore[no-untyped-call]
    index = metadata.setdefault("model-index", [{"name": "model", "results": []}])[0]
    known = {_place(_entry(result)) for result in results}
    kept = [entry for entry in index["results"] if _place(entry) not in known]
    index["results"] = [*kept, *(_entry(result) for result in results)]
    head = yaml.safe_dump(metadata, sort_keys=False).strip()
    return f"---\n{head}\n---\n{_with_section(parsed.text, results)}"


def load_results(paths: Sequence[Path]) -> list[EvaluationResult]:
    """Read result files, or all of a folder's.

    Raises:
        UserError: If a file is no result, or a folder has none.
    """
    files = []
    for path in paths:
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise UserError(path, "holds no result", cure="Write some with embedtrain evaluate")
        files += found
    return [load_result(file) for file in files]


def _entry(result: EvaluationResult) -> dict[str, Any]:
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
    start, end = body.find(HEADING), body.find(BEFORE)
    if start >= 0:
        body = body[:start] + body[end:]
    tables = "\n".join(
        f"{_described(result)}\n\n{render_text(result, markdown=True)}" for result in results
    )
    section = f"{HEADING}\n\n{tables}\n"
    place = body.find(BEFORE)
    return body + section if place < 0 else body[:place] + section + body[place:]


def _described(result: EvaluationResult) -> str:
    data = result.data
    return (
        f"{data.name} ({data.split}), {data.task.replace('_', ' ')}: {data.num_queries:,} queries or items, "
        f"fingerprint `{data.fingerprint[:16]}`."
    )
