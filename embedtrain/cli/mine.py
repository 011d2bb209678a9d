"""The command that mines hard negatives."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedtrain.files import check_folder

EXAMPLES = (
    "embedtrain mine runs/a/model --data scifact --output mined num_negatives=7 "
    '"sources=[{kind: dense, quota: 3}, {kind: bm25}]"',
    'embedtrain train my.yaml "data.sources=[{path: mined/train.jsonl}]"',
)


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
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        typer.Option(help="What texts are encoded in; the same as precision=..."),
    ] = None,
) -> None:
    """Mine hard negatives and keep false ones out; started again, it goes on where it was."""
    from embedtrain.cli.printing import print_mining
    from embedtrain.mining.settings import MiningConfig
    from embedtrain.recipe.overrides import read_section
    from embedtrain.workflows.mine import mine as run_mine

    check_folder("--output", output)
    words = [*(overrides or ()), *([f"precision={precision}"] if precision else ())]
    print_mining(run_mine(model, data, output, read_section(MiningConfig, words), split=split))
