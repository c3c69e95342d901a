"""Names and versions that a node tells about itself.

Invariant: the spec name and the token are Subtensor's, so that clients take the chain for one.
"""

from typing import Any

from chutes_core.devnet.metadata import Metadata

SPEC_NAME = "node-subtensor"
CHAIN_NAME = "Chutes Devnet"
NODE_NAME = "chutes-devnet"
NODE_VERSION = "0.1.0"
PROPERTIES = {"ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO", "isEthereum": False}


def runtime_version_json(metadata: Metadata) -> dict[str, Any]:
    """Return what state_getRuntimeVersion answers."""
    return {
        "specName": SPEC_NAME,
        "implName": SPEC_NAME,
        "authoringVersion": 1,
        "specVersion": metadata.spec_version,
        "implVersion": 1,
        "apis": [],
        "transactionVersion": metadata.transaction_version,
        "stateVersion": 1,
    }
