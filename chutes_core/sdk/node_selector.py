"""NodeSelector: which GPUs a chute asks for.

Invariant: what a chute file says stands here as it is, names of unknown GPUs too, as in the public
SDK (shared/PUBLIC_API, Chute files); a deployment goes through `check`, which admits only
selectors that a GPU class of base/gpus.py fits. Unknown arguments are ignored.
"""

from pydantic import BaseModel, ConfigDict, Field

from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES


class NodeSelector(BaseModel):
    """How many GPUs an instance needs, and of which classes.

    Args:
        gpu_count: GPUs of one instance, 1 to 8.
        min_vram_gb_per_gpu: memory of each GPU in GB, 16 to 140.
        max_hourly_price_per_gpu: highest list price in USD per hour and GPU, or None.
        include: short names of the only classes that may serve, or None.
        exclude: short names of classes that may not serve, or None.

    >>> NodeSelector(gpu_count=1, min_vram_gb_per_gpu=140).supported_gpus
    ('b200', 'h200')
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    gpu_count: int = Field(default=1, ge=1, le=8)
    min_vram_gb_per_gpu: int = Field(default=16, ge=16, le=140)
    max_hourly_price_per_gpu: float | None = Field(default=None, gt=0)
    include: list[str] | None = None
    exclude: list[str] | None = None

    @property
    def supported_gpus(self) -> tuple[str, ...]:
        """Return the short names of the classes that fit, in order of name."""
        return tuple(sorted(name for name in GPU_CLASSES if self._admits(name)))

    def check(self) -> None:
        """Check that it names known GPUs and that one fits; every deployment does.

        Raises:
            Invalid: ``unknown_gpu`` for a name that is not in the GPU table, ``no_gpu_fits``.
        """
        for name in [*(self.include or ()), *(self.exclude or ())]:
            if name not in GPU_CLASSES:
                raise Invalid(
                    "unknown_gpu",
                    f"{name!r} is no known GPU class",
                    hint=f"known: {', '.join(sorted(GPU_CLASSES))}",
                )
        if not self.supported_gpus:
            raise Invalid(
                "no_gpu_fits",
                "no known GPU fits the node selector",
                hint="lower min_vram_gb_per_gpu, raise the price limit, or widen include",
            )

    def _admits(self, name: str) -> bool:
        gpu = GPU_CLASSES[name]
        limit = self.max_hourly_price_per_gpu
        return (
            gpu.vram_gb >= self.min_vram_gb_per_gpu
            and (limit is None or gpu.usd_micros_per_hour <= round(limit * 1_000_000))
            and (self.include is None or name in self.include)
            and name not in (self.exclude or ())
        )
