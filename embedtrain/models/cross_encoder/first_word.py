r"""An encoder-decoder (T5) as a cross-encoder: the log-odds of the first word that it would answer.

The encoder reads the pair, the decoder is given its start token alone, and its one state $h$ is multiplied by two rows
of the output matrix: $s = c\,h^\top (E_{\text{yes}} - E_{\text{no}})$, where the family sets $c$ to 1 or to
$1 / \sqrt{\text{width}}$. $\log \sigma(s)$ is monoT5's score, the logarithm of the share of yes among both.

Source: Nogueira et al. (2020), monoT5, https://arxiv.org/abs/2003.06713.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embedtrain.contract.texts import Pooling
from embedtrain.errors import UserError
from embedtrain.models.dense.decoder_pooling import first_output
from embedtrain.packed import Texts


class FirstWordHead(nn.Module):
    """The decoder's first state times the difference of the answers' rows, in float32 at least.

    It owns no weights: decoder and matrix are the backbone's, which is the whole model, and are trained with it. Both
    rows are read anew each time, for a matrix that is also the table of words moves with every text.

    Args:
        whole: A ``...ForConditionalGeneration`` of transformers.
        answers: The entries of yes and no; without no the logit of yes is the score.
        start: The entry that an answer starts with.
    """

    pooling: Pooling = "last_token"
    """Of no meaning here: the decoder looks at all states."""

    def __init__(self, whole: Any, answers: tuple[int, ...], start: int) -> None:  # noqa: ANN401 - transformers is untyped
        super().__init__()
        self._whole = (whole,)  # as a module it would be named twice
        self.answers, self.start = answers, start
        self.scale = _scale(whole, start)

    def forward(
        self, states: Float[Tensor, "tokens width"], texts: Texts
    ) -> Float[Tensor, "texts 1"]:
        """Return the score of each text, given the encoder's states of its tokens."""
        state = first_output(self._whole[0].decoder, states, texts, self.start)
        with torch.autocast(state.device.type, enabled=False):
            return self.logits(state)

    def logits(self, state: Float[Tensor, "texts width"]) -> Float[Tensor, "texts 1"]:
        """Return the score of a text by the decoder's state."""
        matrix: Tensor = self._whole[0].get_output_embeddings().weight
        rows = matrix[list(self.answers)].to(state.dtype)
        yes, *no = rows.unbind()
        row = yes - no[0] if no else yes
        return self.scale * (state @ row[:, None])

    @contextmanager
    def returned(self, whole: Any) -> Iterator[None]:  # noqa: ANN401, ARG002 - as of classifiers
        """Nothing was taken out of the model."""
        yield


@torch.no_grad()
def _scale(whole: Any, start: int) -> float:  # noqa: ANN401 - transformers is untyped
    """Return what the decoder's state is multiplied by: it depends on family, config and version of transformers."""
    width = int(whole.config.d_model)
    matrix = whole.get_output_embeddings()
    states = torch.ones(1, 1, width, dtype=matrix.weight.dtype, device=matrix.weight.device)
    first = torch.full((1, 1), start, device=states.device)
    training = whole.training
    whole.eval()
    logits = whole(encoder_outputs=(states,), decoder_input_ids=first, use_cache=False).logits
    state = whole.decoder(
        input_ids=first, encoder_hidden_states=states, use_cache=False
    ).last_hidden_state
    whole.train(training)
    plain = matrix(state).flatten().double()
    ratio = float(logits.flatten().double() @ plain / (plain @ plain))
    usual: float = width**-0.5
    return min((1.0, usual), key=lambda one: abs(one - ratio))


def first_entry(tokenizer: Any, word: str, place: str) -> int:  # noqa: ANN401 - transformers is untyped
    """Return the entry of the vocabulary that an answer begins and ends with.

    Raises:
        UserError: If it is not one token, or is unknown to the tokenizer.
    """
    ids: list[int] = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            place, "is not one token of an answer", got=word, cure="Give another word"
        )  # fmt: skip
    return ids[0]
