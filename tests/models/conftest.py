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


@pytest.fixture(scope="session", autouse=True)
def quick_exports(forked_reloads: object) -> None:
    """Some tests here export: to reload each in a process of its own would take seconds."""
