"""The command that writes a recipe for the user's own file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedtrain.errors import UserError
from embedtrain.locks import owns
from embedtrain.training.settings import AUTO

if TYPE_CHECKING:
    from embedtrain.workflows.first_recipe import Look

EXAMPLES = (
    "embedtrain init pairs.jsonl",
    "embedtrain init faq.csv --query question --positive answer --minutes 10 --output faq.yaml",
)
QUESTIONS = {
    "query": "Column of the query",
    "positive": "Column of the text that answers it",
    "negatives": "Column of texts that do not answer it (- for none)",
}


def init(
    data: Annotated[
        str | None, typer.Argument(help="Your .jsonl, .csv, .tsv or .parquet file, a row a query.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="Column of the query.")] = None,
    positive: Annotated[
        str | None, typer.Option(help="Column of the text that answers it.")
    ] = None,
    negatives: Annotated[
        str | None, typer.Option(help="Column of texts that do not, where there is one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="What to start from: folder or Hub id.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Train so many steps.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train so many passes over the rows.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Train about so long; a step is measured for it.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The .yaml file to write.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take the guesses.")
    ] = False,
) -> None:
    """Write a recipe for your own file; asks on a terminal for what the options leave open."""
    # Longer than others: most of its lines are its options.
    asks = _is_terminal() and not yes
    length = _one_length(steps, epochs, minutes)
    if data is None and not asks:
        cure = "Give it: embedtrain init pairs.jsonl"
        raise UserError("DATA", "is missing, and there is no terminal to ask on", cure=cure)
    from embedtrain.workflows import first_recipe

    look = first_recipe.look_at(data or typer.prompt("Your file of training rows"))
    given = {"query": query, "positive": positive, "negatives": negatives}
    chosen = _choose(look, given, asks=asks)
    columns = first_recipe.own_columns(look, chosen)
    start = model or _answer("Model to start from", first_recipe.usual_model(), asks=asks)
    length = length or (_ask_length() if asks else {})
    _write(look, columns, start, length, _place(look, output, asks=asks))


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _answer(question: str, usual: str, *, asks: bool) -> str:
    return str(typer.prompt(question, usual)) if asks else usual


def _place(look: "Look", output: Path | None, *, asks: bool) -> Path:
    """Return the file to write, which does not exist."""
    if output is None:
        usual = f"{Path(look.path).name.partition('.')[0] or 'recipe'}.yaml"
        output = Path(_answer("Recipe to write", usual, asks=asks))
    if output.suffix not in (".yaml", ".yml"):
        raise UserError("--output", "must end in .yaml", got=str(output), cure="Write my.yaml")
    if output.exists():
        raise UserError("--output", "exists", got=str(output), cure="Choose another name")
    return output


@owns("output")
def _write(look: "Look", columns: dict[str, str], model: str, length: Any, output: Path) -> None:  # noqa: ANN401
    from embedtrain.workflows import first_recipe

    minutes = length.pop("minutes", None)
    wanted = length if minutes is None else {"steps": 1}
    text = first_recipe.compose(look, columns, model, wanted)
    first_recipe.write_recipe(text, output)
    if minutes is not None:
        try:
            steps = first_recipe.steps_in(minutes, output)
        except BaseException:
            output.unlink()  # a recipe of one step is not what was asked for
            raise
        text = first_recipe.compose(look, columns, model, {"steps": steps})
        first_recipe.write_recipe(text, output)
    typer.echo(text)
    typer.echo(f"Wrote {output}. Next:\n  embedtrain train {output}")


def _one_length(
    steps: int | None, epochs: float | None, minutes: float | None
) -> dict[str, int | float]:
    values = {"steps": steps, "epochs": epochs, "minutes": minutes}
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(f"--{name}" for name in given)
        raise UserError(names, "exclude each other", cure="Give one of them")
    for name, value in given.items():
        if value <= 0:
            raise UserError(f"--{name}", "must be above 0", got=value, cure="Give more")
    return given


def _ask_length() -> dict[str, int | float]:
    while True:
        amount, _, unit = typer.prompt("Train for how long", AUTO).partition(" ")
        if amount == AUTO and not unit:
            return {}
        names = [
            name for name in ("steps", "epochs", "minutes") if name.startswith(unit.rstrip("s"))
        ]
        try:
            value = int(amount) if names == ["steps"] else float(amount)
            if unit and len(names) == 1 and value > 0:
                return {names[0]: value}
        except ValueError:
            pass
        typer.echo(
            "Write auto, or a number and steps, minutes or epochs, such as 10 minutes.", err=True
        )


def _choose(look: "Look", given: dict[str, str | None], *, asks: bool) -> dict[str, str | None]:
    """Return the column of each part: as given, as answered, or as its name says."""
    if asks:
        typer.echo(f"{look.path} has these columns:", err=True)
        for column in look.names:
            sample = next((row[column] for _, row in look.rows if row.get(column)), "")
            typer.echo(f"  {column}: {' '.join(str(sample).split())[:70]}", err=True)
    chosen: dict[str, str | None] = {}
    for part, name in given.items():
        guess = look.guess(part)
        chosen[part] = name or guess
        optional = part == "negatives" and (guess is not None or len(look.names) < 3)
        if asks and name is None and not optional:
            chosen[part] = _ask_column(part, look.names, guess)
    return chosen


def _ask_column(part: str, names: tuple[str, ...], guess: str | None) -> str | None:
    default = "-" if part == "negatives" else guess
    while True:
        name = str(typer.prompt(QUESTIONS[part], default))
        if name in names:
            return name
        if name == "-" and part == "negatives":
            return None
        typer.echo(f"No such column; there are {', '.join(names)}.", err=True)
