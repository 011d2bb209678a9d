"""Nothing of a model folder runs, and none of its names leads out of it."""

import contextlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from embedtrain.encoding.cross_encoder import CrossEncoder
from embedtrain.encoding.pair_scorers import detect_kind
from embedtrain.errors import UserError
from embedtrain.models.backbone.loading import BackboneConfig, load_backbone
from embedtrain.models.backbone.lora import LoraConfig, save_adapter
from embedtrain.models.build import build_dense, load_encoder, save_dense
from embedtrain.models.dense.config import DenseConfig


class Folder:
    """A copy of a model, the mark that code of it would leave, and JSON files to change."""

    def __init__(self, model: str, place: Path) -> None:
        self.path = Path(shutil.copytree(model, place / "model"))
        self.mark = place / "code-ran"
        code = f"from pathlib import Path\nPath({str(self.mark)!r}).touch()\n"
        for name in ("evil", "modeling_evil", "tokenization_evil", "__init__"):
            (self.path / f"{name}.py").write_text(code + CLASSES)

    def change(self, name: str, **settings: object) -> None:
        path = self.path / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content | settings))

    def load(self) -> None:
        """Load it by each door; it may work, or be refused in a line."""
        for door in (load_encoder, CrossEncoder, detect_kind):
            try:
                door(str(self.path))
            except UserError as error:
                assert "\n" not in str(error)  # noqa: PT017 - it may also load
        assert not self.mark.exists(), "code of the folder ran"


CLASSES = """
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class Config(BertConfig): model_type = "evil"
class Model(BertModel): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def folder(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    monkeypatch.setattr("builtins.input", lambda _: "y")  # whoever asks gets a yes
    return Folder(bert, tmp_path)


CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": "evil.Tokenizer"}
AUTO_MAP = {"auto_map": CODE | {"AutoModelForSequenceClassification": "evil.Model"}}


@pytest.mark.parametrize("family", ["bert", "evil"])
def test_code_that_a_config_names_does_not_run(family, folder):
    folder.change("config.json", model_type=family, trust_remote_code=True, **AUTO_MAP)
    folder.load()


def test_the_mark_shows_code_that_the_user_asked_for(folder):
    folder.change("config.json", model_type="evil", **AUTO_MAP)
    with contextlib.suppress(UserError):
        load_backbone(str(folder.path), trust_remote_code=True)
    assert folder.mark.exists()


def test_code_that_a_nested_config_names_does_not_run(folder):
    inner = {"model_type": "evil", "trust_remote_code": True, "_name_or_path": str(folder.path)}
    nested = dict.fromkeys(("text_config", "encoder", "decoder"), inner | AUTO_MAP)
    folder.change("config.json", **nested)
    folder.load()
    for family in ("encoder-decoder", "vision-text-dual-encoder", "llava"):
        folder.change("config.json", model_type=family)
        folder.load()


@pytest.mark.parametrize("name", ["evil.Tokenizer", "../evil.Tokenizer", "Tokenizer", "os.system"])
def test_code_that_a_tokenizer_names_does_not_run(name, folder):
    auto = {"auto_map": {"AutoTokenizer": [None, name]}}
    folder.change("tokenizer_config.json", tokenizer_class=name, trust_remote_code=True, **auto)
    folder.change("config.json", tokenizer_class=name, trust_remote_code=True, **AUTO_MAP)
    folder.load()
    (folder.path / "tokenizer.json").unlink()
    folder.load()


def test_code_for_attention_is_not_fetched(folder):
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        folder.change("config.json", **{key: "evil/attention:run"})
        folder.load()


class Payload:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_is_refused_and_does_not_run(folder):
    torch.save({"weight": Payload(folder.mark)}, folder.path / "pytorch_model.bin")
    pickle.loads(pickle.dumps(Payload(folder.mark)))
    folder.mark.unlink()  # it would have left this
    folder.load()
    (folder.path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"a pickle, which can run code .*pytorch_model\.bin"):
        load_encoder(str(folder.path))
    folder.load()
    index = folder.path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": "pytorch_model.bin"}}))
    (folder.path / "x.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no shard of this folder"):
        load_encoder(str(folder.path))
    folder.load()


def test_heads_in_pickles_are_refused_and_do_not_run(folder, bert, tmp_path):
    own = tmp_path / "own"
    config = DenseConfig.model_validate(
        {"backbone": bert, "projection": 8, "attention_pooling": {"num_heads": 4}}
    )
    save_dense(build_dense(config), own)
    plain = tmp_path / "plain"
    save_dense(build_dense(DenseConfig(backbone=bert, projection=8)), plain)
    for path, words in (
        (plain / "2_Dense" / "model.safetensors", r"has no model\.safetensors"),
        (own / "attention_pooling.safetensors", r"attention_pooling\.safetensors is missing"),
    ):
        path.unlink()
        for name in ("pytorch_model.bin", f"{path.stem}.pt", f"{path.stem}.bin"):
            torch.save(Payload(folder.mark), path.with_name(name))
        model = path.parent if path.parent.name == "own" else plain
        with pytest.raises(UserError, match=words):
            load_encoder(str(model))
        torch.save(Payload(folder.mark), path)  # under the right name
        with pytest.raises(UserError, match="cannot be read"):
            load_encoder(str(model))
    assert not folder.mark.exists()


def test_a_checkpoint_from_outside_does_not_run(folder, tmp_path):
    from embedtrain.recipe.run_folder import RunFolder, latest_state

    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    state = {"state_dict": {}, "global_step": 1, "optimizer_states": [Payload(folder.mark)]}
    torch.save(state, run.checkpoints / "step-00000001.ckpt")
    with pytest.raises(UserError, match="damaged checkpoints only"):
        latest_state(run)
    assert not folder.mark.exists()


@pytest.mark.parametrize("kind", ["os.system", "evil.Model", "subprocess.Popen", "builtins.eval"])
def test_the_class_of_a_module_is_a_name_only(kind, folder):
    path = folder.path / "modules.json"
    path.write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    folder.load()
    with pytest.raises(UserError, match=f"no use for; got '{kind.rsplit('.', 1)[-1]}'"):
        load_encoder(str(folder.path))


@pytest.mark.parametrize("place", ["../outside", "{top}/outside", "link", "a/../../outside", "\0"])
@pytest.mark.parametrize("kind", ["Dense", "Pooling", "StaticEmbedding", "Normalize"])
def test_the_path_of_a_module_stays_in_the_folder(kind, place, folder, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(folder.path, outside)
    (folder.path / "link").symlink_to(outside)
    module = {"path": place.format(top=tmp_path), "type": f"sentence_transformers.models.{kind}"}
    (folder.path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(UserError, match="names a path outside the model folder"):
        load_encoder(str(folder.path))


@pytest.mark.parametrize("base", ["https://example.org/model", "../outside", "evil/model"])
def test_the_base_of_an_adapter_is_not_followed(base, folder, llama, tmp_path):
    config = LoraConfig(rank=2)
    adapted = load_backbone(llama, BackboneConfig(lora=config)).model
    save_adapter(adapted, config, base, tmp_path / "adapter")
    again = LoraConfig(rank=2, start=str(tmp_path / "adapter"))
    assert load_backbone(llama, BackboneConfig(lora=again)).path == llama
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, folder.path / name)
    with pytest.raises(UserError, match=f"holds an adapter beside its model .* got '{base}'"):
        load_encoder(str(folder.path))
    (folder.path / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json"):
        load_encoder(str(folder.path))
