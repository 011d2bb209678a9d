"""What a run learned from, as rows of a table for its card and its report."""

from embedtrain.data.given import name_given
from embedtrain.recipe.changed_settings import dump_changed
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import AnyRecipe
from embedtrain.recipe.run_files import (
    START_IS_BEST,
    read_data,
    read_environment,
    read_summary,
)
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.markdown import Row, fenced, inline, markdown_table


def training_data(run: RunFolder, recipe: AnyRecipe) -> tuple[list[str], list[Row]]:
    """Return headings and one row for each source; the fingerprint is of the rows as they were read."""
    reports = read_data(run)
    if isinstance(recipe, PretrainRecipe):
        counts = {"Documents": "num_documents", "Spans": "num_spans", "Tokens": "num_tokens"}
        names: list[Row] = [[name_given(source.path)] for source in recipe.data.sources]
        headings = ["Source"]
    else:
        counts = {"Rows": "num_rows", "Distinct documents": "num_documents"}
        names = [[name_given(source.path), source.split] for source in recipe.data.sources]
        headings = ["Source", "Split"]
    rows: list[Row] = [
        [
            *name,
            *(one for count in counts.values() if isinstance(one := report.get(count, 0), int)),
            report["fingerprint"][:16],
        ]
        for name, report in zip(names, reports, strict=bool(reports))
    ]
    return [*headings, *counts, "Fingerprint"], rows


def held_out(run: RunFolder) -> list[str]:
    """Say what ``fraction`` kept out of training, a sentence for each part."""
    found = read_summary(run).get("held_out", [])
    return [f"Held out by query and by positive document: {sentence}." for sentence in found]


def settings(run: RunFolder, recipe: AnyRecipe) -> str:
    """Return as YAML what neither embedtrain nor the backbone would have chosen by itself."""
    return dump_changed(recipe, read_summary(run).get("filled", []))


def making(run: RunFolder, recipe: AnyRecipe) -> dict[str, str]:
    """Return what every card says of how its model was made, by the names of its template."""
    found = read_environment(run)
    said = f" {START_IS_BEST}" if read_summary(run).get("exports_start") else ""
    return {
        "description": inline(recipe.description + said),
        "data": "\n\n".join([markdown_table(*training_data(run, recipe)), *held_out(run)]),
        "versions": ", ".join(f"{name} {one}" for name, one in found.get("versions", {}).items()),
        "git_commit": found.get("git_commit") or "none",
        "recipe": fenced(settings(run, recipe).strip(), "yaml"),
    }
