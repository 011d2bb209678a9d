"""Models that several tests of parts start from."""

import pytest
import torch
from pretrain_parts import autoencoder

from embedtrain.models.pretraining.folder import save_masked_autoencoder


@pytest.fixture(scope="session")
def with_head(bert: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny BERT with the masked-language head that pre-training leaves."""
    folder = tmp_path_factory.mktemp("dupmae")
    model = autoencoder(bert, "dupmae")
    torch.nn.init.normal_(model.language.bias)
    save_masked_autoencoder(model, folder, with_head=True)
    return str(folder)
