"""Names and versions that a node tells about itself.

Invariant: the spec name and the token are Subtensor's, so that clients take the chain for one; a
version holds from its block on and never changes for an older one.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

SPEC_NAME = "node-subtensor"
CHAIN_NAME = "Chutes Devnet"
NODE_NAME = "chutes-devnet"
NODE_VERSION = "0.1.0"
PROPERTIES = {"ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO", "isEthereum": False}


@dataclass(frozen=True)
class RuntimeVersion:
    """The two numbers that every signature binds.

    Args:
        spec: of the runtime.
        transaction: of the extrinsic format.
    """

    spec: int
    transaction: int


class VersionHistory:
    """Which runtime version each block was made with.

    Args:
        first: the version from block 0 on.
    """

    def __init__(self, first: RuntimeVersion) -> None:
        self._from = [0]
        self._versions = [first]

    def at(self, block: int) -> RuntimeVersion:
        """Return the version of a block, the next one included."""
        return self._versions[bisect_right(self._from, block) - 1]

    def change(self, block: int, version: RuntimeVersion) -> None:
        """Let a version hold from ``block`` on."""
        position = bisect_right(self._from, block - 1)
        self._from[position:] = [block]
        self._versions[position:] = [version]

    def rows(self) -> list[tuple[int, int, int]]:
        """Return (from block, spec, transaction) of each change, the first version included."""
        pairs = zip(self._from, self._versions, strict=True)
        return [(start, version.spec, version.transaction) for start, version in pairs]


def runtime_version_json(version: RuntimeVersion) -> dict[str, Any]:
    """Return what state_getRuntimeVersion answers."""
    return {
        "specName": SPEC_NAME,
        "implName": SPEC_NAME,
        "authoringVersion": 1,
        "specVersion": version.spec,
        "implVersion": 1,
        "apis": [],
        "transactionVersion": version.transaction,
        "stateVersion": 1,
    }
