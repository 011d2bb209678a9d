"""The command that compares other readers of a model with our own vectors."""

from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.errors import UserError

if TYPE_CHECKING:
    from embedtrain.verification.values import Finding, Row
    from embedtrain.workflows.verify import Report

EXAMPLES = (
    "embedtrain verify my-model --data scifact",
    "embedtrain verify my-model --with sentence-transformers,onnxruntime,serve",
    "embedtrain verify my-model --with infinity=infinity-env/bin/python --with openai=http://localhost:8000/v1#my-model",
)
LISTED = 3
"""Texts of a finding that are shown."""


def verify(
    model: Annotated[str, typer.Argument(help="A model folder, as export writes it.")],
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Readers, NAME or NAME=WHERE, with commas or repeated: sentence-transformers, onnxruntime, openvino, "
            "llama.cpp, serve (WHERE: another Python, or llama-server), infinity=PYTHON or URL, fastembed=PYTHON, "
            "transformers.js=FOLDER, openai=URL#MODEL, tei=URL, qdrant, lancedb, pgvector=URL. Left out: those "
            "installed that find something to read.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Your texts: a BEIR folder, python_docs, or a file as for search."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data, where there are splits.")] = "test",
    num_texts: Annotated[int, typer.Option(min=4, help="Of the data that are compared.")] = 200,
) -> None:
    """Start other programs on a model folder, compare their vectors with ours, and say what causes a difference.

    Exits with 1 where vectors are wrong, with 2 where a reader does not start.
    """
    from embedtrain.workflows.verify import VerifyWish
    from embedtrain.workflows.verify import verify as run_verify

    wish = VerifyWish(model, with_ or (), data, split, num_texts)
    report = run_verify(wish, lambda line: typer.echo(line, err=True))
    _print(report)
    failed = [row.reader for row in report.rows if row.failure]
    if report.exit_code == 2:
        cure = "See its last words above, or name others by --with"
        raise UserError("verify", "could not run a reader", got=", ".join(failed), cure=cure)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _print(report: "Report") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from embedtrain.verification.values import FIGURES

    shown = [name for name in FIGURES if any(name in row.figures for row in report.rows)]
    table = Table("Reader", *(FIGURES[name] for name in shown), "Verdict")
    for row in report.rows:
        cells = [_cell(name, row.figures.get(name)) for name in shown]
        style = {"ok": "", "ok except": "yellow"}.get(row.verdict, "bold red")
        table.add_row(escape(row.reader), *cells, row.verdict, style=style)
    Console(width=None if Console().is_terminal else 160).print(table)
    for row in report.rows:
        for line in _lines(row, report):
            typer.echo(line)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in ("largest", "mean", "batch"):
        return f"{value:.1e}"
    if name in ("same_ids", "overlap"):
        return f"{value:.1%}"
    return f"{value:.4f}" if name.startswith("ndcg") else f"{value:,.0f}"


def _lines(row: "Row", report: "Report") -> list[str]:
    if row.failure:
        return [f"{row.reader}: {row.failure}"]
    return [f"{row.reader}: {_words(one, report)}" for one in row.findings]


def _words(finding: "Finding", report: "Report") -> str:
    probes = [report.comparison.probes[place] for place in finding.probes]
    said = f"except {finding.cause}" if finding.excused else finding.cause
    if finding.residual is not None:
        said += f" (this explains all but {finding.residual:.0e})"
    if not probes:
        return said
    some = ", ".join(dict.fromkeys(one.shown for one in probes[:LISTED]))
    more = f" and {len(probes) - LISTED} more" if len(probes) > LISTED else ""
    return f"{said}; {len(probes)} texts: {some}{more}"
