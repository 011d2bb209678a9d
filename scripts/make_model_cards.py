"""Train models by recipes of this repository and keep their cards in model_cards/.

    python scripts/make_model_cards.py --runs runs/cards [--only NAME] [--run NAME=FOLDER]

A run that lies in the folder, or that is named, is not trained again: its card is rendered from its resolved
recipe and its result files. Everything together takes about half an hour on two cores; RetroMAE is taken from
scripts/quality_pretraining.py, which pre-trains on ../shared/data.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from embedtrain.card import render_card
from embedtrain.checkpoint import RunFolder
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.pretrain_card import render_pretrain_card
from embedtrain.pretrain_recipe import PretrainRecipe
from embedtrain.recipe import load_recipe
from embedtrain.resources import resource
from embedtrain.train import train


@dataclass(frozen=True)
class Released:
    """A model whose card is kept."""

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    trained_by: str = ""
    """The command that makes the run, where this script does not."""


RELEASED = (
    Released("quickstart", "quickstart"),
    Released("late_interaction", "late_interaction/quickstart", ("trainer.steps=20",)),
    Released("retromae", "pretrain/retromae", trained_by="scripts/quality_pretraining.py"),
)


def render(run: RunFolder) -> str:
    """Render the card of a finished run from what it recorded."""
    recipe = load_recipe(run.recipe)
    if isinstance(recipe, PretrainRecipe):
        return render_pretrain_card(run, recipe)
    return render_card(run, recipe, load_encoder(str(run.model)).contract)


def make_card(released: Released, place: Path, cards: Path) -> Path:
    """Train where no run is there, and write the card of its model."""
    run = RunFolder(place)
    if not run.is_run:
        if released.trained_by:
            raise UserError(
                "--run",
                f"is needed for {released.name}",
                cure=f"Run {released.trained_by} and name it",
            )
        recipe = resource("recipes") / f"{released.recipe}.yaml"
        train(load_recipe(recipe, released.overrides), place)
    path = cards / f"{released.name}.md"
    path.write_text(render(run), encoding="utf-8")
    return path


def main() -> None:
    """Parse and make the cards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/cards"))
    parser.add_argument("--cards", type=Path, default=resource("model_cards"))
    parser.add_argument("--only", help="Name of one card.")
    parser.add_argument("--run", action="append", default=[], help="NAME=FOLDER of a finished run.")
    arguments = parser.parse_args()
    places = {name: Path(path) for name, _, path in (one.partition("=") for one in arguments.run)}
    for released in RELEASED:
        if arguments.only in (None, released.name):
            place = places.get(released.name, arguments.runs / released.name)
            print(make_card(released, place, arguments.cards))


if __name__ == "__main__":
    main()
