"""Golden vectors of the arithmetic and of one whole challenge; the selftest compares with them.

Where on its path: `python -m graval selftest`, a prover that wants to know whether its device
computes right, and the tests. Invariant: these values change only with `graval.VERSION`, because
both ends of a challenge must agree on every bit. The values were made by `graval.prf` and checked
against an implementation in plain Python integers (tests/unit/graval/test_graval_prf.py).
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from graval import prf
from graval.challenge import DeviceInfo, SeedContext
from graval.errors import GravalError
from graval.profile import PROFILES, Profile
from graval.prover.backend import Backend
from graval.prover.prove import run_chain
from graval.verifier import Challenge, build_challenge

SEED = bytes(range(32))
KEY = bytes(range(32, 64))
SECRET = bytes(range(64, 96))
ROWS = 2048
"""Of the whole challenge; its own, so that a profile's size is no part of the arithmetic."""
INDICES = (0, 1, 1023, 65_537, 84_000_000, (1 << 32) - 1)

GOLDEN: dict[str, str] = {
    "mix": "961ce7f5",
    "rows of 2 layers": "85054de362eb59cb9002f029197a5c41",
    "tags of 2 layers": "46d0751c9254b17df2cc6756520747bc",
    "key after 2 layers": "423193edf197578d7f9201b3e36fdfed4d6e5133162686e044c45b52e028d15f",
    "rows of 8 layers": "b96e2dd7f6e0417a5ace35d17406b9a9",
    "tags of 8 layers": "f90da5288a2e1163d8efc599156c75ba",
    "key after 8 layers": "087c8325382f99a2fdb4136baeb811152cc5392b65024063978c5444457d9946",
    "rows of 16 layers": "1fe015c3cdc92595ee0ef608bfdf2e32",
    "tags of 16 layers": "93406f2ce37cb868c661dfc4ea592a90",
    "key after 16 layers": "8709f6b0b774315d2e95c9d7a1ccff2f7d18f195e6881d5b07f4f22447fd40d0",
    "leg 1": "59cca5924c0df29be21b4d7cbcc6eefd",
    "leg 2": "ee7af86252f9a801f1b3678fc1defce2",
    "answer 1": "89f7f051abeda98ac995f747688597588aa2fb5e348a083c0f6b729abe8d37d7",
    "answer 2": "029b689a47eb632d4174b78d2a90850c6d1339e2e334f1bc968291ae160cda65",
}


@dataclass(frozen=True)
class Outcome:
    """One comparison of the selftest."""

    name: str
    ok: bool
    detail: str = ""


def vectors() -> dict[str, str]:
    """Recompute every golden value on this machine's CPU."""
    values = {"mix": prf.mix(np.asarray([0x12345678], dtype=np.uint32)).tobytes().hex()}
    for layers in (2, 8, 16):
        rows = prf.RowFunction(prf.fill_key(SEED, layers)).rows(INDICES)
        tags = prf.row_tags(prf.query(KEY, 1), rows)
        values[f"rows of {layers} layers"] = _digest(rows.tobytes())
        values[f"tags of {layers} layers"] = _digest(prf.tags_to_bytes(tags))
        values[f"key after {layers} layers"] = prf.next_key(KEY, INDICES, rows).hex()
    challenge = golden_challenge(PROFILES["test"], ROWS)
    values["leg 1"] = _digest(challenge.leg1.to_bytes())
    values["leg 2"] = _digest(challenge.leg2.to_bytes())
    values["answer 1"] = challenge.expected1.hex()
    values["answer 2"] = challenge.expected2.hex()
    return values


def golden_challenge(profile: Profile, rows: int | None = None) -> Challenge:
    """The fixed challenge of a profile; rows default to those of a fill of fixed size."""
    device = DeviceInfo("h100_sxm", "golden", "GPU-golden", 85 << 30, 132, "9.0")
    context = SeedContext(
        nonce=SEED,
        validator_hotkey="validator",
        miner_hotkey="miner",
        instance_id="instance",
        node_id="node",
        instance_public_key=KEY,
        gpu_index=0,
        gpu_count=1,
        device=device,
        profile_name=profile.name,
        rows=profile.rows(device.memory_bytes) if rows is None else rows,
        time_s=1_800_000_000,
    )
    return build_challenge(context, profile, secret=SECRET)


def check_cpu() -> list[Outcome]:
    """Compare this machine's CPU with the golden vectors."""
    computed = vectors()
    names = sorted(GOLDEN | computed)
    return [Outcome(name, computed.get(name) == GOLDEN.get(name)) for name in names]


def check_backend(name: str, device: Backend, rows: int) -> list[Outcome]:
    """Fill and scan on a device for every profile, and compare with the CPU's answers.

    Args:
        name: of the backend, for the outcomes.
        device: opened, warm or not.
        rows: how many rows to fill, at least 24.
    """
    outcomes = []
    try:
        device.warm_up()
        for profile in PROFILES.values():
            challenge = golden_challenge(profile, rows)
            device.fill(challenge.leg1.seed, challenge.leg1.layers, rows)
            answers = tuple(
                prf.answer_digest(
                    run_chain(device, leg.key, leg.tags), challenge.leg1.seed, leg.to_bytes()
                )
                for leg in (challenge.leg1, challenge.leg2)
            )
            ok = answers == (challenge.expected1, challenge.expected2)
            outcomes.append(Outcome(f"{name}: answers of profile {profile.name}", ok))
        device.release()
    except GravalError as error:
        outcomes.append(Outcome(name, ok=False, detail=str(error)))
    return outcomes


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
