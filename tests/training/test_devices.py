import pytest
import torch

from embedtrain.errors import UserError
from embedtrain.training.devices import (
    DEVICES,
    device_of_key,
    device_of_name,
    product_type,
    this_device,
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10G", None),  # another chip at another clock
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),  # a part of a device
        ("Tesla T4", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_a_device_is_known_by_its_whole_name_or_not_at_all(name, key):
    found = device_of_name(name)
    assert (found and found.key) == key


def test_every_row_has_a_source_and_rates_that_agree():
    for one in DEVICES:
        assert one.source.startswith("https://")
        assert one.bf16 / one.tf32 == pytest.approx(2, rel=0.05)
        assert one.fp32 <= one.tf32
    assert len({one.key for one in DEVICES}) == len(DEVICES)


def test_a_key_that_is_unknown_names_the_others():
    assert device_of_key("H100").peak("bf16") == 989e12
    with pytest.raises(UserError, match="Use one of b200, h200"):
        device_of_key("h1000")


def test_a_cpu_has_no_peak_and_float32_is_what_torch_may_do():
    assert this_device(torch.device("cpu")) is None
    assert product_type("bf16") == "bf16"
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    try:
        for chosen, product in (("tf32", "tf32"), ("ieee", "fp32")):
            settings.fp32_precision = chosen
            assert product_type("fp32") == product
    finally:
        settings.fp32_precision = before
