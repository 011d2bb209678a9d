"""Arguments and options that several commands take, and how a recipe is found and read."""

from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from embedtrain.encoding.pair_work import KindOfStages
from embedtrain.errors import UserError
from embedtrain.resources import find_recipe, recipe_names

if TYPE_CHECKING:
    from embedtrain.recipe.retrieval import AnyRecipe
    from embedtrain.retrieval.fusion import Rule
    from embedtrain.workflows.evaluate.asking import How
    from embedtrain.workflows.evaluate.systems import Fusing


def complete_recipe(incomplete: str) -> list[str]:
    """Return the names that a shell offers; where there is none, shells offer files."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of a recipe that comes with embedtrain.",
        autocompletion=complete_recipe,
    ),
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
LongInputsOption = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD:LENGTH",
        help="Read documents of so many tokens, beyond what the model was trained on: grouped:2048. "
        "Methods: grouped, interpolated, recurrent, ntk, self_extend.",
    ),
]
LateChunksOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Give documents a vector per chunk of so many tokens at most, made after the document was "
        "read whole (late chunking).",
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        help="What the network computes in; vectors are float32 all the same. auto is bf16 on a GPU that has "
        "it, fp32 on a CPU."
    ),
]
IndexOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:key=value,...]",
        help="How documents are searched; left out: exactly. One vector per text: exact, int8, binary, ternary, hnsw, ivf "
        "or faiss; late interaction: exact, fde, tokens, xtr, binary or fast_plaid; sparse: exact, uint8, two_step or "
        "seismic. hnsw:effort=64. trained: as the model was trained for. Or the address of a collection that "
        "`embedtrain load` filled.",
    ),
]
RerankOption = Annotated[
    str | None,
    typer.Option(
        help="A model that orders the results anew: a cross-encoder, an encoder of either kind, or a language "
        "model; a folder, a Hub id or a .gguf file."
    ),
]
RerankAsOption = Annotated[
    KindOfStages | None,
    typer.Option(help="What that model is; left out: as its config.json says."),
]
RerankInstructionOption = Annotated[
    str | None,
    typer.Option(
        help="What that model is told: the name of one of a cross-encoder's instructions, or a language model's text."
    ),
]
RerankTemplateOption = Annotated[
    str | None,
    typer.Option(help="What that model reads, if it is a language model; as for embedtrain score."),
]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help="Another system whose results are fused with MODEL's: a model, bm25, bm25:stemmer=english,k1=0.9 or "
        "run:FILE; may be repeated.",
    ),
]
FuseOption = Annotated[
    Literal["sum", "rrf", "max", "zscore", "dbsf", "raw", "zipper", "tuned"],
    typer.Option(
        help="With --with: how lists become one. sum adds scores between 0 and 1 (min-max), rrf reciprocal ranks; "
        "tuned learns the weights of sum."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="W,W,...", help="With --with: a weight of each system, MODEL's first."),
]
FeedbackOption = Annotated[
    str | None,
    typer.Option(
        metavar="N[:key=value,...]",
        help="Let a query learn from the first N documents that it finds, and search again: 3, or 3:beta=0.4.",
    ),
]
UnitsOption = Annotated[
    bool,
    typer.Option(
        "--units", help="Find documents by the best of their units, the rows of units.jsonl."
    ),
]


def read_fusing(
    others: list[str] | None,
    rule: "Rule | Literal['tuned']",
    weights: str | None,
    depth: int | None,
    tune_on: str | None = None,
    save_runs: Path | None = None,
    forms: "How | None" = None,
    feedback: str | None = None,
    units: bool = False,
) -> "Fusing | None":
    """Return how systems are asked and fused; None where there is but one, which is asked plainly.

    Raises:
        UserError: If there is but one and the user says how to fuse, or weights are no numbers.
    """
    if not others:
        if rule != "sum" or weights or depth or tune_on or save_runs:
            flags = "--fuse, --weights, --depth, --tune-on and --save-runs"
            raise UserError(flags, "say how results are fused", cure="Add --with SYSTEM")
        if forms is None and feedback is None and not units:
            return None
    from embedtrain.workflows.evaluate.asking import Asking
    from embedtrain.workflows.evaluate.systems import DEPTH, Fusing

    try:
        numbers = tuple(float(one) for one in weights.split(",")) if weights else None
    except ValueError:
        numbers = (nan,)
    if numbers and not all(map(isfinite, numbers)):
        raise UserError("--weights", "are not numbers", got=weights, cure="Write 1,0.5")
    asking = Asking(forms, feedback)
    asking.check()
    systems = tuple(others or ())
    fusing = Fusing(systems, rule, numbers, depth or DEPTH, tune_on, asking, units, save_runs)
    fusing.fusion()
    return fusing


def read_recipe(recipe: str, overrides: list[str] | None) -> "AnyRecipe":
    """Read a recipe with the overrides of the command line; a typo ends it before torch is imported."""
    from embedtrain.recipe.keys import check_keys

    path = find_recipe(recipe)
    check_keys(path, overrides or ())
    from embedtrain.recipe.retrieval import load_recipe

    return load_recipe(path, overrides or ())
