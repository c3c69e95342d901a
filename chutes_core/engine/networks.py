"""The two networks of a miner's instances: one inside, one with a way out.

`inside` is internal (the engine routes nothing out of it) and is how the relay reaches an instance.
`outside` masquerades to the world; an instance is on it while its start-up hooks run, or for good
where its chute may. Neither lets containers talk to each other. What the engine itself leaves open,
above all new connections to the host, is closed by `firewall`. Invariant: a network of ours is
recognised by its labels and bridge name alone, so that a killed miner finds it again.
"""

import hashlib
import ipaddress
from dataclasses import dataclass

from docker import DockerClient
from docker.models.networks import Network as EngineNetwork

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.engine.failures import explained

OWNER_LABEL = "chutes.miner"
_BRIDGE_NAME = "com.docker.network.bridge.name"
_NO_TRAFFIC_BETWEEN = {"com.docker.network.bridge.enable_icc": "false"}


@dataclass(frozen=True)
class Network:
    """One bridge network: engine name, bridge interface, IPv4 subnet and the host's address."""

    name: str
    bridge: str
    subnet: str
    gateway: str


@dataclass(frozen=True)
class Networks:
    """Both networks of one miner."""

    inside: Network
    outside: Network


def ensure_networks(client: DockerClient, owner: str) -> Networks:
    """Return the miner's networks, made where they are missing.

    Args:
        client: of the engine.
        owner: what tells this miner from others on the same engine (its hotkey).

    Raises:
        ChutesError: the engine refuses, or a network of that name is not what it has to be.
    """
    return Networks(
        _ensure(client, owner, kind="inside", internal=True),
        _ensure(client, owner, kind="outside", internal=False),
    )


def networks_stand(client: DockerClient, networks: Networks) -> bool:
    """Tell whether the engine still has both networks.

    Raises:
        ChutesError: the engine does not answer.
    """
    names = {networks.inside.name, networks.outside.name}
    with explained("list networks"):
        return names <= {str(network.name) for network in client.networks.list()}


def remove_networks(client: DockerClient, owner: str) -> bool:
    """Remove the miner's networks; False where one stays because a container still uses it.

    Raises:
        ChutesError: the engine does not answer.
    """
    gone = True
    with explained("list networks"):
        found = client.networks.list(filters={"label": f"{OWNER_LABEL}={owner}"})
    for network in found:
        try:
            with explained("remove a network"):
                network.remove()
        except NotFound:
            continue
        except Conflict:
            gone = False
    return gone


def connect(client: DockerClient, network: Network, container_id: str) -> None:
    """Put a container on a network too.

    Raises:
        ChutesError: the engine refuses.
    """
    with explained("connect a container to a network"):
        client.api.connect_container_to_network(container_id, network.name)


def disconnect(client: DockerClient, network: Network, container_id: str) -> None:
    """Take a container off a network; its open connections over it are cut.

    Raises:
        ChutesError: the engine refuses.
    """
    with explained("disconnect a container from a network"):
        client.api.disconnect_container_from_network(container_id, network.name, force=True)


def _ensure(client: DockerClient, owner: str, *, kind: str, internal: bool) -> Network:
    mark = hashlib.sha256(owner.encode()).hexdigest()
    name = f"chutes-{mark[:10]}-{kind}"
    bridge = f"ch{kind[0]}-{mark[:10]}"  # the kernel allows 15 characters
    with explained("look for a network"):
        found = client.networks.list(names=[f"^{name}$"])
    if not found:
        with explained("create a network"):
            client.networks.create(
                name,
                driver="bridge",
                internal=internal,
                options={**_NO_TRAFFIC_BETWEEN, _BRIDGE_NAME: bridge},
                labels={OWNER_LABEL: owner},
                check_duplicate=True,
            )
    with explained("read a network"):
        network = client.networks.get(name)
    return _checked(network, owner, bridge, internal=internal)


def _checked(network: EngineNetwork, owner: str, bridge: str, *, internal: bool) -> Network:
    attrs = network.attrs
    options = attrs.get("Options") or {}
    config = (attrs.get("IPAM", {}).get("Config") or [{}])[0]
    wanted = {**_NO_TRAFFIC_BETWEEN, _BRIDGE_NAME: bridge}
    same = (
        attrs.get("Internal") is internal
        and not attrs.get("EnableIPv6")
        and all(options.get(key) == value for key, value in wanted.items())
        and (attrs.get("Labels") or {}).get(OWNER_LABEL) == owner
        and config.get("Subnet")
    )
    if not same:
        raise Conflict(
            "foreign_network",
            f"a Docker network named {network.name} exists and is not as this miner makes it",
            hint=f"remove it: docker network rm {network.name}",
        )
    subnet = ipaddress.ip_network(config["Subnet"])
    gateway = str(config.get("Gateway") or subnet[1]).partition("/")[0]
    return Network(str(network.name), bridge, str(subnet), gateway)
