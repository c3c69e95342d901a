"""Records as JSON of the public API (shared/PUBLIC_API, Calls).

Invariant: no secret and no hash of one is shown; amounts of TAO are integers of rao or exact
decimal texts, and only prices in US dollars, which are no money here, are JSON numbers.
"""

import json
import uuid
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from chutes_core.base.gpus import GpuClass
from chutes_core.base.units import USD_MICROS_PER_USD, format_tao
from chutes_core.validator.billing.rates import Rates
from chutes_core.validator.domain.accounts import DEVELOPER, FREE, Account, ApiKey
from chutes_core.validator.domain.chutes import Chute, Cord, Selector
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.store.chutes import ChuteVersion
from chutes_core.validator.store.database import Store
from chutes_core.validator.store.ledger import Line

Json = dict[str, Any]
_BITS = {DEVELOPER: 1, FREE: 2}
_PROVEN = (LaunchState.VERIFIED, LaunchState.STARTING, LaunchState.ACTIVE, LaunchState.DRAINING)


def when(at_s: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    return None if at_s is None else datetime.fromtimestamp(at_s, timezone.utc).isoformat()


def account_view(account: Account) -> Json:
    """Return a user as it sees itself."""
    return {
        "user_id": account.user_id,
        "username": account.username,
        "hotkey": account.hotkey_ss58,
        "coldkey": account.coldkey_ss58,
        "payment_address": account.payment_address,
        "deposit_address": account.deposit_address,
        "created_at": when(account.created_at_s),
    }


def me_view(account: Account, balance_rao: int) -> Json:
    """Return a user with rights and balance."""
    return account_view(account) | {
        "permissions_bitmask": sum(bit for role, bit in _BITS.items() if role in account.roles),
        "permissions": sorted(account.roles),
        "balance": format_tao(balance_rao),
        "balance_rao": balance_rao,
    }


def key_view(key: ApiKey) -> Json:
    """Return an API key without its secret."""
    return {
        "api_key_id": key.key_id,
        "user_id": key.user_id,
        "name": key.name,
        "admin": key.admin,
        "created_at": when(key.created_at_s),
        "last_used_at": when(key.last_used_at_s),
        "expires_at": when(key.expires_at_s),
        "budget_rao": key.budget_rao,
        "spent_rao": key.spent_rao,
        "calls_per_minute": key.calls_per_minute,
        "scopes": [
            {"object_type": s.object_type, "object_id": s.object_id, "action": s.action}
            for s in key.scopes
        ],
    }


def line_view(line: Line) -> Json:
    """Return one line of a statement."""
    return {
        "entry_id": line.entry_id,
        "key": line.key,
        "kind": line.kind,
        "at": when(line.at_s),
        "rao": line.rao,
        "tao": format_tao(line.rao),
    }


def image_view(image: Image) -> Json:
    """Return an image."""
    return {
        "image_id": image.image_id,
        "name": image.name,
        "tag": image.tag,
        "readme": image.readme,
        "public": image.public,
        "status": image.status,
        "error": _failure_view(image),
        "created_at": when(image.created_at_s),
        "build_started_at": when(image.build_started_at_s),
        "build_completed_at": when(image.build_completed_at_s),
        "user": {"user_id": image.user_id, "username": image.username},
        "logo_id": None,
        "patch_version": "initial",
    }


def _failure_view(image: Image) -> Json | None:
    """Return why a build failed; `status` holds the text, with the last lines of its log."""
    if image.state != "error":
        return None
    return {"code": image.error_code, "hint": image.error_hint}


def cord_view(cord: Cord) -> Json:
    """Return a cord."""
    return {
        "function": cord.function,
        "path": cord.path,
        "method": cord.method,
        "public_api_path": cord.public_api_path,
        "public_api_method": cord.public_api_method or "POST",
        "stream": cord.stream,
        "passthrough": cord.passthrough,
        "input_schema": cord.input_schema,
        "output_schema": cord.output_schema,
        "minimal_input_schema": cord.minimal_input_schema,
        "output_content_type": cord.output_content_type,
    }


def cords_view(chute: Chute) -> list[Json]:
    """Return all cords of a chute."""
    return [cord_view(cord) for cord in chute.cords]


def jobs_view(chute: Chute) -> list[Json]:
    """Return all jobs of a chute, as they were declared."""
    return [
        {
            "name": job.name,
            "timeout": job.timeout_s,
            "upload": job.upload,
            "ports": [asdict(port) for port in job.ports],
        }
        for job in chute.jobs
    ]


def cord_ref_id(chute: Chute) -> str:
    """Return an id of the chute's cords: equal cords, equal id."""
    text = json.dumps(cords_view(chute), sort_keys=True)
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"cords:{text}"))


def selector_view(selector: Selector) -> Json:
    """Return a node selector."""
    limit = selector.max_hourly_price_usd_micros
    return {
        "gpu_count": selector.gpu_count,
        "min_vram_gb_per_gpu": selector.min_vram_gb_per_gpu,
        "max_hourly_price_per_gpu": None if limit is None else limit / USD_MICROS_PER_USD,
        "include": None if selector.include is None else list(selector.include),
        "exclude": list(selector.exclude),
    }


def price_view(selector: Selector, rates: Rates) -> Json:
    """Return what an hour of one instance costs."""
    rao = rates.rao_per_hour(selector)
    return {
        "usd": {"hour": rates.usd_micros_per_hour(selector) / USD_MICROS_PER_USD},
        "tao": {"hour": format_tao(rao)},
        "rao": {"hour": rao},
    }


def gpu_view(gpu: GpuClass) -> Json:
    """Return a GPU of the price list."""
    return {
        "name": gpu.short_name,
        "vram_gb": gpu.vram_gb,
        "usd_per_hour": gpu.usd_micros_per_hour / USD_MICROS_PER_USD,
    }


def chute_view(chute: Chute, store: Store, rates: Rates) -> Json:
    """Return a chute with its image and instances; reads the store."""
    image = store.images.get(chute.image_id)
    launches = store.launches.open_of_chute(chute.chute_id)
    return {
        "chute_id": chute.chute_id,
        "name": chute.name,
        "logo_id": store.logos.shown_on(chute.chute_id),
        "tagline": chute.tagline,
        "readme": chute.readme,
        "public": chute.public,
        "version": chute.version,
        "slug": chute.slug,
        "standard_template": chute.standard_template,
        "cord_ref_id": cord_ref_id(chute),
        "filename": chute.filename,
        "ref_str": chute.ref_str,
        "concurrency": chute.concurrency,
        "max_instances": chute.max_instances,
        "shutdown_after_seconds": chute.shutdown_after_s,
        "allow_external_egress": chute.allow_external_egress,
        "created_at": when(chute.created_at_s),
        "updated_at": when(chute.updated_at_s),
        "image": None if image is None else image_view(image),
        "user": {"user_id": chute.user_id, "username": chute.username},
        "supported_gpus": [gpu.short_name for gpu in chute.selector.admissible()],
        "node_selector": selector_view(chute.selector),
        "invocation_count": store.invocations.count_of_chute(chute.chute_id),
        "current_estimated_price": price_view(chute.selector, rates),
        "instances": [_instance_view(launch, store) for launch in launches],
        "hot": any(launch.state is LaunchState.ACTIVE for launch in launches),
    }


def version_view(version: ChuteVersion, chute: Chute) -> Json:
    """Return one version of a chute, its code too."""
    return {
        "version": version.version,
        "current": version.version == chute.version,
        "image_id": version.image_id,
        "filename": version.filename,
        "ref_str": version.ref_str,
        "code": version.code,
        "created_at": when(version.created_at_s),
    }


def _instance_view(launch: Launch, store: Store) -> Json:
    proof = store.proofs.get(launch.proof_id) if launch.proof_id else None
    return {
        "instance_id": launch.launch_id,
        "active": launch.state is LaunchState.ACTIVE,
        "verified": launch.state in _PROVEN,
        "state": launch.state.value,
        "region": "n/a",
        "miner_hotkey": launch.miner_hotkey,
        "gpu": launch.gpu_class,
        "version": launch.version,
        "last_verified_at": when(proof.at_s) if proof is not None and proof.accepted else None,
        "test": launch.stand_in or (proof is not None and proof.test),
    }
