"""Training steps on a shadow device, as Lightning's loop runs them."""

from types import SimpleNamespace

import torch
from pretrain_parts import autoencoder, masked_batch, objective_of
from shadow import ShadowCuda
from shadow_rules import Step

from embedtrain.models.build import build_encoder
from embedtrain.models.dense.config import DenseConfig
from embedtrain.models.late_interaction.config import LateInteractionConfig
from embedtrain.objectives.info_nce import InfoNCE
from embedtrain.packed import Texts
from embedtrain.training.module import RetrievalModule
from embedtrain.training.pretraining import PretrainModule
from embedtrain.training.settings import TrainerConfig
from embedtrain.types import Relevance, RetrievalBatch

QUERIES, DOCUMENTS, LENGTH = 4, 8, 24


def random_texts(count, shortest, longest, generator):
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator)
    ids = torch.randint(5, 190, (int(lengths.sum()),), generator=generator)
    return Texts(ids, lengths)


def random_batch(seed=0, *, alike=False):
    """Four queries, a positive and a negative each; two candidates are the same text, all ``alike`` in length."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.arange(QUERIES), torch.arange(DOCUMENTS)
    texts = columns.clamp_max(DOCUMENTS - 2)
    relevance = Relevance(rows + 100, texts, columns // 2, 2 * rows[:, None], 2 * rows[:, None])
    return RetrievalBatch(
        random_texts(QUERIES, 12 if alike else 4, 12, generator),
        random_texts(DOCUMENTS - 1, LENGTH if alike else 5, LENGTH, generator),
        rows,
        texts,
        relevance,
    )


def module_of(backbone, kind, *, objective=None, model=None, **trainer):
    """A module to train on a CPU, to be moved."""
    config = DenseConfig if kind == "dense" else LateInteractionConfig
    sides = {"query": {"length": 16}, "document": {"length": LENGTH}}
    torch.manual_seed(0)
    encoder = build_encoder(config(kind=kind, backbone=backbone, **sides, **(model or {})), "cpu")
    settings = {"steps": 10, "batch_size": QUERIES * trainer.get("accumulate", 1), "log_every": 100}
    settings |= {"accelerator": "cpu", "gradient_clip": 0.0} | trainer
    objective = objective or InfoNCE(temperature=0.05 if kind == "dense" else 1.0)
    return RetrievalModule(encoder.train(), [objective], TrainerConfig(**settings), 10)


def pretrain_module_of(backbone, objective, **trainer):
    """A module to pre-train, and what gives its batches."""
    config = {"steps": 10, "batch_size": 6, "log_every": 100, "accelerator": "cpu"}
    settings = TrainerConfig(**config | {"gradient_clip": 1.0} | trainer)
    chosen = objective_of(objective)
    model = autoencoder(backbone, objective).train()

    def batch(seed):
        return masked_batch(chosen.masking, [12, 5, 9, 16, 7, 12], seed=seed)

    return PretrainModule(model, chosen, settings, 10), batch


def run_steps(shadow: ShadowCuda, module, batch=random_batch, count=2) -> list[Step]:
    """Move a module to the device, do ``count`` optimizer steps there and return what each micro-batch did."""
    shadow.move(module)
    optimizer = module.configure_optimizers()["optimizer"]
    trainer = SimpleNamespace(optimizers=[optimizer], loggers=[], default_root_dir=".")
    trainer.global_step = 1
    module._trainer = trainer
    found, accumulate = [], module.config.accumulate
    for number in range(count * accumulate):
        with shadow.step() as step:
            loss = module.training_step(batch(number).to("cuda"), number)
            (loss / accumulate).backward()
            if (number + 1) % accumulate == 0:
                module.configure_gradient_clipping(optimizer, module.config.gradient_clip)
                optimizer.step()
                optimizer.zero_grad()
            module.refuse_bad_loss()
        trainer.global_step += (number + 1) % accumulate == 0
        found.append(step)
    return found
