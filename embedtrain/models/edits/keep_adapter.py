"""Turn a model of several adapters into the plain model of one task."""

from embedtrain.errors import UserError
from embedtrain.models.dense.encoder import DenseEncoder


def keep_adapter(model: DenseEncoder, task: str) -> None:
    """Fold the adapter of a task into the weights, in place; a model without several adapters stays as it is.

    Raises:
        UserError: If the two sides have different adapters.
    """
    chosen = model.contract.adapters
    if model.adapters is None or chosen is None or task not in chosen.tasks:
        return
    sides = chosen.tasks[task]
    if sides.query != sides.document:
        raise UserError(
            "--instruction",
            "names a task whose two sides use different adapters, which no other reader can express",
            got=task,
            cure="Leave it out: embedtrain reads the folder with all adapters",
        )
    model.adapters.merge(sides.query)
    model.adapters = None
    # The task may have prompts as well; without them nothing is left of it.
    known = model.contract.instructions
    prompts = (
        {task: known[task]}
        if task in known
        else {
            task: {"query": model.contract.query_prompt, "document": model.contract.document_prompt}
        }
    )
    changed = model.contract.model_dump() | {"adapters": None, "instructions": known | prompts}
    model.contract = type(model.contract).model_validate(changed)
