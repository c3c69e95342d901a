"""From which registries a miner pulls, and what it shows them.

Path: a grant's ImageRef -> `access_to` -> engine/registry. A validator names the registry, so its
word alone must not lead the engine into this host's own network, nor carry the operator's
credentials anywhere. Invariant: user and password go to the registry that the operator named and to
no other; an address or a local name is dialled only where the operator named it, or on a devnet.
"""

import re
from dataclasses import dataclass, field

from chutes_core.base.errors import ProtocolError
from chutes_core.engine.registry import Access
from chutes_core.engine.registry_names import is_public_name
from chutes_core.wire.control import ImageRef

_REFERENCE = re.compile(r"([a-z0-9.-]+(?::[0-9]{1,5})?)(?:/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Registries:
    """What the operator allows.

    Args:
        own_host: ``host[:port]`` of the operator's choice, or empty.
        own: credentials for that one.
        any_host: a devnet: private addresses are fine.
    """

    own_host: str = ""
    own: Access = field(default_factory=Access)
    any_host: bool = False

    def access_to(self, image: ImageRef) -> Access:
        """Return what to show the image's registry.

        Raises:
            ProtocolError: ``bad_image_ref``, ``registry_not_allowed``.
        """
        found = _REFERENCE.fullmatch(image.registry_ref)
        host = found[1] if found else ""
        if not ("." in host or ":" in host):
            raise ProtocolError("bad_image_ref", "the image's name in its registry is none")
        if host == self.own_host and not image.token:
            return self.own
        if not (host == self.own_host or self.any_host or is_public_name(host.partition(":")[0])):
            raise ProtocolError(
                "registry_not_allowed",
                f"the validator's registry {host[:100]} is no public name",
                hint="CHUTES_MINER_REGISTRY names a private one that may be used",
            )
        return Access(token=image.token)
