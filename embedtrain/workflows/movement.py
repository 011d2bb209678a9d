"""How far a run has moved each part of its model, where its recipe chose what to train."""

from embedtrain.models.chosen_weights import movements
from embedtrain.models.text_model import TextModel
from embedtrain.recipe.retrieval import Recipe
from embedtrain.recipe.run_folder import RunFolder, load_checkpoint
from embedtrain.workflows.summary import note


def note_movements(run: RunFolder, recipe: Recipe, trained: TextModel) -> None:
    """Keep in the run's summary how far each part is from the start, if ``model.train`` lists parts."""
    if not isinstance(recipe.model.train, tuple):
        return
    names = [name for name, one in trained.named_parameters() if one.requires_grad]
    start = load_checkpoint(run, recipe, None)
    found = [one.model_dump() for one in movements(start, trained, names)]
    note(run, movements=found)
