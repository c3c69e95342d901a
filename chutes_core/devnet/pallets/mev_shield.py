"""MevShield: the author announces a key, users submit extrinsics encrypted to it.

Invariant: NextKey holds a key whose secret `shield` still has. Opening and including the inner
extrinsic is the executor's work, since it becomes an extrinsic of its own.
"""

from chutes_core.devnet.codec import blake2_256
from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.scale import Reader

PUBLIC_KEY_BYTES = 1_184

_CALL_INDEX_BYTES = 2


def announce_next_key(context: Context, origin: Origin, call: Call) -> None:
    """Publish the key to encrypt to from now on (inherent)."""
    origin.inherent()
    key = announced_key(call)
    if key is None or len(key) != PUBLIC_KEY_BYTES:
        raise ModuleFailure("MevShield", "BadEncKeyLen")
    previous = context.state.raw("MevShield", "NextKey")
    if previous is not None:
        context.state.put_raw("MevShield", "CurrentKey", previous)
    context.state.put("MevShield", "NextKey", key)


def submit_encrypted(context: Context, origin: Origin, call: Call) -> None:
    """Carry an encrypted extrinsic; its identity is the hash of the ciphertext."""
    who = origin.signed()
    identity = "0x" + blake2_256(ciphertext(call)).hex()
    context.events.deposit("MevShield", "EncryptedSubmitted", {"id": identity, "who": who})


def ciphertext(call: Call) -> bytes:
    """Return the exact ciphertext of a submit_encrypted call."""
    return Reader(call.data, _CALL_INDEX_BYTES).octets()


def announced_key(call: Call) -> bytes | None:
    """Return the key of an announce_next_key call, None when it announces none."""
    reader = Reader(call.data, _CALL_INDEX_BYTES)
    return reader.octets() if reader.u8() else None


CALLS: dict[str, Handler] = {
    "announce_next_key": announce_next_key,
    "submit_encrypted": submit_encrypted,
}
