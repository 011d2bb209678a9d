"""The command that searches for better settings of a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from embedtrain.cli.options import Overrides, complete_recipe
from embedtrain.resources import find_recipe

EXAMPLES = (
    "embedtrain tune my.yaml --budget 2h --output tuned",
    "embedtrain tune my.yaml --budget 30m --output tuned trainer.seed=1",
)


def tune(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a recipe; it validates.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Overrides = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the search; one that was begun goes on.")
    ] = Path("tuned"),
    budget: Annotated[str, typer.Option(help="Wall time: 90s, 30m, 2h.")] = "1h",
) -> None:
    """Try settings of a recipe for a while, and write the best as a recipe: TPE with pruning, resumable."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from embedtrain.recipe.keys import check_keys
    from embedtrain.workflows.fit.wish import read_duration

    seconds = read_duration(budget)
    path = find_recipe(recipe)
    check_keys(path, overrides or ())
    from embedtrain.recipe.retrieval import load_recipe, refuse_pretraining
    from embedtrain.units import show_seconds
    from embedtrain.workflows.tune.study import shown
    from embedtrain.workflows.tune.tune import tune as run_tune

    asked = refuse_pretraining(load_recipe(path, overrides or ()), path)
    found = run_tune(asked, output, seconds)
    table = Table("Trial", "Settings", "nDCG@10", "Time", "Ended")
    for trial in found.trials:
        score = "" if trial.score is None else f"{trial.score:.4f}"
        ended = trial.state if trial.stopped_at is None else f"pruned at {trial.stopped_at} %"
        cells = escape(shown(trial.settings)), score, show_seconds(trial.seconds), ended
        table.add_row(str(trial.number), *cells, style="bold" if trial == found.winner else None)
    out = Console(highlight=False)
    if found.trials:
        out.print(table)
    for line in found.lines:
        out.print(escape(line), soft_wrap=True)
    typer.echo(f"{output}/best.yaml: train it as any other recipe")
