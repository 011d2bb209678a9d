"""The commands that make training data with models, mine and score, and recipes of several stages."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.errors import UserError


def train_stages(recipe: Path, overrides: list[str] | None, output: Path | None) -> bool:
    """Run a recipe of several stages; False if it is a plain one."""
    from embedtrain.cli.printing import print_pipeline
    from embedtrain.workflows.pipeline import is_pipeline, load_pipeline, run_pipeline

    if not is_pipeline(recipe):
        return False
    pipeline = load_pipeline(recipe, overrides or ())
    print_pipeline(run_pipeline(pipeline, output or Path("runs") / recipe.stem))
    return True


def resume_stages(output: Path) -> bool:
    """Go on with a run of several stages; False if it is a plain one."""
    from embedtrain.cli.printing import print_pipeline
    from embedtrain.workflows.pipeline import RECIPE, resume_pipeline

    if not (output / RECIPE).is_file():
        return False
    print_pipeline(resume_pipeline(output))
    return True


def mine(
    model: Annotated[
        str,
        typer.Argument(
            help="The teacher, whose scores decide: a run's model/ folder, any "
            "sentence-transformers folder, or a Hub id."
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A BEIR folder, python_docs, or a file of training rows.")
    ],
    output: Annotated[
        Path,
        typer.Option(help="Folder to write: negatives.jsonl, train.jsonl, suspects.md, manifest."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="key.sub=value: num_negatives=7 depth=200 rule.kind=margin sampling.kind=uniform "
            '"sources=[{kind: dense, quota: 3}, {kind: bm25}]" shortfall=random_fill'
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgments, where there are splits.")] = "train",
) -> None:
    """Mine hard negatives and keep false ones out; started again, it goes on where it was."""
    from embedtrain.cli.printing import print_mining
    from embedtrain.mining.settings import MiningConfig
    from embedtrain.recipe.overrides import read_section
    from embedtrain.workflows.mine import mine as run_mine

    if output.is_file():
        raise UserError("--output", "is a file", got=str(output), cure="Name a folder")
    print_mining(
        run_mine(model, data, output, read_section(MiningConfig, overrides or ()), split=split)
    )


def score(
    teacher: Annotated[
        str,
        typer.Argument(help="A cross-encoder, or an encoder of either kind: a folder or a Hub id."),
    ],
    data: Annotated[
        str, typer.Option(help="Training rows, such as the train.jsonl of `embedtrain mine`.")
    ],
    output: Annotated[Path, typer.Option(help="The .jsonl file to write, with a column scores.")],
    split: Annotated[
        str, typer.Option(help="Split of the data, where there are splits.")
    ] = "train",
    kind: Annotated[
        Literal["cross_encoder", "encoder"] | None,
        typer.Option(help="What the teacher is; left out: as its config.json says."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs scored at once.")] = 32,
) -> None:
    """Let a teacher score each query's documents, for distillation; a killed run goes on."""
    from embedtrain.data.examples import SourceConfig
    from embedtrain.workflows.score import score as run_score

    config = SourceConfig(path=data, split=split)
    rows = run_score(teacher, config, output, kind=kind, batch_size=batch_size)
    typer.echo(f"{output}: {rows:,} rows with scores")


SCORE_EXAMPLE = (
    "Example: embedtrain score cross-encoder/ms-marco-MiniLM-L6-v2 --data mined/train.jsonl "
    "--output scored.jsonl"
)
MINE_EXAMPLE = (
    "Example: embedtrain mine runs/a/model --data scifact --output mined num_negatives=7 "
    '"sources=[{kind: dense, quota: 3}, {kind: bm25}]" '
    '&& embedtrain train my.yaml "data.sources=[{path: mined/train.jsonl}]"'
)
