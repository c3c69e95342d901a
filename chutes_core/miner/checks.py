"""What a miner refuses to start with, each with its code. Pure, so that every refusal is tested.

Invariant: nothing that only a devnet may have (stand-in GPUs, the process runtime, a coldkey
beside the hotkey, a private axon address) gets past here on any other chain.
"""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from chutes_core.base.errors import Forbidden, Invalid
from chutes_core.miner.gpus import Device
from chutes_core.miner.settings import MinerSettings

DEVNET_IP = "127.0.0.1"


class BundleManifest(BaseModel):
    """What a prover bundle's manifest.json says that matters here."""

    model_config = ConfigDict(frozen=True)  # its other fields are for people

    backend: str
    least_driver: str = ""


def check_bundle(bundle: Path | None, devices: Sequence[Device]) -> None:
    """Check that a prover bundle can run on this host's GPUs; one without a manifest is not judged.

    Raises:
        Invalid: ``bad_graval_home`` or ``driver_too_old``.
    """
    manifest = None if bundle is None else bundle / "manifest.json"
    if manifest is None or not manifest.exists() or not devices:
        return
    try:
        says = BundleManifest.model_validate_json(manifest.read_bytes())
        least = _version(says.least_driver)
    except (ValidationError, ValueError) as error:
        raise Invalid(
            "bad_graval_home",
            f"{manifest} is no prover bundle's manifest: {error}",
            hint="build the bundle anew with scripts/build_prover_bundle.py",
        ) from error
    if says.backend != "cuda":
        raise Invalid(
            "bad_graval_home",
            f"the prover bundle {bundle} is for stand-ins, and this host has GPUs",
            hint="build one with --backend cuda",
        )
    for device in devices:
        if device.driver and _version(device.driver) < least:
            raise Invalid(
                "driver_too_old",
                f"the prover bundle needs driver {says.least_driver}, this host has"
                f" {device.driver}",
                hint="update the NVIDIA driver, or use a bundle of an older CUDA",
            )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part)


def check_chain(settings: MinerSettings, *, is_devnet: bool) -> None:
    """Check what only a devnet may have.

    Raises:
        Forbidden: ``devnet_only``, naming the setting.
    """
    if is_devnet:
        return
    chosen = {
        "declare_gpu": bool(settings.declared_gpus),
        "runtime=process": settings.runtime == "process",
        "allow_coldkey": settings.allow_coldkey,
    }
    for name, on in chosen.items():
        if on:
            raise Forbidden(
                "devnet_only",
                f"{name} is accepted on a devnet only, and {settings.chain_url} is none",
                hint="unset it; or use the chain URL of a devnet",
            )


def axon_ip(settings: MinerSettings, *, is_devnet: bool) -> str:
    """Return the address to announce.

    Raises:
        Invalid: ``external_ip_required`` or ``bad_external_ip``.
    """
    text = settings.external_ip or (DEVNET_IP if is_devnet else "")
    if not text:
        raise Invalid(
            "external_ip_required",
            "validators dial this miner by its announced address, and none is set",
            hint="set CHUTES_MINER_EXTERNAL_IP to the host's public address",
        )
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Invalid("bad_external_ip", f"{text!r} is not an IP address") from error
    if not is_devnet and not address.is_global:
        raise Invalid("bad_external_ip", f"{address} is not a public address")
    return str(address)
