"""The picture beside an image or chute: a file that is uploaded, or the id of one that was.

Invariant: what names a file that is there is that file; everything else is an id.
"""

from pathlib import Path

from chutes_core.sdk.client import ApiClient

_TYPE = "application/octet-stream"  # the validator looks at the bytes


def resolve(client: ApiClient, logo: str | None) -> str | None:
    """Return the id of a logo; a file is uploaded first."""
    if logo is None or not Path(logo).is_file():
        return logo
    path = Path(logo)
    answer = client.upload("/logos/", {}, {"logo": (path.name, path.read_bytes(), _TYPE)})
    return str(answer["logo_id"])
