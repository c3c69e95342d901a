"""Every bound of the gateway in one frozen object. Invariant: nothing there is unbounded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GatewayLimits:
    """Defaults fit one host; validator/settings.py passes what the operator set.

    Attributes:
        max_calls: answered at once (429 above).
        max_body_bytes: of one request body (413 above).
        max_buffered_bytes: of all request bodies held at once (429 above).
        body_timeout_s: for a request body to arrive.
        connect_timeout_s: to dial an instance through its relay and agree on keys.
        first_byte_timeout_s: from the call sent to the head of the answer.
        idle_timeout_s: between two frames of an answer, or while the caller reads nothing.
        max_call_s: of one call; the time that its hold pays for may be shorter.
        max_attempts: instances tried for one call.
        cold_wait_s: a caller waits so long for a first instance (503 afterwards).
        max_waiting_per_chute, max_waiting: callers who wait at once (429 above).
        key_calls_per_s, key_burst: token bucket of each API key.
        max_websockets_per_key: open at once (429 above).
        max_idle_per_instance, idle_connection_s: of the pool of sealed connections.
    """

    max_calls: int = 4096
    max_body_bytes: int = 20 * 1024 * 1024
    max_buffered_bytes: int = 512 * 1024 * 1024
    body_timeout_s: float = 60.0
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 300.0
    idle_timeout_s: float = 120.0
    max_call_s: float = 3600.0
    max_attempts: int = 3
    cold_wait_s: float = 30.0
    max_waiting_per_chute: int = 64
    max_waiting: int = 1024
    key_calls_per_s: int = 50
    key_burst: int = 200
    max_websockets_per_key: int = 64
    max_idle_per_instance: int = 32
    idle_connection_s: float = 60.0
