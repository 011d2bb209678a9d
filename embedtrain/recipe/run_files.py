"""What the JSON files of a run folder hold. They are read again much later, maybe after somebody changed them."""

import json
from pathlib import Path
from typing import Any, NotRequired, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import EvaluationResult, parse_result
from embedtrain.files import read_json
from embedtrain.outside import reading
from embedtrain.recipe.run_folder import RunFolder

Form = TypeVar("Form")
CURE = "Correct it, or train again"
START_IS_BEST = "No checkpoint was better than the start on validation: the start is exported, as if nothing was trained."


class ShownDocument(TypedDict):
    """A result of the query that the end of a run shows."""

    id: str
    text: str
    relevant: bool


class ShownExample(TypedDict):
    """A query, and its first results before and after training."""

    query: str
    before: list[ShownDocument]
    after: list[ShownDocument]


class Summary(TypedDict, total=False):
    """``summary.json``: facts for the end of the run, its card and its report."""

    seconds: dict[str, float]
    held_out: list[str]
    filled: list[str]
    query: str | None
    fraction: float | None
    results_before: dict[str, list[str]]
    example: ShownExample | None
    exports_start: bool
    blend: float
    movements: list[dict[str, str | int | float]]
    out_of_time: dict[str, int]


@with_config(ConfigDict(extra="allow"))
class DataReport(TypedDict):
    """An entry of ``data.json``: a source as it was read. Which counts there are depends on the kind of run."""

    fingerprint: str
    num_rows: NotRequired[int]
    num_documents: NotRequired[int]
    num_spans: NotRequired[int]
    num_tokens: NotRequired[int]


@with_config(ConfigDict(extra="allow"))
class Environment(TypedDict, total=False):
    """``environment.json``: where the run was made."""

    versions: dict[str, str]
    git_commit: str | None


def read_summary(run: RunFolder) -> Summary:
    """Return what the run kept; nothing for one that was made before there were summaries."""
    return _read(run.summary, Summary, Summary())


def read_data(run: RunFolder) -> list[DataReport]:
    """Return what the run learned from, an entry for each source; none if that was not written yet."""
    return _read(run.data, list[DataReport], [])


def read_environment(run: RunFolder) -> Environment:
    """Return where the run was made."""
    return _read(run.environment, Environment, Environment())


def read_evaluation(run: RunFolder) -> tuple[EvaluationResult, EvaluationResult] | None:
    """Return the results before and after training, which share every metric; None where none was measured."""
    if not run.evaluation.is_file():
        return None
    content: dict[str, Any] = _read(run.evaluation, dict[str, Any], {})
    with reading(run.evaluation, cure=CURE):
        before, after = parse_result(content["before"]), parse_result(content["after"])
    if after.comparison is None or set(after.comparison.metrics) - set(before.metrics):
        raise UserError(run.evaluation, "lacks a comparison with before", cure=CURE)
    return before, after


def refuse_other_data(run: RunFolder, fingerprints: list[str]) -> None:
    """Refuse to continue on rows that changed: it would not be the same run."""
    stored = read_data(run)
    if stored and fingerprints != [report["fingerprint"] for report in stored]:
        raise UserError(
            run.path,
            "was started on other training data",
            cure="Restore them or start a new run",
        )


def _read(path: Path, form: Any, missing: Form) -> Form:  # noqa: ANN401 - a type of any kind
    content = read_json(path, optional=True)
    if content == {}:
        return missing
    try:
        # As JSON, where nothing stands for another type.
        adapter: TypeAdapter[Form] = TypeAdapter(form)
        return adapter.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        problem = f"is not usable ({first['msg'][:1].lower()}{first['msg'][1:]})"
        place = f"{path}: {where}" if where else path
        raise UserError(place, problem, got=first["input"], cure=CURE) from error
