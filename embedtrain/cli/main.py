"""The command line: parses, calls a workflow, prints. Heavy imports wait until a command runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedtrain.cli import adapt as cli_adapt
from embedtrain.cli import encode as cli_encode
from embedtrain.cli import evaluate as cli_evaluate
from embedtrain.cli import export as cli_export
from embedtrain.cli import merge as cli_merge
from embedtrain.cli import mine as cli_mine
from embedtrain.cli import probe as cli_probe
from embedtrain.cli import rotate as cli_rotate
from embedtrain.cli import static as cli_static
from embedtrain.cli import tokenizer as cli_tokenizer
from embedtrain.cli.options import LateChunksOption, LongInputsOption
from embedtrain.contract.long_inputs import parse_long_inputs
from embedtrain.errors import Interrupted, UserError
from embedtrain.resources import find_recipe
from embedtrain.training.ranks.launcher import INTERRUPTED, RankDied, report_failure, speaks

if TYPE_CHECKING:
    from embedtrain.recipe.retrieval import AnyRecipe

app = typer.Typer(
    name="embedtrain",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Train embedding models for retrieval: exact, fast, one contract, simple.",
    epilog="Begin with: embedtrain train quickstart --output runs/quickstart",
)

app.command(epilog=cli_adapt.EXAMPLE)(cli_adapt.adapt)
app.command(epilog=cli_evaluate.EVALUATE_EXAMPLE)(cli_evaluate.evaluate)
app.command(epilog=cli_evaluate.COMPARE_EXAMPLE)(cli_evaluate.compare)
app.command(epilog=cli_evaluate.PARETO_EXAMPLE)(cli_evaluate.pareto)
app.command(epilog=cli_evaluate.REPORT_EXAMPLE)(cli_evaluate.report)
app.command(epilog=cli_export.EXAMPLE)(cli_export.export)
app.command(epilog=cli_probe.EXAMPLE)(cli_probe.probe)
app.command(epilog=cli_merge.EXAMPLE)(cli_merge.merge)
app.command(epilog=cli_encode.EXAMPLE)(cli_encode.encode)
app.command(epilog=cli_mine.MINE_EXAMPLE)(cli_mine.mine)
app.command(epilog=cli_mine.SCORE_EXAMPLE)(cli_mine.score)
app.command(epilog=cli_rotate.EXAMPLE)(cli_rotate.rotate)
app.command(epilog=cli_static.EXAMPLE)(cli_static.static)
app.command(epilog=cli_tokenizer.EXAMPLE)(cli_tokenizer.tokenizer)

RecipeArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a recipe that comes with embedtrain.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.sub=value, values are YAML: trainer.seed=1")
]
ModelArgument = Annotated[
    str,
    typer.Argument(help="A run's model/ folder, any sentence-transformers folder, or a Hub id."),
]

InstructionOption = Annotated[
    str | None, typer.Option(help="Use the prompts of this one of the model's instructions.")
]


@app.command(epilog="Example: embedtrain check quickstart trainer.batch_size=128")
def check(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Validate a recipe and show what it would do, without training."""
    from embedtrain.cli.printing import print_report
    from embedtrain.workflows.check import check as run_check

    print_report(run_check(_load(recipe, overrides)))


@app.command(
    epilog="Examples: embedtrain train quickstart --output runs/a trainer.steps=50 · "
    'embedtrain train my.yaml --output runs/b "data.sources=[{path: pairs.jsonl}]" · '
    "embedtrain train --resume runs/a"
)
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or the name of a recipe.")
    ] = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; must not exist.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run exactly where its last checkpoint is.")
    ] = None,
) -> None:
    """Train a recipe: measure, train, measure again, export."""
    from embedtrain.cli.printing import print_run
    from embedtrain.workflows.train import resume as resume_run
    from embedtrain.workflows.train import train as run_train

    if resume is not None:
        changes = [*([recipe] if recipe else []), *(overrides or ())]
        if output or (recipe and "=" not in recipe):
            raise UserError(
                "--resume", "takes the recipe from the run", cure="Give trainer.key=value at most"
            )
        if not changes and cli_mine.resume_stages(resume):
            return
        run = resume_run(resume, changes)
    else:
        if recipe is None:
            raise UserError("RECIPE", "is missing", cure="See `embedtrain recipes`")
        if cli_mine.train_stages(find_recipe(recipe), overrides, output):
            return
        loaded = _load(recipe, overrides)
        run = run_train(loaded, output or Path("runs") / Path(recipe).stem)
    if speaks():
        print_run(run.path)


@app.command(
    epilog='Example: embedtrain search runs/quickstart/model "split a list into chunks of equal size"'
)
def search(
    model: ModelArgument,
    query: Annotated[str | None, typer.Argument(help="Left out: asks for queries.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="BEIR folder, .jsonl of documents, or python_docs; default: what the run measured."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Results to show.")] = 5,
    like: Annotated[
        list[Path] | None,
        typer.Option(help="File of texts that results should be like, instead of a query."),
    ] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option(help="File of texts that they should be unlike.")
    ] = None,
    instruction: InstructionOption = None,
    long_inputs: LongInputsOption = None,
    late_chunks: LateChunksOption = None,
) -> None:
    """Search documents, once or interactively."""
    from embedtrain.cli.printing import print_hits
    from embedtrain.workflows.search import Searcher

    longer = parse_long_inputs(long_inputs)
    searcher = Searcher(model, data, split, instruction, longer, late_chunks)
    if like or unlike:
        if query is not None:
            raise UserError("--like", "takes the place of a query", cure="Give one of them")
        print_hits(searcher.search_sets(like or [], unlike or [], top))
        return
    if query is not None:
        print_hits(searcher.search(query, top))
        return
    typer.echo(f"{len(searcher.texts):,} documents. Empty line ends.", err=True)
    while (line := _ask()).strip():
        print_hits(searcher.search(line, top))


@app.command(epilog="Example: embedtrain doctor quickstart")
def doctor(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a recipe.")
    ] = "quickstart",
    overrides: Overrides = None,
) -> None:
    """Prove on this machine that a recipe's gradients are those of the plain loss."""
    from rich.console import Console
    from rich.table import Table

    from embedtrain.recipe.retrieval import refuse_pretraining
    from embedtrain.workflows.doctor import diagnose

    diagnosis = diagnose(refuse_pretraining(_load(recipe, overrides), recipe))
    table = Table("Parameters", "Gradient norm", "Relative error")
    for group in diagnosis.groups:
        table.add_row(group.name, f"{group.norm:.3g}", f"{group.relative_error:.2e}")
    Console().print(table)
    verdict = "within" if diagnosis.healthy else "ABOVE"
    typer.echo(
        f"loss {diagnosis.loss:.6f}, plain {diagnosis.plain_loss:.6f}; "
        f"gradients {verdict} the bound of {diagnosis.bound:.0e}"
    )
    if not diagnosis.healthy:
        raise typer.Exit(1)


@app.command(epilog="Example: embedtrain recipes")
def recipes() -> None:
    """List the recipes that come with embedtrain."""
    import yaml
    from rich.console import Console
    from rich.table import Table

    from embedtrain.resources import resource

    folder = resource("recipes")
    table = Table("Recipe", "What it is for")
    for path in sorted(folder.rglob("*.yaml")):
        description = yaml.safe_load(path.read_text(encoding="utf-8"))["description"]
        table.add_row(str(path.relative_to(folder).with_suffix("")), description)
    Console().print(table)


def main() -> None:
    """Run the command line: exit 0 done, 2 the user's mistake, 130 interrupted, 1 anything else."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        if not report_failure(str(error)):
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except RankDied as death:
        typer.echo(f"error: {death}", err=True)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt) as interruption:
        message = str(interruption) or "interrupted"
        if not report_failure(message):
            typer.echo(message, err=True)
        sys.exit(INTERRUPTED)


def _load(recipe: str, overrides: list[str] | None) -> "AnyRecipe":
    from embedtrain.recipe.retrieval import load_recipe

    return load_recipe(recipe, overrides or ())


def _ask() -> str:
    try:
        return input("query> ")
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
