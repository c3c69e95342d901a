"""GET /launches/{id}/image: which file, for whom, in which pieces."""

import dataclasses

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chutes_core.base.errors import Conflict, Exhausted
from chutes_core.validator.api.errors import install_errors
from chutes_core.validator.api.routes import transfers as routes
from chutes_core.validator.domain.images import Image
from chutes_core.validator.domain.launches import Launch, LaunchState
from chutes_core.validator.launches.transfers import MAX_PER_LAUNCH, Transfers, image_ref
from chutes_core.validator.launches.vault import Vault
from chutes_core.validator.store.blobs import Blobs

LAUNCH_ID = "11111111-2222-3333-4444-555555555555"
TICKET = b"t" * 32
DIGEST = "sha256:" + "d" * 64


def image_of(blob):
    return Image(
        image_id="0b4deb3d-0ead-507e-8786-df31b4a8999b",
        user_id="u",
        username="bob",
        name="app",
        tag="1",
        readme="",
        public=False,
        dockerfile="FROM x",
        bundle_sha256="b" * 64,
        bundle_bytes=5,
        state="built",
        error="",
        created_at_s=0,
        image_digest=DIGEST if blob else "",
        archive_sha256=blob.sha256 if blob else "",
        archive_bytes=blob.size_bytes if blob else 0,
    )


def launch_of(image):
    return Launch(
        launch_id=LAUNCH_ID,
        chute_id="c",
        version="v",
        image_id=image.image_id,
        miner_hotkey="m",
        miner_coldkey="k",
        registered_at_block=1,
        node_id="n",
        gpu_uuids=("GPU-1",),
        gpu_class="h100",
        relay_host="127.0.0.1",
        relay_port=1,
        profile="test",
        stand_in=True,
        requested_at_s=0,
        deadline_s=1,
    )


class Rows:
    """The part of the store that transfers read."""

    def __init__(self, folder, vault):
        self.blobs = Blobs(folder)
        self.blob = self.blobs.put(iter([b"0123456789" * 1000]), limit_bytes=1 << 20)
        self.image = image_of(self.blob)
        self.launch = launch_of(self.image)
        self.ticket = vault.seal(LAUNCH_ID, "ticket", TICKET)
        self.images = self.launches = self

    def get(self, key):
        known = {LAUNCH_ID: self.launch, self.image.image_id: self.image}
        return known.get(key)

    def secrets(self, launch_id):
        return self


@pytest.fixture
def rows(tmp_path):
    vault = Vault(b"m" * 32)
    rows = Rows(tmp_path, vault)
    rows.transfers = Transfers(rows, vault)
    return rows


@pytest.fixture
def client(rows):
    app = FastAPI()
    install_errors(app)
    app.include_router(routes.build_router(rows.transfers))
    return TestClient(app)


def granted(rows):
    ref = image_ref(rows.image, "docker", LAUNCH_ID, TICKET)
    return ref, {"Authorization": f"Launch {ref.token}"}


def test_the_grants_token_opens_the_archive(rows, client):
    """Path, hash, size and token of the grant fit what is served."""
    ref, headers = granted(rows)
    answer = client.get(ref.path, headers=headers)
    assert answer.status_code == 200
    assert answer.content == b"0123456789" * 1000
    assert (ref.size_bytes, ref.sha256) == (len(answer.content), rows.blob.sha256)
    assert answer.headers["etag"] == f'"{ref.sha256}"'
    assert ref.image_digest == DIGEST


def test_a_cut_transfer_asks_for_the_rest(rows, client):
    """A range behind the same ETag gives the rest; behind another one everything."""
    ref, headers = granted(rows)
    rest = {"Range": "bytes=9995-", "If-Range": f'"{ref.sha256}"'}
    answer = client.get(ref.path, headers=headers | rest)
    assert (answer.status_code, answer.content) == (206, b"56789")
    rest["If-Range"] = '"another"'
    answer = client.get(ref.path, headers=headers | rest)
    assert (answer.status_code, len(answer.content)) == (200, 10_000)


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "no_launch_token"),
        ("Bearer abc", "no_launch_token"),
        ("Launch " + "x" * 300, "no_launch_token"),
        ("Launch " + "0" * 64, "bad_launch_token"),
    ],
)
def test_without_the_launchs_token_nothing_is_served(rows, client, authorization, code):
    """Missing, of another kind, too long, or wrong: 401 with a hint."""
    headers = {"Authorization": authorization} if authorization else {}
    answer = client.get(f"/launches/{LAUNCH_ID}/image", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.json()["hint"]


def test_the_token_ends_with_its_launch(rows, client):
    """Once the launch is gone its token opens nothing."""
    ref, headers = granted(rows)
    rows.launch = dataclasses.replace(rows.launch, state=LaunchState.GONE)
    answer = client.get(ref.path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_launch")


def test_transfers_of_one_launch_are_few(rows):
    """More at once than a miner needs are refused, and a finished one makes room."""
    with rows.transfers.counted(LAUNCH_ID):
        for _ in range(MAX_PER_LAUNCH - 1):
            with rows.transfers.counted(LAUNCH_ID):
                pass
        with (
            rows.transfers.counted(LAUNCH_ID),
            pytest.raises(Exhausted),
            rows.transfers.counted(LAUNCH_ID),
        ):
            pass
    with rows.transfers.counted(LAUNCH_ID):
        pass


def test_an_image_that_no_engine_built_is_not_granted_to_docker():
    """A validator without an engine has nothing for a miner with one, and says so."""
    with pytest.raises(Conflict, match="builds no images"):
        image_ref(image_of(None), "docker", LAUNCH_ID, TICKET)
    assert image_ref(image_of(None), "process", LAUNCH_ID, TICKET).token == ""
