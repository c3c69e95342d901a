"""What a chute file amounts to, as JSON: the body of a deployment, and the report of `inspect`.

Invariant: both are pure functions of the chute and its source text; nothing is pickled, and the
same file gives the same document everywhere.
"""

from typing import Any

from chutes_core.base import ids
from chutes_core.sdk.chute import Chute
from chutes_core.sdk.image import Image
from chutes_core.sdk.loader import ChuteSource


def deploy_body(
    chute: Chute, source: ChuteSource, *, public: bool, logo_id: str | None = None
) -> dict[str, Any]:
    """Return the JSON of POST /chutes/ (shared/PUBLIC_API, Calls).

    Raises:
        Invalid: ``unknown_gpu`` or ``no_gpu_fits``.
    """
    chute.node_selector.check()
    return {
        "name": chute.name,
        **_options(chute),
        "logo_id": logo_id,
        "image": chute.image_ref,
        "public": public,
        "node_selector": chute.node_selector.model_dump(),
        "filename": source.filename,
        "ref_str": source.ref_str,
        "code": source.code,
        "cords": [cord.to_api() for cord in chute.cords],
        "jobs": [job.to_api() for job in chute.jobs],
    }


def inspection(chute: Chute, source: ChuteSource) -> dict[str, Any]:
    """Return everything that can be known of a chute without a server."""
    image_id = chute.image_id
    image = chute.image if isinstance(chute.image, Image) else None
    return {
        "username": chute.username,
        "name": chute.name,
        "chute_id": chute.chute_id,
        "version": ids.chute_version(image_id, source.code),
        "slug": ids.slug(chute.username, chute.name),
        "image": {
            "image_id": image_id,
            "name": chute.image_ref,
            "dockerfile": str(image) if image else None,
            "adds": [added.source for added in image.added] if image else [],
        },
        "node_selector": chute.node_selector.model_dump(),
        "supported_gpus": list(chute.node_selector.supported_gpus),
        **_options(chute),
        "filename": source.filename,
        "ref_str": source.ref_str,
        "cords": [cord.to_api() for cord in chute.cords],
        "jobs": [job.to_api() for job in chute.jobs],
    }


def _options(chute: Chute) -> dict[str, Any]:
    return {
        "tagline": chute.tagline,
        "readme": chute.readme,
        "standard_template": chute.standard_template,
        "concurrency": chute.concurrency,
        "max_instances": chute.max_instances,
        "scaling_threshold": chute.scaling_threshold,
        "shutdown_after_seconds": chute.shutdown_after_seconds,
        "allow_external_egress": chute.allow_external_egress,
        "encrypted_fs": chute.encrypted_fs,
        "tee": chute.tee,
        "lock_modules": chute.lock_modules,
        "revision": chute.revision,
    }
