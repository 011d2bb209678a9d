"""What sources, objectives and the model of a recipe must have for each other."""

from collections.abc import Sequence

from embedtrain.models.build import ModelConfig
from embedtrain.models.cross_encoder.config import CrossEncoderConfig
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.models.sparse.config import SparseConfig
from embedtrain.objectives import OBJECTIVES, Objective
from embedtrain.objectives.embedding_distillation import EmbeddingDistillation
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.objectives.matryoshka import Matryoshka
from embedtrain.objectives.outputs import Outputs
from embedtrain.objectives.own import name_of
from embedtrain.training.guide import GuideConfig
from embedtrain.training.settings import TrainerConfig, ValidationConfig
from embedtrain.training.sources import TrainingData


def check_objectives(
    objectives: Sequence[Objective],
    model: ModelConfig,
    *,
    guide: bool,
) -> None:
    """Refuse objectives and models that lack what the other brings.

    Raises:
        ValueError: Naming what is missing or unused.
    """
    if isinstance(model, CrossEncoderConfig):
        for objective in objectives:
            if not objective.uses_pairs:
                raise ValueError(_needs_pairs(objective))
            by_class = objective.uses_pair_classifier and not objective.inner_objectives
            if model.classes and not by_class:
                raise ValueError(
                    f"objective {name_of(objective)} learns one score of a pair, and model.classes are "
                    f"{len(model.classes)}: use pair_classification or leave classes out"
                )
    used = any(objective.uses_guide for objective in objectives)
    if used != guide:
        needs = "needs" if used else "has no use for"
        name = name_of(objectives[0]) if len(objectives) == 1 else "of the sources"
        raise ValueError(f"objective {name} {needs} guide: {{model: ...}}")
    dense = model if isinstance(model, DenseConfig) else None
    has_exits = model if isinstance(model, CrossEncoderConfig) else dense
    exits = has_exits is not None and bool(has_exits.exits)
    if {objective.uses_exits for objective in objectives} != {exits}:
        raise ValueError("objective multi_exit and model.exits, its layers, need each other")
    _check_heads(objectives, model, dense)
    _check_behind(objectives, model)
    if dense is not None and dense.ways_to_score:
        refuse_inner_products(objectives, dense.ways_to_score[0])


def _check_behind(objectives: Sequence[Objective], model: ModelConfig) -> None:
    """Refuse to cut or to quantise vectors behind which stands what belongs to them whole."""
    behind, scored = "", isinstance(model, LateInteractionConfig) and model.token_scorer
    if isinstance(model, DenseConfig) and model.situated:
        behind = "model.situated puts a frozen vector"
    elif scored:
        behind = "model.token_scorer puts its score"
    if behind and any(map(_cuts_vectors, objectives)):
        raise ValueError(
            f"{behind} behind the trained one, of which no prefix has a part: drop matryoshka"
        )
    if scored and any(map(_quantizes, objectives)):
        raise ValueError(f"{behind} behind the vector, which is no number of a code: drop outputs")


def _cuts_vectors(objective: Objective) -> bool:
    cuts = isinstance(objective, Matryoshka) or (
        isinstance(objective, Outputs) and bool(objective.matryoshka)
    )
    return cuts or any(map(_cuts_vectors, objective.inner_objectives))


def _quantizes(objective: Objective) -> bool:
    return isinstance(objective, Outputs) or any(map(_quantizes, objective.inner_objectives))


def _check_heads(
    objectives: Sequence[Objective], model: ModelConfig, dense: DenseConfig | None
) -> None:
    """Refuse heads that only training has without an objective that trains on them, and the other way round."""
    classes, key = dense is not None and dense.pair_classes is not None, "pair_classes"
    if isinstance(model, CrossEncoderConfig):
        classes, key = bool(model.classes), "classes"
    if any(objective.uses_pair_classifier for objective in objectives) != classes:
        raise ValueError(f"objective pair_classification and model.{key} need each other")
    _check_bank(objectives, dense)
    words = dense is not None and dense.word_head
    if any(objective.uses_word_head for objective in objectives) != words:
        raise ValueError("objective word_prediction and model.word_head need each other")
    recovers = isinstance(model, LateInteractionConfig) and model.recovery
    if any(objective.uses_recovery for objective in objectives) != recovers:
        raise ValueError("objective recovery and model.recovery need each other")


def refuse_inner_products(objectives: Sequence[Objective], key: str) -> None:
    """Refuse objectives that compare vectors by inner products only, where ``model.key`` scores pairs.

    Raises:
        ValueError: Saying which do not.
    """
    if not all(objective.uses_interaction for objective in objectives):
        raise ValueError(
            f"model.{key} needs an objective that trains it: d2llm, info_nce of queries with documents, or one that "
            "scores a query's own documents, such as margin_mse"
        )


def _check_bank(objectives: Sequence[Objective], dense: DenseConfig | None) -> None:
    banked = dense is not None and dense.contrast_head is not None
    if {objective.wanted_bank is not None for objective in objectives} != {banked}:
        raise ValueError("objective ccp, as it is, and model.contrast_head need each other")


def check_words(objectives: Sequence[Objective], model: ModelConfig, accumulate: int) -> None:
    """Refuse objectives that price words or rebuild vectors where there are none, or where a batch is cut.

    Raises:
        ValueError: Saying what to change.
    """
    priced = [name_of(objective) for objective in objectives if objective.needs_words]
    if priced and not isinstance(model, SparseConfig):
        raise ValueError(f"objective {priced[0]} needs vectors of words: set model.kind: sparse")
    rebuilt = [name_of(objective) for objective in objectives if objective.needs_code]
    if rebuilt and not (isinstance(model, SparseConfig) and model.head in (None, "code")):
        raise ValueError(
            f"objective {rebuilt[0]} needs codes of dense vectors: set model.kind: sparse and model.head: code"
        )
    whole = priced + rebuilt
    if whole and accumulate > 1:
        raise ValueError(
            f"objective {whole[0]} reads figures of the whole batch, which trainer.accumulate cuts: set it to 1, and "
            "lower trainer.chunk_tokens where memory is short"
        )


def check_told(validation: ValidationConfig | None, model: ModelConfig) -> None:
    """Refuse an instruction to measure under that the model does not define.

    Raises:
        ValueError: Naming the instruction.
    """
    name = None if validation is None else validation.instruction
    known = model.instructions if isinstance(model, CrossEncoderConfig) else {}
    if name is not None and name not in known:
        raise ValueError(
            f"validation.instruction {name!r} is not one of a cross-encoder's model.instructions "
            f"({', '.join(known) or 'none'})"
        )


def check_guide_text(data: TrainingData, *, guide: bool) -> None:
    """Refuse texts for a guide where there is none, or where documents come from outside of their rows.

    Raises:
        ValueError: Saying what to drop.
    """
    if not any(source.columns.guide_text for source in data.sources):
        return
    if not guide:
        raise ValueError(
            "columns.guide_text is what a guide reads: drop it or add guide: {model: ...}"
        )
    if data.random_negatives or data.swapped_negatives:
        raise ValueError(
            "columns.guide_text goes by rows: drop random_negatives and swapped_negatives, which come from others"
        )


def check_guided_documents(
    objectives: Sequence[Objective], model: ModelConfig, guide: GuideConfig, *, frozen: bool
) -> None:
    """Refuse queries that would meet documents of another space than their own."""
    copies = all(
        isinstance(one, EmbeddingDistillation) and one.kind != "similarity" for one in objectives
    )
    if frozen or not copies or guide.dim is not None or not isinstance(model, DenseConfig):
        raise ValueError(
            "guide.encodes_documents is for a dense model that learns the guide's whole vectors: "
            "embedding_distillation of kind mse or cosine, without guide.dim and frozen_documents"
        )


def check_alone(data: TrainingData, objectives: Sequence[Objective], micro_batch: int) -> None:
    """Refuse a softmax over the positive alone, which is 1 whatever the model does.

    Raises:
        ValueError: Saying what to change.
    """
    alone = micro_batch == 1 and data.num_negatives == 0 and not data.random_negatives
    if (
        data.candidates == "batch"
        and alone
        and any(isinstance(objective, InfoNCE) for objective in objectives)
    ):
        raise ValueError(
            "objective info_nce has no negatives in micro-batches of one query: lower trainer.accumulate, raise "
            "data.num_negatives, or use orthogonal_projection"
        )


def check_candidates(data: TrainingData, objectives: Sequence[Objective], *, fixed: bool) -> None:
    """Refuse all documents as candidates where something goes by rows, or where they are not ``fixed`` ones in training.

    Raises:
        ValueError: Saying what to change.
    """
    if data.candidates == "batch":
        return
    for objective in objectives:
        if not objective.takes_labels:
            raise ValueError(
                f"objective {name_of(objective)}, as it is, goes by the documents of each query: data.candidates all is "
                "for soft_top_k, and for info_nce of queries with all documents"
            )
    if data.num_negatives or data.random_negatives or data.swapped_negatives:
        raise ValueError(
            "data.candidates all takes every document for a negative: drop num_negatives, random_negatives and "
            "swapped_negatives"
        )
    if any(source.columns.guide_text for source in data.sources):
        raise ValueError("columns.guide_text goes by rows: drop it, or data.candidates")
    if not fixed:
        raise ValueError(
            "data.candidates all trains every document: drop frozen_documents, refresh"
        )


def check_added_negatives(data: TrainingData, objectives: Sequence[Objective]) -> None:
    """Refuse documents without scores for objectives that read some, and any for those that use none.

    Raises:
        ValueError: Naming the objective.
    """
    if data.num_negatives != 0 and any(one.wanted_bank for one in objectives):
        raise ValueError("objective ccp compares with its bank alone: set data.num_negatives: 0")
    reading = [name_of(one) for one in objectives if one.reads_scores]
    for key in ("random_negatives", "swapped_negatives"):
        if getattr(data, key) and reading:
            raise ValueError(
                f"data.{key} have no scores, which objective {reading[0]} reads: drop them, and give negatives that "
                "`embedtrain score` has seen"
            )


def _needs_pairs(objective: Objective) -> str:
    known = [
        name for name, kind in OBJECTIVES.items() if kind.uses_pairs is not Objective.uses_pairs
    ]
    name = name_of(objective)
    if name in known:
        return f"objective {name} needs more than the scores of a query's own documents, all that a cross-encoder has"
    return f"objective {name} needs vectors, which a cross-encoder has not: use one of {', '.join(sorted(known))}"


def check_instructions(data: TrainingData, model: ModelConfig) -> None:
    """Refuse instructions that the model does not define.

    Raises:
        ValueError: Naming the instruction.
    """
    known = model.instructions if isinstance(model, DenseConfig | CrossEncoderConfig) else {}
    for source in data.sources:
        if source.instruction is not None and source.instruction not in known:
            raise ValueError(
                f"data.sources name the instruction {source.instruction!r}, which is not one of "
                f"model.instructions ({', '.join(known) or 'none'})"
            )


def check_adapters(data: TrainingData, model: ModelConfig, trainer: TrainerConfig) -> None:
    """Refuse sources without an adapter where the model has several, and what cannot switch between them.

    Raises:
        ValueError: Saying what to change.
    """
    tasks = {} if model.lora is None else model.lora.adapters
    known = ", ".join(tasks) or "none"
    for source in data.sources:
        if (source.adapter in tasks) != bool(tasks) or (source.adapter and not tasks):
            raise ValueError(
                f"data.sources name the adapter {source.adapter!r}, and model.lora.adapters are: {known}"
            )
    if not tasks:
        return
    if model.kind != "dense":
        raise ValueError("several adapters are for dense models: drop model.lora.adapters")
    if trainer.strategy not in ("auto", "single", "ddp") or trainer.compile:
        raise ValueError("several adapters need trainer.strategy single or ddp, without compile")
    if trainer.gradient_checkpointing and any(x.query != x.document for x in tasks.values()):
        raise ValueError(
            "gradient_checkpointing computes layers again under the adapter of the other side: use rematerialize"
        )
