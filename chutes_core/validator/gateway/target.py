"""Which requests are invocations: exactly four forms, told apart by Host, path and method.

Path: first step of front; what is none of the four goes to the control plane. Invariant: pure, and
`target_of` alone decides; the four forms are those of docs/architecture/03-protocols.md (Users).
"""

import re
from dataclasses import dataclass
from typing import Literal

Form = Literal["slug", "model", "models", "cord"]

_CORD_CALL = re.compile(
    r"/chutes/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(/.+)"
)
RESERVED_LABELS = frozenset(("api", "www"))


@dataclass(frozen=True)
class Target:
    """What a request names: a chute (slug or id; empty where the body's model says) and a path."""

    form: Form
    chute: str
    path: str


def target_of(method: str, path: str, host: str, domain: str | None) -> Target | None:
    """Return what a request invokes, or None where it is the control plane's.

    Args:
        method: in upper case.
        path: decoded.
        host: the Host header, with or without a port.
        domain: slugs are its subdomains; None where the operator has no wildcard name.
    """
    slug = _slug_of(host, domain)
    if slug:
        return Target("slug", slug, path)
    if path.startswith("/c/"):
        slug, _, rest = path[len("/c/") :].partition("/")
        return Target("slug", slug, f"/{rest}")
    if path.startswith("/v1/"):
        form: Form = "models" if path == "/v1/models" and method == "GET" else "model"
        return Target(form, "", path)
    if method == "POST" and (call := _CORD_CALL.fullmatch(path)):
        return Target("cord", call[1], call[2])
    return None


def _slug_of(host: str, domain: str | None) -> str:
    if not domain:
        return ""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    label, dot, parent = name.lower().rstrip(".").partition(".")
    if not dot or parent != domain.lower() or label in RESERVED_LABELS:
        return ""
    return label
