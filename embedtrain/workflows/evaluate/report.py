"""Workflow: results, and the run that made a model, become one HTML page with its JSON beside it.

The page opens with what one wants to know first, scores, and ends with how they came about.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedtrain.errors import UserError
from embedtrain.evaluation.results.page import (
    Section,
    code,
    figures,
    fold,
    page,
    paragraph,
    table,
)
from embedtrain.evaluation.results.plots import draw_curve
from embedtrain.evaluation.results.ranking_file import read_run
from embedtrain.evaluation.results.report import compare
from embedtrain.evaluation.results.result import EvaluationResult, load_result
from embedtrain.evaluation.results.wording import (
    counted,
    file_names,
    metric_title,
    model_name,
    system_name,
)
from embedtrain.evaluation.tasks.discovery import open_task
from embedtrain.evaluation.tasks.retrieval import Retrieval
from embedtrain.files import appearing, check_file, read_json
from embedtrain.locks import owns
from embedtrain.objectives.own import name_of
from embedtrain.outside import reading, writing
from embedtrain.recipe.retrieval import AnyRecipe, Recipe, load_recipe
from embedtrain.recipe.run_files import (
    START_IS_BEST,
    read_environment,
    read_evaluation,
    read_summary,
)
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.training_data import held_out, settings, training_data
from embedtrain.workflows.evaluate.report_queries import (
    AnyTask,
    find_changes,
    find_suspects,
    wins_and_losses,
)
from embedtrain.workflows.evaluate.report_sections import (
    AFTER,
    BEFORE,
    Subject,
    change_sections,
    cost_section,
    depth_section,
    fusion_section,
    lead,
    score_section,
    suspect_section,
)
from embedtrain.workflows.evaluate.report_speed import read_speed, speed_section
from embedtrain.workflows.prepare import cache_of, load_task, open_data
from embedtrain.workflows.rivals import with_fewer

LISTED = 15
"""Wins, losses and suspected errors in the JSON."""


@owns("output")
def write_report(
    sources: Sequence[Path],
    output: Path,
    *,
    baseline: Path | None = None,
    data: str | None = None,
) -> Path:
    """Write a page about result files, or about a run folder, and ``.json`` of the same name beside it.

    Args:
        sources: Result files, the first is the one that queries are shown of; or one run folder.
        output: The page, ending in ``.html``.
        baseline: Result of another model on the same data, for wins and losses; a run has its own.
        data: The data of the first result, for the texts of its queries and documents; a run knows its own.

    Raises:
        UserError: If a file cannot be used, or data is not what was measured.
    """
    run = RunFolder(sources[0])
    read = [*sources, *([] if baseline is None else [baseline]), run.evaluation]
    facts_file = _check_output(output, read)
    if run.is_run:
        recipe, subject, facts = _read_recipe(run), _of_run(run, baseline), _facts_of_run(run)
        title = run.path.resolve().name
        sections = [*_curves(facts["curves"]), *speed_section(facts["speed"])]
        ending = _making(run, recipe)
    else:
        recipe, subject, facts = None, _of_results(sources, baseline), _facts_of_results(sources)
        title, sections, ending = f"Evaluation of {subject.name}", [], []
    if subject is not None:
        queries, found = _queries(subject, sources[0], _open_data(subject.result, data, recipe))
        costs = [*fusion_section(subject), *depth_section(subject), *cost_section(subject)]
        sections = [lead(subject), score_section(subject), *sections, *costs, *queries]
        facts = found | facts
    shown = page(title, [*_made_of(recipe, run), *sections, *ending])
    # Both or neither: each gets its name only when both are written.
    with writing(output), appearing(facts_file) as facts_part, appearing(output) as page_part:
        facts_part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        page_part.write_text(shown, encoding="utf-8")
    return output


def _check_output(output: Path, read: Sequence[Path]) -> Path:
    """Refuse a page that cannot be written, or whose JSON would replace what is read; return the JSON's place."""
    if output.suffix != ".html":
        raise UserError("--output", "must end in .html", got=output.name, cure="Rename it")
    beside = output.with_suffix(".json")
    if beside.resolve() in {path.resolve() for path in read}:
        raise UserError(
            "--output", "would write its JSON over a result", got=output.name, cure="Rename it"
        )
    for path in (output, beside):
        check_file("--output", path)
    return beside


def _of_run(run: RunFolder, baseline: Path | None) -> Subject | None:
    """Return the run's scores against those before training, or against a result; None where it measured none."""
    found = read_evaluation(run)
    if found is None:
        return None
    before, after = found
    if baseline is None:
        return Subject(AFTER, {BEFORE: before, AFTER: after}, BEFORE, BEFORE)
    return _against(AFTER, {AFTER: after}, baseline, file_names([baseline])[0])


def _of_results(sources: Sequence[Path], baseline: Path | None) -> Subject:
    """Return the results of files, by the names of their models if these tell them apart, else by their own."""
    paths = [*dict.fromkeys([*sources, *([] if baseline is None else [baseline])])]
    results = [load_result(path) for path in paths]
    names = [system_name(one.model) for one in results if one.model is not None]
    if len(set(names)) < len(paths):
        names = file_names(paths)
    systems = dict(zip(names, results, strict=True))
    first = names[0]
    if baseline is not None:
        return _against(first, systems, baseline, names[paths.index(baseline)])
    comparison = systems[first].comparison
    if comparison is None:
        return Subject(first, systems)
    name = model_name(comparison.baseline.removesuffix(".json"))
    return Subject(first, systems, name, f"with {name}")


def _against(name: str, systems: dict[str, EvaluationResult], path: Path, baseline: str) -> Subject:
    """Compare a system with the result of a file, which comes first."""
    other = systems.get(baseline) or load_result(path)
    if name == baseline:
        return Subject(name, systems)
    systems = {**systems, name: compare(systems[name], other, baseline)}
    return Subject(name, {baseline: other} | systems, baseline, f"with {baseline}")


def _read_recipe(run: RunFolder) -> AnyRecipe | None:
    """Return the run's recipe; None where this version, or this machine, cannot read it."""
    try:
        return load_recipe(run.recipe)
    except UserError:
        return None


def _facts_of_results(sources: Sequence[Path]) -> dict[str, Any]:
    """Return the results by the names of their files."""
    results = zip(file_names(sources), map(load_result, sources), strict=True)
    return {name: result.to_json() for name, result in results}


def _facts_of_run(run: RunFolder) -> dict[str, Any]:
    """Return the losses and validation scores that a run logged, its speed, and its evaluation."""
    speed = read_speed(run.speed)
    return {
        "curves": read_curves(run.metrics),
        "speed": speed,
        **read_json(run.evaluation, optional=True),
    }


def read_curves(metrics: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the losses and validation scores of a run by step; nothing where it logged none."""
    curves: dict[str, list[tuple[int, float]]] = {}
    if metrics.is_file():
        with reading(metrics), metrics.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and (name.endswith("loss") or name.startswith("val/")):
                        curves.setdefault(name, []).append((int(float(row["step"])), float(value)))
    return curves


def _curves(curves: dict[str, list[tuple[int, float]]]) -> list[Section]:
    """Draw what changed over the steps; a single point is no curve."""
    drawings = [
        draw_curve(points, _curve_title(name), "step")
        for name, points in curves.items()
        if len(points) > 1
    ]
    return [("Training", [figures(drawings)])] if drawings else []


def _curve_title(name: str) -> str:
    """Name a column of the log: ``val/ndcg_at_10`` is Validation, nDCG@10."""
    part, _, metric = name.rpartition("/")
    owner = {"train": "Training", "val": "Validation"}.get(part, part)
    return f"{owner}, {metric if metric == 'loss' else metric_title(metric)}".removeprefix(", ")


def _made_of(recipe: AnyRecipe | None, run: RunFolder) -> list[Section]:
    """Say what the model started from and how long it learned, or that nothing was better than the start."""
    if recipe is None:
        return []
    trainer, start = recipe.trainer, model_name(recipe.model.backbone)
    steps, epochs = trainer.steps, trainer.epochs
    length = counted(steps, "step") if steps else counted(epochs or 0, "epoch")
    nouns = ("query", "queries") if isinstance(recipe, Recipe) else ("text",)
    how = f"in {length} of {counted(trainer.batch_size, *nouns)}, with {name_of(recipe.objective)}"
    said = [paragraph(f"{recipe.description} From {start}, {how}.")]
    if read_summary(run).get("exports_start"):
        said.append(paragraph(START_IS_BEST))
    return [("", said)]


def _open_data(
    result: EvaluationResult, data: str | None, recipe: AnyRecipe | None
) -> AnyTask | None:
    """Open the data that was measured on: what the user names, or what the run's recipe does if it still can."""
    if data is not None:
        task = open_task(data, result.data.split)
        if task.data.fingerprint != result.data.fingerprint:
            raise UserError(
                "--data", "is not what was measured", got=data, cure="Name the same files"
            )
        return task
    if not isinstance(recipe, Recipe) or (config := recipe.evaluation) is None:
        return None
    try:
        if config.path is None:
            known = open_data(recipe).evaluation
        else:  # the training data may be gone
            whole = load_task(config.path, config.split, cache_of(recipe.data))
            known = with_fewer(whole, config.num_queries, config.num_documents, config.others)
    except UserError:
        return None
    return known if known is not None and known.fingerprint == result.data.fingerprint else None


def _queries(
    subject: Subject, source: Path, task: AnyTask | None
) -> tuple[list[Section], dict[str, Any]]:
    """List wins and losses, and documents that look like missing labels."""
    sections: list[Section] = []
    facts: dict[str, Any] = {}
    if subject.baseline is not None and subject.baseline in subject.systems:
        changes = find_changes(subject.result, subject.systems[subject.baseline], task)
        sections += change_sections(changes, subject.name, subject.baseline)
        both = zip(("wins", "losses"), wins_and_losses(changes), strict=True)
        facts = {name: [asdict(one) for one in found[:LISTED]] for name, found in both}
    run = source.with_suffix(".trec")
    if isinstance(task, Retrieval) and run.is_file():
        suspects = find_suspects(task, read_run(run))[:LISTED]
        sections += suspect_section(suspects)
        facts["suspected_label_errors"] = [asdict(one) for one in suspects]
    return sections, facts


def _making(run: RunFolder, recipe: AnyRecipe | None) -> list[Section]:
    """Show what was learned from and, folded, how: last, for it is what one looks up."""
    sections: list[Section] = []
    if recipe is None:
        with reading(run.recipe):
            folded = fold("Recipe", [code(run.recipe.read_text(encoding="utf-8"))])
    else:
        headings, rows = training_data(run, recipe)
        kept_out = [paragraph(sentence) for sentence in held_out(run)]
        sections += [("Training data", [table(headings, rows), *kept_out])] if rows else []
        folded = fold("Settings that differ from the defaults", [code(settings(run, recipe))])
    pieces = [folded]
    if environment := read_environment(run):
        found = environment.get("versions", {})
        versions = ", ".join(f"{name} {one}" for name, one in found.items())
        git_commit = environment.get("git_commit")
        commit = f"; commit {git_commit}" if git_commit else ""
        pieces.append(paragraph(f"{versions}{commit}."))
    return [*sections, ("How it was made", pieces)]
