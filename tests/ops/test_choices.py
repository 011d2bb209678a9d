"""What ``auto`` takes: by a table, by measured times, and what it says."""

from types import SimpleNamespace

import pytest
import torch

from embedtrain.ops import choices
from embedtrain.ops.choices import Measured, choose, keep, may_choose

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
HALF, LARGE = torch.bfloat16, 2**26


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDTRAIN_CACHE", str(tmp_path))
    choices._times.cache_clear()
    yield
    choices._times.cache_clear()


@pytest.fixture
def hopper(monkeypatch):
    """A device of compute capability 9.0 that is not there."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    found = SimpleNamespace(architecture=lambda device: 90)
    monkeypatch.setattr(choices, "import_module", lambda name: found)


@pytest.mark.parametrize(
    ("operation", "dtype", "dim", "scores", "backend"),
    [
        ("infonce", HALF, 384, LARGE, "fused"),
        ("infonce", HALF, 385, LARGE, "chunked"),
        ("infonce", HALF, 256, 2**20, "chunked"),
        ("infonce", torch.float32, 128, LARGE, "fused"),
        ("infonce", torch.float32, 256, LARGE, "chunked"),
        ("maxsim", HALF, 128, 100, "fused"),
        ("maxsim", HALF, 256, 100, "chunked"),
    ],
)
def test_the_table_prefers_kernels_where_its_rules_say(
    hopper, operation, dtype, dim, scores, backend
):
    assert choose(operation, CUDA, dtype, dim, scores).backend == backend


def test_an_architecture_that_nobody_checked_is_chunked(hopper, monkeypatch):
    unknown = SimpleNamespace(architecture=lambda device: None)
    monkeypatch.setattr(choices, "import_module", lambda name: unknown)
    assert choose("infonce", CUDA, HALF, 128, LARGE).backend == "chunked"


def test_measured_times_override_the_table(hopper):
    times = [
        Measured("infonce", "bf16", 128, 2**22, fused_seconds=2.0, chunked_seconds=1.0),
        Measured("infonce", "bf16", 128, 2**26, fused_seconds=1.0, chunked_seconds=2.0),
        Measured("infonce", "bf16", 768, 2**22, fused_seconds=1.0, chunked_seconds=2.0),
    ]
    keep(CUDA, times)

    def backend(dim: int, scores: int) -> str:
        choice = choose("infonce", CUDA, HALF, dim, scores)
        assert choice.reason == "measured on this machine"
        return choice.backend

    assert backend(128, 2**25) == "chunked"  # like 2**22, the largest that is not larger
    assert backend(100, 2**27) == "fused"
    assert backend(64, 1) == "chunked"  # like the smallest
    assert backend(300, 2**22) == "fused"
    assert choose("infonce", CUDA, HALF, 1024, 2**30).reason != "measured on this machine"
    assert choose("maxsim", CUDA, HALF, 128, 100).reason != "measured on this machine"


def test_times_of_one_device_leave_those_of_another(hopper, monkeypatch):
    slow = Measured("infonce", "bf16", 128, 1, fused_seconds=2.0, chunked_seconds=1.0)
    keep(CUDA, [slow])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another")
    assert choose("infonce", CUDA, HALF, 128, LARGE).backend == "fused"
    keep(CUDA, [slow])
    assert choose("infonce", CUDA, HALF, 128, LARGE).backend == "chunked"
    assert set(choices._read(choices.default_cache() / choices.FILE)) == {"a GPU", "another"}


GOOD = '{"operation": "infonce", "dtype": "bf16", "dim": 128, "scores": 1, "fused_seconds": %s, "chunked_seconds": 1.0}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"a GPU": {}}',
        f'{{"a GPU": [{GOOD % 0.0}]}}',
        f'{{"a GPU": [{GOOD % "NaN"}]}}',
        f'{{"a GPU": [{GOOD % "true"}]}}',
        '{"a GPU": [{"operation": "infonce"}]}',
    ],
)
def test_where_a_file_is_damaged_the_table_holds(hopper, content, tmp_path, caplog):
    path = tmp_path / choices.FILE
    path.write_text(content)
    assert choose("infonce", CUDA, HALF, 128, LARGE).reason != "measured on this machine"
    assert "holds no times of kernels" in caplog.text
    keep(CUDA, [Measured("infonce", "bf16", 128, 1, fused_seconds=2.0, chunked_seconds=1.0)])
    assert choose("infonce", CUDA, HALF, 128, LARGE).reason == "measured on this machine"


def test_a_cpu_has_nothing_to_choose_unless_triton_interprets(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not may_choose(CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert may_choose(CPU)
    assert choose("infonce", CPU, torch.float32, 16, LARGE).backend == "chunked"


def test_kernels_that_are_not_installed_are_no_choice(monkeypatch):
    choices._installed.cache_clear()
    monkeypatch.setattr(choices, "find_spec", lambda name: None if name == "triton" else name)
    assert not may_choose(CUDA)
    choices._installed.cache_clear()
    monkeypatch.setattr(choices, "find_spec", lambda name: name)
    assert may_choose(CUDA)
    choices._installed.cache_clear()


def test_a_choice_is_said_once(caplog):
    caplog.set_level("INFO", logger="embedtrain.ops.choices")
    choices.announce.cache_clear()
    for _ in range(2):
        choices.announce("infonce", choices.Choice("fused", "of a reason"))
    assert caplog.messages == ["infonce: backend auto is fused: of a reason"]
