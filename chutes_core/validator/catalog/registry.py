"""The OCI registry that built images go to, where the operator has one.

Path: build_job -> `Registry.keep` -> engine/registry; launches -> `pull_token` -> the grant; sweep
-> `drop`. Each image has a repository of its own, named by its id, so that a pass opens one image.
Invariant: the operator's user and password, where they are set, go to this registry alone and never
into a grant: miners then have credentials of their own.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from chutes_core.base.clock import Clock
from chutes_core.base.errors import Invalid
from chutes_core.engine import registry as engine_registry
from chutes_core.engine.connect import Engine
from chutes_core.engine.registry import Access
from chutes_core.validator.catalog.registry_tokens import RegistryTokens

_PLACE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-][a-z0-9]+)*)*")
_PUSH = ("pull", "push")


@dataclass(frozen=True)
class Place:
    """Where a registry is: ``host[:port]``, and the path above all images (may be empty)."""

    host: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read ``host[:port][/path]``.

        >>> Place.parse("registry.example.com:5000/chutes/images")
        Place(host='registry.example.com:5000', path='chutes/images')

        Raises:
            Invalid: ``bad_registry``.
        """
        host, _, path = text.partition("/")
        if not _PLACE.fullmatch(text) or not ("." in host or ":" in host):
            raise Invalid(
                "bad_registry",
                f"{text[:100]!r} names no registry",
                hint="host[:port][/path] in small letters, e.g. registry.example.com/chutes",
            )
        return cls(host, path)

    def repository(self, image_id: str) -> str:
        """Return an image's repository, with the host."""
        return "/".join(filter(None, (self.host, self.path, image_id)))


class Registry:
    """Pushes, passes and deletions.

    Args:
        place: where.
        tokens: signs passes; used where no user is set.
        clock: for their times.
        user: with which the validator pushes, or empty.
        password: of that user.
    """

    def __init__(
        self,
        place: Place,
        tokens: RegistryTokens,
        clock: Clock,
        *,
        user: str = "",
        password: str = "",
    ) -> None:
        self._place = place
        self._tokens = tokens
        self._clock = clock
        self._user = user
        self._password = password

    def keep(
        self,
        client: Engine,
        image_id: str,
        digest: str,
        on_line: Callable[[str], None],
        keep_on: Callable[[], bool],
    ) -> str:
        """Push a built image and return ``host/path@sha256:…``, its name for miners.

        Raises:
            Unavailable: see `engine.registry.push`.
        """
        repository = self._place.repository(image_id)
        access = self._access(repository, _PUSH)
        pushed = engine_registry.push(client, digest, repository, access, on_line, keep_on)
        return f"{repository}@{pushed}"

    def pull_token(self, reference: str, subject: str) -> str:
        """Return a pass for one image; empty where miners have credentials of their own."""
        repository = reference.partition("@")[0]
        if self._user or not self._is_here(repository):
            return ""
        return self._mint(repository, ("pull",), subject)

    def drop(self, reference: str) -> bool:
        """Remove an image; True where nothing is left to do.

        Raises:
            Unavailable: ``registry_unreachable``.
        """
        repository = reference.partition("@")[0]
        if self._is_here(repository):
            engine_registry.delete(reference, self._access(repository, ("delete",)))
        return True  # in a former registry, or in one that deletes nothing: its operator's

    def _access(self, repository: str, actions: tuple[str, ...]) -> Access:
        if self._user:
            return Access(user=self._user, password=self._password)
        return Access(token=self._mint(repository, actions, "validator"))

    def _mint(self, repository: str, actions: tuple[str, ...], subject: str) -> str:
        path = repository.partition("/")[2]
        return self._tokens.mint(path, actions, subject=subject, now_s=self._clock.now_s())

    def _is_here(self, repository: str) -> bool:
        return repository.partition("/")[0] == self._place.host
