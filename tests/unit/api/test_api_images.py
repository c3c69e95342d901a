import io
import zipfile

import pytest

from chutes_core.validator.catalog.images import Images
from chutes_core.validator.domain.images import Image


@pytest.fixture
async def registered(api, alice, bob):
    await api.register(alice, "alice")
    await api.register(bob, "bob")
    return api


async def test_upload_is_stored_as_a_bundle_and_built(registered, alice):
    """An upload becomes a bundle of Dockerfile and context, and is built by the process runtime."""
    answer = await registered.upload(alice, "alice", files={"src/app.py": "print(1)"})
    assert answer.status_code == 202, answer.text
    image_id = answer.json()["image_id"]
    image = registered.services.store.images.get(image_id)
    path = registered.services.store.blobs.path(image.bundle_sha256)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as bundle:
        assert sorted(bundle.namelist()) == ["Dockerfile", "context/src/app.py"]
    item = await registered.signed(alice, "GET", "/images/alice/app:1", purpose="images")
    assert item.json()["status"] == "built and pushed"
    assert item.json()["image_id"] == image_id


async def test_log_of_a_built_image_is_plain_text(registered, alice):
    """Once built, the whole log is text and says that the build was skipped."""
    image_id = (await registered.upload(alice, "alice")).json()["image_id"]
    answer = await registered.signed(alice, "GET", f"/images/{image_id}/logs", purpose="images")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "build: skipped (process runtime)" in answer.text


async def test_log_of_a_running_build_is_a_stream_that_ends_with_done(
    registered, alice, monkeypatch
):
    """While a build runs, its lines are events; DONE ends the stream; an offset skips lines."""
    store = registered.services.store
    user_id = store.accounts.by_username("alice").user_id
    image_id = "00000000-0000-0000-0000-000000000001"
    image = Image(
        image_id, user_id, "alice", "slow", "1", "", False, "FROM x", "0", 0, "building", "", 1
    )
    store.images.insert(image)
    store.images.append_log(image_id, "stdout", "one")
    store.images.append_log(image_id, "stderr", "two")
    polls = iter(range(100))

    def end_the_build_after_two_polls(images, of):
        if next(polls) == 2:
            store.images.append_log(of, "stdout", "three")
            store.images.advance(of, "building", "built", at_s=2)
        return store.images.get(of)

    monkeypatch.setattr(Images, "state_of", end_the_build_after_two_polls)
    path = f"/images/{image_id}/logs?offset=1"
    answer = await registered.signed(alice, "GET", path, purpose="images")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.split("\n\n") == [
        'data: {"log": {"log_type": "stderr", "log": "two"}, "offset": "2"}',
        'data: {"log": {"log_type": "stdout", "log": "three"}, "offset": "3"}',
        "DONE",
        "",
    ]


async def test_same_name_twice_is_409(registered, alice):
    """An image is not replaced."""
    await registered.upload(alice, "alice")
    answer = await registered.upload(alice, "alice")
    assert (answer.status_code, answer.json()["code"]) == (409, "image_exists")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "App"}, "bad_image_name"),
        ({"tag": "../1"}, "bad_image_name"),
        ({"dockerfile": "RUN true\n"}, "no_from"),
        ({"dockerfile": "FROM x\n" + "#" * 70_000}, "dockerfile_too_large"),
    ],
)
async def test_bad_uploads_are_refused(registered, alice, changes, code):
    """Names, Dockerfile and its size are checked before anything is stored."""
    answer = await registered.upload(alice, "alice", **changes)
    assert answer.json()["code"] == code
    assert registered.services.store.images.visible_to("x", include_public=True) == ()


async def test_image_of_another_username_is_403(registered, alice):
    """A user publishes under its own name only."""
    answer = await registered.upload(alice, "bob")
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_username")


async def test_private_images_are_invisible_to_others(registered, alice, bob):
    """Another user sees an image only when it is public, and never deletes it."""
    await registered.upload(alice, "alice")
    await registered.upload(alice, "alice", name="open", public="True")
    listed = await registered.signed(bob, "GET", "/images/?include_public=true", purpose="images")
    assert [item["name"] for item in listed.json()["items"]] == ["open"]
    hidden = await registered.signed(bob, "GET", "/images/alice/app:1", purpose="images")
    assert hidden.status_code == 404
    path = "/images/alice/open:1"
    denied = await registered.signed(bob, "DELETE", path, purpose="images")
    assert (denied.status_code, denied.json()["code"]) == (403, "not_owner")


async def test_deleted_image_leaves_no_file(registered, alice):
    """Deleting removes record and bundle, and the name is free again."""
    image_id = (await registered.upload(alice, "alice")).json()["image_id"]
    store = registered.services.store
    path = store.blobs.path(store.images.get(image_id).bundle_sha256)
    answer = await registered.signed(alice, "DELETE", f"/images/{image_id}", purpose="images")
    assert answer.json()["image_id"] == image_id
    assert not path.exists()
    assert (await registered.upload(alice, "alice")).status_code == 202


async def test_unsigned_form_is_401(registered):
    """An upload without credentials is refused."""
    answer = await registered.http.post("/images/", data={"name": "x"})
    assert answer.status_code == 401
