"""Chutes, their cords and selectors. Invariant: a version fixes image and code exactly."""

from dataclasses import dataclass
from typing import Any

from chutes_core.base.errors import Invalid
from chutes_core.base.gpus import GPU_CLASSES, GpuClass
from chutes_core.validator.domain.jobs import JobSpec


@dataclass(frozen=True)
class Selector:
    """Which GPUs a chute runs on; prices in millionths of a US dollar per hour and GPU."""

    gpu_count: int = 1
    min_vram_gb_per_gpu: int = 16
    max_hourly_price_usd_micros: int | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    def admissible(self) -> tuple[GpuClass, ...]:
        """Return the GPU classes that fit, cheapest first.

        Raises:
            Invalid: ``no_gpu_fits`` when none does.
        """
        fitting = [gpu for gpu in GPU_CLASSES.values() if self._fits(gpu)]
        if not fitting:
            raise Invalid(
                "no_gpu_fits",
                "no known GPU fits the node selector",
                hint="lower min_vram_gb_per_gpu, raise the price limit, or widen include",
            )
        return tuple(sorted(fitting, key=lambda gpu: (gpu.usd_micros_per_hour, gpu.short_name)))

    def _fits(self, gpu: GpuClass) -> bool:
        limit = self.max_hourly_price_usd_micros
        return (
            gpu.vram_gb >= self.min_vram_gb_per_gpu
            and (limit is None or gpu.usd_micros_per_hour <= limit)
            and (self.include is None or gpu.short_name in self.include)
            and gpu.short_name not in self.exclude
        )


@dataclass(frozen=True)
class Cord:
    """One function of a chute and how it is reached."""

    function: str
    path: str
    method: str
    public_api_path: str | None
    public_api_method: str | None
    stream: bool
    passthrough: bool = False
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    minimal_input_schema: dict[str, Any] | None = None
    output_content_type: str | None = None


@dataclass(frozen=True)
class Chute:
    """The current version of a chute."""

    chute_id: str
    version: str
    user_id: str
    username: str
    name: str
    slug: str
    tagline: str
    readme: str
    public: bool
    standard_template: str | None
    image_id: str
    filename: str
    ref_str: str
    code: str
    selector: Selector
    cords: tuple[Cord, ...]
    concurrency: int
    max_instances: int
    scaling_threshold_percent: int
    shutdown_after_s: int
    created_at_s: int
    updated_at_s: int
    shared_with: frozenset[str] = frozenset()
    deleted_at_s: int | None = None
    allow_external_egress: bool = False
    jobs: tuple[JobSpec, ...] = ()

    def job(self, name: str) -> JobSpec | None:
        """Return the job with this name, or None."""
        return next((job for job in self.jobs if job.name == name), None)
