"""Weights that are not trained: checkpoints leave them out, for they are read from where they came from."""

from collections.abc import Mapping

from torch import Tensor, nn

from embedtrain.models.backbone.fit import compare, refuse_not_finite, shapes_of


def frozen_names(model: nn.Module) -> set[str]:
    """Return the names of the parameters that are not trained, all of them where one has several."""
    every = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in every if not parameter.requires_grad}


def without_frozen(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what the backbone holds anyway: a checkpoint of adapters is small."""
    frozen = frozen_names(model)
    return {
        name: value
        for name, value in weights.items()
        # The scales of four-bit weights are stored under the weight's name.
        if name not in frozen and not any(name.startswith(f"{other}.") for other in frozen)
    }


def refuse_other_weights(place: object, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint's weights that are not the model's; those of frozen parameters may be missing.

    Raises:
        UserError: With the name of one that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    trained, found = without_frozen(model, own), shapes_of(weights)
    # Where DeepSpeed keeps a parameter in shards, what stands for it is empty.
    wanted = {
        name: shape if own[name].numel() else found.get(name, shape)
        for name, shape in shapes_of(own).items()
    }
    compare(place, wanted, found, optional=lambda name: name not in trained, exact=True)


def load_trained_weights(place: object, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load the weights of a checkpoint, which leaves frozen ones out.

    Raises:
        UserError: If they are not the model's, or not finite.
    """
    refuse_other_weights(place, model, weights)
    refuse_not_finite(place, weights.items())
    model.load_state_dict(dict(weights), strict=False)
