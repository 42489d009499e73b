"""The devices that the planner knows, from their vendors' data sheets.

FLOP/s are dense, without sparsity. Links inside a node count one way (NVLink's and Infinity Fabric's totals are
both ways); between nodes there is one adapter a device, as in the vendors' reference nodes. The shares that are
reached (``ReachedConfig``) are fitted a generation at a time: docs/plan.md says to what, and how well they do on
rows that were left out.
"""

from __future__ import annotations

from megarc.plan.device import DeviceConfig, LinkConfig, ReachedConfig

_VOLTA = ReachedConfig(product=0.68, attention=0.32, memory=0.8)
_AMPERE = ReachedConfig(product=0.70, attention=0.41, memory=0.92)
# cudnn: of FlashAttention 3's published comparison (2407.08608, figures 5 and 6; head_dim 128, causal, 1k to 8k rows),
# where cuDNN ran at 1.57 to 1.63 times FlashAttention 2's rate, forward and backward.
_HOPPER = ReachedConfig(product=0.54, attention=0.25, memory=0.88, fp8=0.58, cudnn=1.6)
_BLACKWELL = ReachedConfig(product=0.60, attention=0.47, memory=0.90, fp8=0.536)
_INSTINCT = ReachedConfig(product=0.50, attention=0.30, memory=0.7, fp8=0.35)

_NVLINK2, _NVLINK3, _NVLINK4, _NVLINK5 = (
    LinkConfig(bandwidth=rate, latency=4e-6) for rate in (150e9, 300e9, 450e9, 900e9)
)
_PCIE4, _PCIE5 = (LinkConfig(bandwidth=rate, latency=8e-6) for rate in (32e9, 64e9))
_XGMI = LinkConfig(bandwidth=448e9, latency=6e-6)
_EDR, _HDR, _NDR = (LinkConfig(bandwidth=rate, latency=8e-6) for rate in (12.5e9, 25e9, 50e9))


def _device(name: str, memory_gib: float, bf16: float, fp32: float, bandwidth: float, units: int, inside: LinkConfig,
            between: LinkConfig, reached: ReachedConfig, **more: float | int) -> DeviceConfig:  # fmt: skip
    return DeviceConfig(
        name=name, memory_gib=memory_gib, bf16=bf16, fp32=fp32, bandwidth=bandwidth, units=units, inside=inside,
        between=between, reached=reached, tile_seconds=2e-6, operator_seconds=4e-6, **more,  # type: ignore[arg-type]
    )  # fmt: skip


KNOWN: dict[str, DeviceConfig] = {
    device.name: device
    for device in (
        # Volta has no bf16: its fp16 rate stands in its place.
        _device("v100-16g", 15.8, 125e12, 15.7e12, 0.9e12, 80, _NVLINK2, _EDR, _VOLTA, host=13e9),
        _device("v100-32g", 31.7, 125e12, 15.7e12, 0.9e12, 80, _NVLINK2, _EDR, _VOLTA, host=13e9),
        _device("a100-40g", 39.4, 312e12, 156e12, 1.555e12, 108, _NVLINK3, _HDR, _AMPERE),
        _device("a100-80g", 79.2, 312e12, 156e12, 2.039e12, 108, _NVLINK3, _HDR, _AMPERE),
        _device("h100-80g", 79.2, 989e12, 495e12, 3.35e12, 132, _NVLINK4, _NDR, _HOPPER, fp8=1979e12, host=50e9),
        # torchtitan's: SXM at 500 W with HBM2e; the tensor cores' clock falls with the power, as on the NVL card.
        _device("h100-500w", 94.5, 835e12, 418e12, 2.4e12, 132, _NVLINK4, _NDR, _HOPPER, fp8=1671e12, host=50e9),
        _device("h100-pcie", 79.2, 756e12, 378e12, 2.0e12, 114, _PCIE5, _NDR, _HOPPER, fp8=1513e12, host=50e9),
        _device("h200", 139.8, 989e12, 495e12, 4.8e12, 132, _NVLINK4, _NDR, _HOPPER, fp8=1979e12, host=50e9),
        _device("b200", 178.0, 2250e12, 1125e12, 8.0e12, 148, _NVLINK5, _NDR, _BLACKWELL, fp8=4500e12, host=50e9),
        # A GB200 is a B200 of more power; its NVLink domain has 72 GPUs.
        _device("gb200", 184.0, 2500e12, 1250e12, 8.0e12, 148, _NVLINK5, _NDR, _BLACKWELL, fp8=5000e12, host=200e9,
                node=72),
        _device("mi300x", 191.0, 1307e12, 654e12, 5.3e12, 304, _XGMI, _NDR, _INSTINCT, fp8=2615e12, host=50e9),
        DeviceConfig(
            name="cpu", kind="cpu", memory_gib=8, reserved_gib=0.5, bf16=2e10, fp32=1e11, bandwidth=1e10,
            operator_seconds=5e-6, node=64, inside=LinkConfig(bandwidth=1.5e9, latency=1e-4),
            between=LinkConfig(bandwidth=1.2e9, latency=2e-4), host=1e10, host_bandwidth=1e10,
            reached=ReachedConfig(product=0.7, attention=0.3, memory=0.6),
        ),
    )
}  # fmt: skip
ALSO = {
    "v100": "v100-32g", "v100-sxm": "v100-32g", "a100": "a100-80g", "a100-sxm": "a100-80g", "a100-80gb": "a100-80g",
    "a100-40gb": "a100-40g", "h100": "h100-80g", "h100-80gb": "h100-80g", "h100-sxm": "h100-80g",
    "h100-sxm5": "h100-80g", "h100-pcie-80g": "h100-pcie", "h200-sxm": "h200", "h200-141g": "h200",
    "b200-sxm": "b200", "b200-180g": "b200", "gb200-nvl72": "gb200", "mi300": "mi300x", "mi300x-192g": "mi300x",
}  # fmt: skip
"""Other names under which people know them."""
