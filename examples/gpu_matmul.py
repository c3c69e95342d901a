"""A chute that really uses its GPU: one bf16 matrix product, timed, with the device's name."""

from typing import Any

from chutes.chute import Chute, NodeSelector
from chutes.image import Image

image = Image(username="demo", name="gpu_matmul", tag="1.0").from_base("parachutes/python:3.12")

chute = Chute(
    username="demo",
    name="gpu_matmul",
    image=image,
    tagline="One matrix product on a GPU",
    node_selector=NodeSelector(gpu_count=1, min_vram_gb_per_gpu=16),
)


@chute.on_startup()
async def begin(self: Any) -> None:
    """Take the device and warm it up."""
    import torch  # the base image has it; the machine that deploys this file need not

    self.torch = torch
    self.a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    (self.a @ self.a).sum().item()


@chute.cord(public_api_path="/matmul")
async def matmul(self: Any, times: int = 10) -> dict[str, Any]:
    """Multiply and say on what, how fast, and with how much memory free."""
    torch = self.torch
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begun.record()
    product = self.a
    for _ in range(max(1, min(times, 1000))):
        product = self.a @ self.a
    ended.record()
    torch.cuda.synchronize()
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return {
        "device": torch.cuda.get_device_name(),
        "visible": torch.cuda.device_count(),
        "ms": begun.elapsed_time(ended),
        "checksum": float(product.float().abs().mean()),
        "free_bytes": free_bytes,
        "total_bytes": total_bytes,
    }
