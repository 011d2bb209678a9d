"""Where a text's own tokens begin and end among those that a model is shown."""

from typing import Any


def special_ends(tokenizer: Any, prompt: str) -> tuple[int, int]:  # noqa: ANN401 - transformers is untyped
    """Return how many tokens stand before and behind a text: special ones and those of the prompt."""
    found = tokenizer(
        f"{prompt}a", return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    text = [
        place
        for place, (_, end) in enumerate(found["offset_mapping"])
        if end > len(prompt) and not found["special_tokens_mask"][place]
    ]
    return text[0], len(found["input_ids"]) - text[-1] - 1
