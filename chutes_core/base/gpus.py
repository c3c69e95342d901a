"""The GPU table: short names, memory and price per hour.

Figures are those of the public price list (autumn 2025; shared/PUBLIC_API, GPU table). Prices are
integers in millionths of a US dollar. Which *device strings* belong to a class, and what a class
can compute, is graval's knowledge (graval/gpus.py), not this table's.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuClass:
    """One class of GPU as users select and pay for it."""

    short_name: str
    vram_gb: int
    usd_micros_per_hour: int


def _table(rows: str) -> dict[str, GpuClass]:
    table = {}
    for row in rows.split(";"):
        name, vram_gb, cents = row.split()
        table[name] = GpuClass(name, int(vram_gb), int(cents) * 10_000)
    return table


GPU_CLASSES: dict[str, GpuClass] = _table(
    "3090 24 25;4090 24 40;5090 32 70;a4000 16 20;a4000_ada 20 21;a5000 24 25;a6000 48 50;"
    "a6000_ada 48 75;pro_6000 96 180;l4 24 25;a10 24 25;a40 48 50;l40 48 55;l40s 48 85;"
    "a100_40gb 40 110;a100_40gb_sxm 40 115;a100 80 120;a100_sxm 80 125;h100 80 179;"
    "h100_nvl 96 225;h100_sxm 80 235;h800 80 150;h20 96 60;h200 140 275;b200 192 450"
)
