"""What a result says of a reranker's scores becomes part of the reranker."""

from pathlib import Path

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.errors import UserError
from embedtrain.evaluation.results.result import load_result
from embedtrain.models.cross_encoder.encoder import CrossEncoderModel
from embedtrain.models.edits.fold_sigmoid import fold_sigmoid
from embedtrain.precision import Chosen

CURE = "Write one with embedtrain evaluate RETRIEVER --data D --rerank MODEL --output FILE.json"


def fold_probabilities(model: CrossEncoderModel, path: Path) -> None:
    """Fold the best sigmoid of a result of ``evaluate --rerank`` into the head of the reranker, in place.

    Raises:
        UserError: If the reranker has no head, or the result no such sigmoid, or it is of another model, or of scores
            that another model had a share in.
    """
    result = load_result(path)
    stages = result.two_stage
    if stages is None or stages.calibration is None:
        raise UserError(path, "does not say what scores mean as probabilities", cure=CURE)
    if result.model is not None and "blend" in result.model.settings:
        raise UserError(path, "is of scores blended with a first stage's", cure=CURE)
    said = stages.second.settings.get("precision", "fp32")
    precision: Chosen = "bf16" if said == "bf16" else "fp16" if said == "fp16" else "fp32"
    if stages.second.weights != CrossEncoder(model, precision=precision).key():
        problem = "is of another reranker, or of other lengths or another instruction"
        raise UserError(path, problem, got=stages.second.name, cure=CURE)
    fold_sigmoid(model, stages.calibration.slope, stages.calibration.intercept)
