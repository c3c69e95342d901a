"""Where a neuron can be reached: its axon and prometheus endpoints.

Invariant: only a registered hotkey serves, on a valid address, not more often than the subnet
allows. The real chain refuses loopback and private addresses; here a switch of the devnet allows
them, since all its neurons live on one machine.
"""

import ipaddress

from chutes_core.devnet.dispatch import Call, Context, Handler, ModuleFailure, Origin
from chutes_core.devnet.pallets.subtensor import neurons
from chutes_core.devnet.pallets.subtensor.neurons import PALLET
from chutes_core.devnet.scale import Reader, octets

MAX_CERTIFICATE_BYTES = 65  # algorithm byte and public key

_AXON_FIELDS = ("version", "ip", "port", "ip_type", "protocol", "placeholder1", "placeholder2")
_CERTIFICATE_AT = 2 + 2 + 4 + 16 + 2 + 1 + 1 + 1 + 1  # call index, then the fields before it
_PROMETHEUS_FIELDS = ("version", "ip", "port", "ip_type")


def serve_axon(context: Context, origin: Origin, call: Call) -> None:
    """Publish the signer's axon endpoint on a subnet."""
    _serve(context, origin.signed(), call, item="Axons", fields=_AXON_FIELDS)


def serve_prometheus(context: Context, origin: Origin, call: Call) -> None:
    """Publish the signer's prometheus endpoint on a subnet."""
    _serve(context, origin.signed(), call, item="Prometheus", fields=_PROMETHEUS_FIELDS)


def serve_axon_tls(context: Context, origin: Origin, call: Call) -> None:
    """Publish an axon endpoint together with the certificate that it speaks TLS with."""
    hotkey, netuid = origin.signed(), int(call.args["netuid"])
    _serve(context, hotkey, call, item="Axons", fields=_AXON_FIELDS)
    certificate = Reader(call.data, _CERTIFICATE_AT).octets()
    if 1 < len(certificate) <= MAX_CERTIFICATE_BYTES:  # others are dropped, as on the chain
        value = octets(certificate[1:]) + certificate[:1]
        context.state.put_raw(PALLET, "NeuronCertificates", netuid, hotkey, value)


def _serve(
    context: Context, hotkey: str, call: Call, *, item: str, fields: tuple[str, ...]
) -> None:
    state, netuid = context.state, int(call.args["netuid"])
    if neurons.uid_of(state, netuid, hotkey) is None:
        raise ModuleFailure(PALLET, "HotKeyNotRegisteredInNetwork")
    _check_address(
        int(call.args["ip_type"]), int(call.args["ip"]), allow_private=context.allow_private_axons
    )
    previous = state.get(PALLET, item, netuid, hotkey)
    limit = int(state.get(PALLET, "ServingRateLimit", netuid))
    if previous is not None and context.block - int(previous["block"]) < limit:
        raise ModuleFailure(PALLET, "ServingRateLimitExceeded")
    if int(call.args["port"]) == 0:
        raise ModuleFailure(PALLET, "InvalidPort")
    record = {"block": context.block, **{name: int(call.args[name]) for name in fields}}
    state.put(PALLET, item, netuid, hotkey, record)
    event = "AxonServed" if item == "Axons" else "PrometheusServed"
    context.events.deposit(PALLET, event, (netuid, hotkey))


def _check_address(ip_type: int, ip: int, *, allow_private: bool) -> None:
    if ip_type not in {4, 6}:
        raise ModuleFailure(PALLET, "InvalidIpType")
    try:
        address = ipaddress.IPv4Address(ip) if ip_type == 4 else ipaddress.IPv6Address(ip)
    except ValueError as error:
        raise ModuleFailure(PALLET, "InvalidIpAddress") from error
    unusable = address.is_unspecified or address.is_multicast or ip == (1 << 32) - 1
    if unusable or not (allow_private or address.is_global):
        raise ModuleFailure(PALLET, "InvalidIpAddress")


CALLS: dict[str, Handler] = {
    "serve_axon": serve_axon,
    "serve_axon_tls": serve_axon_tls,
    "serve_prometheus": serve_prometheus,
}
