"""Weigh the means of a pre-training loss, so that the mean over ranks is the mean over all labels."""

from dataclasses import replace

import torch

from embedtrain.pretrain_types import PretrainOutputs
from embedtrain.training.ranks.gather import gather_numbers, is_distributed


def weigh_by_labels(outputs: PretrainOutputs) -> PretrainOutputs:
    r"""Give each part of the outputs the weight $W n_r / \sum_s n_s$ of this rank's $n_r$ labels or texts.

    The parts of one loss differ: a rank may hold many masked tokens and few texts. One message of a few
    numbers.
    """
    if not is_distributed():
        return outputs
    labelled = {"encoder": outputs.encoder}
    if outputs.decoder is not None:
        labelled["decoder"] = outputs.decoder
    if outputs.generator is not None:
        labelled["generator"] = outputs.generator.labelled
    counts = [len(outputs.vectors), *(len(part.labels) for part in labelled.values())]
    everyone = gather_numbers(counts, outputs.vectors.device).cpu()
    weights = (
        len(everyone) * torch.tensor(counts, dtype=torch.float64) / everyone.sum(0).clamp_min(1)
    )
    of_texts, *of_labels = weights.tolist()
    parts = {
        name: replace(part, weight=weight)
        for (name, part), weight in zip(labelled.items(), of_labels, strict=True)
    }
    return replace(
        outputs,
        encoder=parts["encoder"],
        decoder=parts.get("decoder"),
        shuffled=outputs.shuffled and replace(outputs.shuffled, weight=parts["decoder"].weight),
        words=outputs.words and replace(outputs.words, weight=of_texts),
        generator=outputs.generator and replace(outputs.generator, labelled=parts["generator"]),
    )
