"""A local chain that speaks Substrate JSON-RPC with the real Subtensor metadata.

Runs on a developer's machine and in CI as ``python -m chutes_core.devnet``. Protocol-faithful:
signatures, nonces, eras, fees, errors, events and storage layout are those of Subtensor's runtime
spec 461, so that the unmodified bittensor SDK and substrate-interface work on it. Not
consensus-faithful: one author, no trie roots, a simplified epoch, TAO and alpha trade one to one.

Genesis marker, which decides everywhere what counts as a devnet: header 0 has the parent hash
0x00..00 and the state root blake2b-256(b"chutes-devnet/1"), and the genesis hash is the
blake2b-256 of the SCALE-encoded header 0 (parent hash, compact number, state root, extrinsics
root, digest). A real chain cannot show such a header 0. The extrinsics root of header 0 is the
hash of the metadata and the genesis parameters, so each configuration has its own genesis hash.
"""
