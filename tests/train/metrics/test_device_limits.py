import pytest
import torch

from megarc.train.metrics.device_limits import peak_flops


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),  # a seventh of a card
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", None),
    ],
)
def test_a_gpu_is_known_by_its_whole_name_or_not_at_all(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), "bf16") == peak
    assert peak_flops(torch.device("cuda"), "fp32") == (peak and peak / 2)


def test_a_cpu_is_measured():
    assert peak_flops(torch.device("cpu"), "fp32") > 1e8
