"""What pre-training costs: masks, memory of a RetroMAE step, and time beside plain MLM.

    python scripts/benchmark_pretraining.py --json pretraining.json

(a) Masks of RetroMAE for texts of 512 tokens (one for the encoder, one for each token of the decoder) against
a Python loop over tokens that reads the same random numbers; both must draw the same masks. (b) Peak memory
of a RetroMAE step against the same step with the logits of all tokens written out, as the published code
does; both losses must agree. A process of its own for each, one thread, medians of interleaved runs.
(c) CPU time of a RetroMAE and a DupMAE step over one of MLM on the same texts. The encoder of (b) and (c) has
random weights, 4 layers of 256, and BERT's vocabulary of 30,522.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from benchmark_measure import in_subprocess, measure_step
from exit_codes import run_main
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertForMaskedLM

from embedtrain.contract.texts import Contract
from embedtrain.data.pretraining.masking import Words, corrupt, mask_words, mask_words_independently
from embedtrain.models.backbone.language_head import MaskedLanguageModel
from embedtrain.models.chunking import Execution
from embedtrain.models.pretraining.decoding import DecoderConfig
from embedtrain.models.pretraining.masked_autoencoder import MaskedAutoencoder
from embedtrain.objectives.pretrain import PRETRAIN_OBJECTIVES
from embedtrain.packed import Texts
from embedtrain.pretrain_types import Labelled, MaskedBatch, PretrainOutputs

VOCABULARY = 30_522
CLS, SEP, MASK = 101, 102, 103
FIRST_WORD = 1000
WHOLE = Execution(1_000_000)
RATIOS = {"encoder": 0.3, "decoder": 0.5}


def random_texts(num_texts: int, length: int, seed: int = 0) -> tuple[Texts, torch.Tensor]:
    """Return texts of random words of one to four tokens, and where words begin."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST_WORD, VOCABULARY, (num_texts, length), generator=generator)
    starts = torch.rand(num_texts, length, generator=generator) < 0.7
    ids[:, 0], ids[:, -1] = CLS, SEP
    texts = Texts(ids.flatten(), torch.full((num_texts,), length))
    return texts, starts.flatten()


def masks_at_once(
    texts: Texts, starts: torch.Tensor, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the encoder's mask and each decoder token's, for all texts at once."""
    generator = torch.Generator().manual_seed(seed)
    words = Words.find(texts, starts, texts.ids < FIRST_WORD)
    encoder = mask_words(words, RATIOS["encoder"], generator)[:, 0]
    longest = int(texts.lengths.max())
    decoder = mask_words_independently(words, RATIOS["decoder"], generator, num_draws=longest)
    return encoder, decoder


def masks_by_loop(
    texts: Texts, starts: torch.Tensor, seed: int
) -> tuple[list[bool], list[list[bool]]]:
    """Draw the same masks from the same random numbers, token by token."""
    generator = torch.Generator().manual_seed(seed)
    words, of_text = words_by_loop(texts, starts)
    keys, lots = (
        torch.rand(1, len(words), generator=generator, dtype=torch.float64)[0].tolist()
        for _ in range(2)
    )
    encoder = [False] * len(texts.ids)
    for own in of_text:
        budget, before = RATIOS["encoder"] * sum(len(words[word]) for word in own), 0
        for word in sorted(own, key=lambda word: keys[word]):
            if before == 0 or before + lots[word] * len(words[word]) < budget:
                for token in words[word]:
                    encoder[token] = True
            before += len(words[word])
    longest = int(texts.lengths.max())
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    drawn = random.integers(0, 2**16, size=(len(words), longest), dtype=np.uint16).tolist()
    limit = round(RATIOS["decoder"] * 2**16)
    decoder = [[False] * longest for _ in range(len(texts.ids))]
    for tokens, row in zip(words, drawn, strict=True):
        for token in tokens:
            hidden = decoder[token]
            for draw in range(longest):
                hidden[draw] = row[draw] < limit
    return encoder, decoder


def words_by_loop(texts: Texts, starts: torch.Tensor) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens of each word, and the words of each text."""
    words: list[list[int]] = []
    of_text: list[list[int]] = []
    place = 0
    ids, begins = texts.ids.tolist(), starts.tolist()
    for length in texts.lengths.tolist():
        own: list[int] = []
        for token in range(place, place + length):
            if ids[token] < FIRST_WORD:
                continue
            if begins[token] or not own:
                own.append(len(words))
                words.append([])
            words[-1].append(token)
        of_text.append(own)
        place += length
    return words, of_text


def measure_masks(num_texts: int, repeats: int) -> dict[str, float]:
    """Time both ways of drawing masks; they must agree."""
    texts, starts = random_texts(num_texts, 512)
    masks_at_once(texts, starts, 0)
    seconds: dict[str, list[float]] = {"at_once": [], "loop": []}
    for seed in range(repeats):
        begin = time.process_time()
        fast = masks_at_once(texts, starts, seed)
        middle = time.process_time()
        slow = masks_by_loop(texts, starts, seed)
        end = time.process_time()
        assert fast[0].tolist() == slow[0], "the encoder's masks differ"
        assert fast[1].tolist() == slow[1], "the decoder's masks differ"
        seconds["at_once"].append((middle - begin) / num_texts)
        seconds["loop"].append((end - middle) / num_texts)
    return {name: median(values) for name, values in seconds.items()}


def build(objective: str) -> tuple[MaskedAutoencoder, MaskedBatch]:
    """Build the model and a batch of 32 texts of 128 tokens."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )

    class NoTokenizer:
        pad_token_id = 0

        def num_special_tokens_to_add(self) -> int:
            return 0

    language = MaskedLanguageModel(
        BertForMaskedLM._from_config(config, attn_implementation="sdpa"),  # noqa: SLF001
        NoTokenizer(),
        "random",
    )
    contract = Contract(
        pooling="cls",
        similarity="cosine",
        query_prompt="",
        document_prompt="",
        query_length=128,
        document_length=128,
    )
    chosen = PRETRAIN_OBJECTIVES[objective]()
    model = MaskedAutoencoder(language, contract, chosen.computation, DecoderConfig())
    texts, starts = random_texts(32, 128)
    return model.train(), masked(texts, starts, by_position=chosen.masking.by_position)


def masked(texts: Texts, starts: torch.Tensor, *, by_position: bool) -> MaskedBatch:
    """Mask texts as the data do."""
    generator = torch.Generator().manual_seed(0)
    special = texts.ids < FIRST_WORD
    encoder_masked, draws = masks_at_once(texts, starts, 0)
    places = torch.arange(int(texts.lengths.max())).repeat(len(texts))
    nothing = torch.zeros(len(texts.ids), 0, dtype=torch.bool)
    ordinary = torch.arange(FIRST_WORD, VOCABULARY)
    return MaskedBatch(
        texts=texts,
        special=special,
        encoder_ids=corrupt(texts.ids, encoder_masked, MASK, ordinary, generator),
        encoder_masked=encoder_masked,
        decoder_ids=texts.ids,
        decoder_masked=torch.zeros_like(special),
        decoder_draws=draws if by_position else nothing,
        decoder_picks=places,
        partners=torch.arange(len(texts)),
    )


def loss_with_all_logits(model: MaskedAutoencoder, batch: MaskedBatch) -> torch.Tensor:
    """Compute RetroMAE's loss with the logits of every token, labelled or not, as the published code does."""
    everything = torch.ones_like(batch.special)
    # The model looks at these two only to see which states to give; the masked ids stay.
    asked = replace(batch, encoder_masked=everything, special=~everything)
    outputs: PretrainOutputs = model(asked, WHOLE)

    def loss(part: Labelled, wanted: torch.Tensor) -> torch.Tensor:
        logits = F.linear(part.hidden, outputs.weight, outputs.bias)
        return F.cross_entropy(logits, part.labels.masked_fill(~wanted, -100))

    assert outputs.decoder is not None
    return loss(outputs.encoder, batch.encoder_masked) + loss(outputs.decoder, ~batch.special)


def measure_one(variant: str) -> None:
    """Print the cost of one step as JSON; runs in a process of its own."""
    small = torch.randn(64, 64, requires_grad=True)
    (small @ small).sum().backward()
    model, batch = build("retromae" if variant == "all_logits" else variant)
    result: dict[str, float] = {}

    def run() -> None:
        if variant == "all_logits":
            loss = loss_with_all_logits(model, batch)
        else:
            loss = PRETRAIN_OBJECTIVES[variant]()(model(batch, WHOLE)).loss
        loss.backward()
        result["loss"] = loss.item()

    model.encoder.packs(batch.texts)  # the check of packing is not part of a step
    cost = measure_step(run)
    print(json.dumps(cost._asdict() | result))


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=int, default=8, help="texts to mask at once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        measure_one(arguments.one)
        return
    masks = measure_masks(arguments.texts, arguments.repeats)
    variants = ("mlm", "retromae", "dupmae", "all_logits")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(arguments.repeats):
        for name in variants:
            runs[name].append(in_subprocess(Path(__file__), ["--one", name]))
    seconds, peaks, losses = (
        {name: median(run[key] for run in runs[name]) for name in variants}
        for key in ("cpu_seconds", "peak_mib", "loss")
    )
    assert abs(losses["retromae"] / losses["all_logits"] - 1) < 1e-4, losses
    figures = {
        "masking_speedup": masks["loop"] / masks["at_once"],
        "retromae_memory_ratio": peaks["retromae"] / peaks["all_logits"],
        "retromae_time_over_mlm": seconds["retromae"] / seconds["mlm"],
        "dupmae_time_over_mlm": seconds["dupmae"] / seconds["mlm"],
        "masking_seconds_per_text": masks["at_once"],
        "masking_loop_seconds_per_text": masks["loop"],
        **{f"{name}_peak_mib": peaks[name] for name in variants},
        **{f"{name}_step_seconds": seconds[name] for name in variants},
    }
    table = Table("Figure", "Value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
