"""The command that makes training data of documents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedtrain.files import check_folder, read_json

if TYPE_CHECKING:
    from embedtrain.workflows.synthesize import Plan

MOST_FAILED = 0.05
"""Share of requests without an answer above which the command fails, though what there is was written."""
EXAMPLES = (
    "embedtrain synth docs --output data/synth",
    "embedtrain synth docs --output data/synth --plan-only per_document=4 round_trip.reader=bm25",
    'embedtrain check my.yaml "data.sources=[{path: data/synth/train.jsonl}]"',
)


def synth(
    corpus: Annotated[
        Path,
        typer.Argument(
            help="A folder of .txt, .md, .html, .pdf, .jsonl, .csv or .parquet files, a BEIR folder, or one file."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder to write: a BEIR folder with train.jsonl and report.json.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key.sub=value: base=runs/a/model per_document=8 round_trip.top=1"),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            help="A language model that writes the queries: an address such as http://127.0.0.1:8080/v1#NAME, a "
            "folder, a Hub id or a .gguf file. Left out: rules write them, at once and offline."
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl file of your own queries (query, maybe positive), which the model imitates."
        ),
    ] = None,
    plan_only: Annotated[
        bool,
        typer.Option("--plan-only", help="Count documents, chunks and queries; write nothing."),
    ] = False,
) -> None:
    """Write queries for documents, filter and split them; started again, it goes on where it was."""
    from embedtrain.recipe.overrides import read_section
    from embedtrain.synthesis.settings import SynthesisConfig
    from embedtrain.workflows.synthesize import plan, synthesize

    check_folder("--output", output)
    config = read_section(SynthesisConfig, overrides or [])
    if plan_only:
        _print_plan(plan(str(corpus), output, config, llm=llm, like=like))
        return
    report = read_json(synthesize(str(corpus), output, config, llm=llm, like=like).report)
    _print_report(report)
    typer.echo(str(output))
    if report.get("language_model", {}).get("failed_share", 0) > MOST_FAILED:
        raise typer.Exit(1)


def _print_plan(found: "Plan") -> None:
    _print_corpus(found.figures)
    for maker, count in found.candidates.items():
        typer.echo(f"{maker} {count:,} queries before the filters")
    for name, value in found.forecast.items():
        typer.echo(f"{name} {value:,}")


def _print_corpus(figures: dict[str, Any]) -> None:
    typer.echo(
        f"{figures['documents']:,} documents, {figures['chunks']:,} chunks, queries for {figures['chosen_chunks']:,}"
    )
    skipped = figures["reading"]["skipped"]
    if skipped:
        listed = ", ".join(f"{count:,} {name}" for name, count in skipped.items())
        typer.echo(f"skipped files: {listed}")


def _print_report(report: dict[str, Any]) -> None:
    """Print what each filter took of each maker, the splits and what is to be known."""
    from embedtrain.synthesis.report import FILTERS

    _print_corpus(report["corpus"])
    table = report["waterfall"]
    used = [name for name in FILTERS if any(name in counts for counts in table.values())]
    used = ["written", *used, "kept"]
    typer.echo("".join(f"{name:>16}" for name in ("", *used)))
    for maker, counts in table.items():
        typer.echo(
            "".join(f"{value:>16}" for value in (maker, *(counts.get(name, 0) for name in used)))
        )
    for split, counts in report["splits"].items():
        typer.echo(f"{split} {counts['documents']:,} documents, {counts['queries']:,} queries")
    for note in report["notes"]:
        typer.echo(note)
