"""Images as developers publish them: checked, stored as a bundle, built, listed, deleted.

Invariant: an image is visible to its owner, and to all when public; it is stored only after every
check passed; `pending -> building -> built | error` moves by compare-and-set, so two builders never
build the same image.
"""

import threading
from collections.abc import Callable

from loguru import logger

from chutes_core.base import ids
from chutes_core.base.clock import Clock
from chutes_core.base.errors import (
    ChutesError,
    Conflict,
    Forbidden,
    NotFound,
    Unavailable,
)
from chutes_core.validator.catalog.builder import Artefact, Builder, BuildFailed, BuildStopped
from chutes_core.validator.catalog.bundle import MAX_BUNDLE_BYTES, packed
from chutes_core.validator.catalog.image_rules import ImageDraft, check_image
from chutes_core.validator.catalog.sweep import Drops, ImageSweep
from chutes_core.validator.domain.accounts import DEVELOPER, Account
from chutes_core.validator.domain.images import Image, ImageState
from chutes_core.validator.store.database import Store
from chutes_core.validator.store.images import Failure, LogLine, LogType, Made

MAX_TRIES = 5
RETRY_S = 15


class Images:
    """All that concerns images.

    Args:
        store: where they are kept.
        clock: for their times.
        builder: builds them.
        require_developer: only accounts with the developer role may publish.
        slots: how many images are built at once.
        registry: where built images went for miners, or None.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        builder: Builder,
        *,
        require_developer: bool = False,
        slots: int = 2,
        registry: Drops | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._builder = builder
        self._require_developer = require_developer
        self._bundles = threading.Lock()  # equal bundles are one file, so a delete must not race
        self._slots = threading.Semaphore(slots)
        self._tries: dict[str, int] = {}
        self._sweep = ImageSweep(store, builder, registry)
        self._not_before_us = 0
        self._closed = False

    def create(self, owner: Account, draft: ImageDraft) -> Image:
        """Check an upload, keep it as a pending image and return that.

        Raises:
            Forbidden: ``not_developer`` or ``wrong_username``.
            Invalid: a name, the Dockerfile or the context breaks a rule.
            Conflict: ``image_exists``.
        """
        self._check(owner, draft)
        image_id = ids.image_id(draft.username, draft.name, draft.tag)
        if self._store.images.get(image_id) is not None:
            raise _exists(draft)
        with packed(draft.dockerfile, draft.context) as chunks, self._bundles:
            blob = self._store.blobs.put(chunks, limit_bytes=MAX_BUNDLE_BYTES)
            image = Image(
                image_id=image_id,
                user_id=owner.user_id,
                username=owner.username,
                name=draft.name,
                tag=draft.tag,
                readme=draft.readme,
                public=draft.public,
                dockerfile=draft.dockerfile,
                bundle_sha256=blob.sha256,
                bundle_bytes=blob.size_bytes,
                state="pending",
                error="",
                created_at_s=self._clock.now_s(),
            )
            try:
                self._store.images.insert(image)
            except ChutesError:
                self._drop_blob(blob.sha256)
                raise
        logger.bind(image=image.full_name, bytes=blob.size_bytes).info("Image uploaded")
        return image

    def build(self, image_id: str) -> None:
        """Build one pending image; nothing happens where another took it, or all slots are busy."""
        if self._closed or not self._slots.acquire(blocking=False):
            return  # it stays pending, and `build_pending` comes by again
        try:
            self._build(image_id)
        finally:
            self._slots.release()

    def build_pending(self) -> int:
        """Build every pending image that may be tried now, oldest first; return how many."""
        done = 0
        for image in self._store.images.in_state("pending"):
            if self._clock.monotonic_us() >= self._not_before_us:
                self.build(image.image_id)
                done += 1
        return done

    def close(self) -> None:
        """Cut off running builds; what is not built stays pending for the next process."""
        self._closed = True
        self._builder.close()

    def resume(self) -> None:
        """Take up after a dead process: called once at start, before the first upload.

        Its builds are pending again, and files that no record names (it died between the two) go.
        """
        for image in self._store.images.in_state("building"):
            self._advance(image.image_id, "building", "pending")
        for sha256 in self._store.blobs.all():
            self._drop_blob(sha256)

    def list(self, viewer: Account, *, include_public: bool) -> tuple[Image, ...]:
        """Return what the viewer may see, newest first."""
        return self._store.images.visible_to(viewer.user_id, include_public=include_public)

    def get(self, viewer: Account, reference: str) -> Image:
        """Return an image by id, user/name:tag, or name:tag of the viewer's own.

        Raises:
            NotFound: ``no_such_image``, also where the viewer may not see it.
        """
        image = self._find(viewer, reference)
        if image is None or not (image.public or image.user_id == viewer.user_id):
            raise NotFound("no_such_image", f"there is no image {reference[:200]}")
        return image

    def delete(self, owner: Account, reference: str) -> Image:
        """Remove an image that no live chute runs on.

        Raises:
            NotFound: ``no_such_image``.
            Forbidden: ``not_owner``.
            Conflict: ``image_in_use``.
        """
        image = self.get(owner, reference)
        if image.user_id != owner.user_id:
            raise Forbidden("not_owner", "the image belongs to another user")
        with self._bundles:
            with self._store.transaction():
                if self._store.chutes.of_image(image.image_id):
                    raise Conflict(
                        "image_in_use",
                        f"a chute runs on {image.full_name}",
                        hint="delete the chute first",
                    )
                self._store.images.delete(image.image_id)
                self._leave(image.registry_ref, image.image_id)
            self._drop_blob(image.bundle_sha256)
            self._drop_blob(image.archive_sha256)
        if image.image_digest:
            self._builder.forget(image)
        return image

    def sweep(self) -> int:
        """Remove what deleted images left where it could not be removed then; return how many.

        Raises:
            Unavailable: the engine or the registry is away.
        """
        return self._sweep.run_once()

    def log(self, image_id: str, *, after: int) -> tuple[LogLine, ...]:
        """Return the lines of the build log behind number ``after``."""
        return self._store.images.log(image_id, after=after)

    def state_of(self, image_id: str) -> Image | None:
        """Return the image as it stands now, or None where it was deleted."""
        return self._store.images.get(image_id)

    def _check(self, owner: Account, draft: ImageDraft) -> None:
        if self._require_developer and DEVELOPER not in owner.roles:
            raise Forbidden(
                "not_developer",
                "only developers may publish images",
                hint="pay the developer deposit: GET /developer_deposit",
            )
        check_image(owner, draft)

    def _build(self, image_id: str) -> None:
        try:
            image = self._advance(image_id, "pending", "building")
        except Conflict:
            return

        def log(log_type: LogType, text: str) -> None:
            self._store.images.append_log(image_id, log_type, text)

        try:
            made = self._builder.build(image, log)
        except BuildFailed as failure:
            self._fail(image, Failure(str(failure), failure.code, failure.hint), log)
        except BuildStopped:
            self._again(image, log, "the validator stops: the build begins again at its next start")
        except Unavailable as error:
            self._later(image, error, log)
        else:
            self._finish(image, made)

    def _finish(self, image: Image, made: Artefact | None) -> None:
        self._tries.pop(image.image_id, None)
        kept = None
        if made is not None:
            kept = Made(
                made.image_digest, made.archive_sha256, made.archive_bytes, made.registry_ref
            )
        try:
            self._advance(image.image_id, "building", "built", made=kept)
        except Conflict:  # it was deleted meanwhile
            with self._bundles:
                self._drop_blob(made.archive_sha256 if made else "")
            self._leave(made.registry_ref if made else "", image.image_id)
            self._builder.forget(image)
            return
        logger.bind(image=image.full_name).info("Image built")

    def _fail(self, image: Image, failed: Failure, log: Callable[[LogType, str], None]) -> None:
        self._tries.pop(image.image_id, None)
        if self._store.images.get(image.image_id) is None:
            return  # it was deleted meanwhile
        log("stderr", failed.text)
        self._advance(image.image_id, "building", "error", failed=failed)
        logger.bind(image=image.full_name, code=failed.code, reason=failed.text).warning(
            "Image build failed"
        )

    def _later(self, image: Image, error: Unavailable, log: Callable[[LogType, str], None]) -> None:
        """Try again after a while, for this host may be at fault; but not for ever."""
        logger.bind(image=image.full_name, code=error.code).warning("Cannot build now: {}", error)
        tries = self._tries[image.image_id] = self._tries.get(image.image_id, 0) + 1
        self._not_before_us = self._clock.monotonic_us() + RETRY_S * 1_000_000
        if tries >= MAX_TRIES:
            text = f"the validator cannot build now: {error.message}"
            self._fail(image, Failure(text, error.code, error.hint), log)
        else:
            self._again(image, log, f"cannot build now (try {tries} of {MAX_TRIES}): {error.code}")

    def _again(self, image: Image, log: Callable[[LogType, str], None], why: str) -> None:
        if self._store.images.get(image.image_id) is not None:
            log("stderr", why)
            self._advance(image.image_id, "building", "pending")

    def _drop_blob(self, sha256: str) -> None:
        rows = self._store
        if sha256 and not rows.images.blob_in_use(sha256) and not rows.logos.blob_in_use(sha256):
            rows.blobs.delete(sha256)

    def _leave(self, registry_ref: str, image_id: str) -> None:
        if registry_ref:
            self._store.images.leave(registry_ref, image_id)

    def _find(self, viewer: Account, reference: str) -> Image | None:
        full, _, tag = reference.rpartition(":")
        if not tag or not full:
            return self._store.images.get(reference)
        username, _, name = full.rpartition("/")
        return self._store.images.by_name(username or viewer.username, name, tag)

    def _advance(
        self,
        image_id: str,
        from_state: ImageState,
        to_state: ImageState,
        *,
        failed: Failure | None = None,
        made: Made | None = None,
    ) -> Image:
        return self._store.images.advance(
            image_id, from_state, to_state, at_s=self._clock.now_s(), failed=failed, made=made
        )


def _exists(draft: ImageDraft) -> ChutesError:
    return Conflict(
        "image_exists",
        f"the image {draft.username}/{draft.name}:{draft.tag} exists already",
        hint="choose another tag, or delete the image first",
    )
