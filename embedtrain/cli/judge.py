"""The command that lets a judge look at what mining kept out and what it kept."""

import json
from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.options import Overrides
from embedtrain.encoding.pair_work import ScorerKind
from embedtrain.files import check_folder, read_json

EXAMPLES = (
    "embedtrain judge mined --judge cross-encoder/ms-marco-MiniLM-L6-v2 --output judged",
    "embedtrain judge mined --judge Qwen/Qwen3-Reranker-0.6B --as yes_no --larger http://localhost:8000/v1 "
    "--larger-as yes_no --output judged judge.language.template=qwen3 tokens=5000000",
    'embedtrain train my.yaml "data.sources=[{path: judged/train.jsonl}]"',
)


def judge(
    mined: Annotated[
        Path,
        typer.Argument(help="Output folder of `embedtrain mine`, best with num_rejected=20."),
    ],
    model: Annotated[
        str,
        typer.Option(
            "--judge",
            help="A cross-encoder, or a language model: a folder, a Hub id, a .gguf file, or an OpenAI-compatible "
            "address (its key in EMBEDTRAIN_API_KEY).",
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Folder to write: train.jsonl, judged.jsonl, report.json.")
    ],
    overrides: Overrides = None,
    kind: Annotated[
        ScorerKind | None,
        typer.Option("--as", help="cross_encoder or yes_no; left out: as its config.json says."),
    ] = None,
    larger: Annotated[
        str | None, typer.Option(help="A better judge, asked about what the first suspects.")
    ] = None,
    larger_kind: Annotated[
        ScorerKind | None, typer.Option("--larger-as", help="What the larger one is.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Judgments of people, who are never contradicted, to measure the judge by: a BEIR folder, "
            "or a .tsv of query id, document id and grade."
        ),
    ] = None,
) -> None:
    """Let a judge make positives of false negatives and negatives of what was kept out; a killed run goes on."""
    from embedtrain.mining.judgement.settings import JudgeConfig
    from embedtrain.recipe.overrides import read_section
    from embedtrain.workflows.judge import judge as run_judge

    check_folder("--output", output)
    given = {
        "judge.model": model, "judge.kind": kind, "larger.model": larger,
        "larger.kind": larger_kind, "labels": labels,
    }  # fmt: skip
    words = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    folder = run_judge(mined, output, read_section(JudgeConfig, [*words, *(overrides or ())]))
    report = read_json(folder.report)
    for name, count in report["actions"].items():
        typer.echo(f"{name} {count:,}")
    for name, count in report["withheld"].items():
        typer.echo(f"withheld by {name} {count:,}")
    typer.echo(f"Agreement: {report['gate']}")
    if malformed := report["spent"]["together"].get("malformed"):
        typer.echo(f"Answers that were neither yes nor no: {malformed:,}, taken as 0.5")
    typer.echo(f"Read: {report['spent']['together'].get('tokens', 0):,.0f} tokens")
    typer.echo(f"{output}: {report['num_rows']:,} rows. Train on them:")
    typer.echo(f'  embedtrain train my.yaml "data.sources=[{{path: {folder.training}}}]"')
