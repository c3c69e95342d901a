"""Ids as the public client computes them (shared/PUBLIC_API: Ids). Invariant: pure functions."""

import re
import uuid

NAME_PATTERN = r"^[a-z0-9][a-z0-9-_.]*$"
MAX_SLUG_LENGTH = 58


def image_id(username: str, name: str, tag: str) -> str:
    """Return the uuid5 of an image, from its lower-cased full name.

    >>> image_id("bob", "app", "1")
    '0b4deb3d-0ead-507e-8786-df31b4a8999b'
    """
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{username}/{name}:{tag}".lower()))


def chute_id(username: str, name: str) -> str:
    """Return the uuid5 of a chute, from its owner and name as they are written.

    >>> chute_id("bob", "App") == chute_id("bob", "app")
    False
    """
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{username}::chute::{name}"))


def chute_version(image_id: str, code: str) -> str:
    """Return the uuid5 of one version of a chute: the image and the exact code text."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{image_id}:{code}"))


def slug(username: str, chute_name: str) -> str:
    """Return the DNS label under which a chute is served, before it is made unique.

    >>> slug("Bob", "My_Chute.v2")
    'bob-my-chute-v2'
    """
    label = re.sub(r"[^a-z0-9]+", "-", f"{username}-{chute_name}".lower()).strip("-")
    return label[:MAX_SLUG_LENGTH].rstrip("-")


def new_id() -> str:
    """Return a fresh random uuid4, for records that have no natural name."""
    return str(uuid.uuid4())
