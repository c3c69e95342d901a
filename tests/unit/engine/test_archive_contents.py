"""What an archive may hold: the granted image, no other, no name, and no way around the check."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from chutes_core.base.errors import ProtocolError
from chutes_core.engine.contents import MAX_DOCUMENT_BYTES, MAX_MEMBERS, check_contents

CONFIG = b'{"architecture":"amd64","os":"linux"}'
DIGEST = hashlib.sha256(CONFIG).hexdigest()
NAMED = "sha256:" + DIGEST
LAYER = ("a/layer.tar", b"layer")


def manifest(*, config=f"{DIGEST}.json", tags=None):
    return [{"Config": config, "RepoTags": tags, "Layers": ["a/layer.tar"]}]


def archive_of(folder, files, links=()):
    path = folder / "image.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            raw = data if isinstance(data, bytes) else json.dumps(data).encode()
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
        for kind, name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    return path


def good(tags=None):
    return [LAYER, (f"{DIGEST}.json", CONFIG), ("manifest.json", manifest(tags=tags))]


def refusal(path):
    with pytest.raises(ProtocolError) as refused:
        check_contents(path, NAMED)
    assert refused.value.hint
    return refused.value.code


def test_an_image_saved_by_its_id_passes(tmp_path):
    """With a layer that comes again as a link too, as engines before 25 write it."""
    again = [(tarfile.SYMTYPE, "b/layer.tar", "../a/layer.tar")]
    check_contents(archive_of(tmp_path, good(), again), NAMED)


def blob(data):
    digest = hashlib.sha256(data).hexdigest()
    return f"sha256:{digest}", (f"blobs/sha256/{digest}", data)


def layout(config=CONFIG, *, nested=False, docker=True, notes=None):
    """Return the ids and the files of an OCI layout, as engines save from 25 on."""
    config_id, config_file = blob(config)
    form = {"schemaVersion": 2, "config": {"digest": config_id}, "layers": []}
    manifest_id, manifest_file = blob(json.dumps(form).encode())
    files, ids, top = [config_file, manifest_file], [config_id, manifest_id], manifest_id
    if nested:
        inner = {"schemaVersion": 2, "manifests": [{"digest": manifest_id}]}
        top, inner_file = blob(json.dumps(inner).encode())
        files.append(inner_file)
        ids.append(top)
    entry = {"digest": top, "annotations": notes or {"a": "b"}}
    files.append(("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'))
    files.append(("index.json", {"schemaVersion": 2, "manifests": [entry]}))
    if docker:
        files.append(("manifest.json", manifest(config=config_file[0])))
    return ids, files


@pytest.mark.parametrize("docker", [True, False], ids=["with manifest.json", "index alone"])
@pytest.mark.parametrize("nested", [False, True], ids=["manifest", "index in the index"])
def test_an_image_in_an_oci_layout_passes_by_each_of_its_ids(tmp_path, nested, docker):
    """The configuration's digest, and what engines with containerd's store call it."""
    ids, files = layout(nested=nested, docker=docker)
    path = archive_of(tmp_path, files)
    for granted in ids:
        found = check_contents(path, granted)
        assert found[0] == granted
        assert sorted(found) == sorted(ids)
    with pytest.raises(ProtocolError) as refused:
        check_contents(path, "sha256:" + "0" * 64)
    assert refused.value.code == "image_mismatch"


def test_both_forms_must_lead_to_one_image(tmp_path):
    """An engine may read either; the granted image in one hides no other in the other."""
    _, other = layout(b'{"os":"other"}', docker=False)
    assert refusal(archive_of(tmp_path, [*good(), *other])) == "image_mismatch"


@pytest.mark.parametrize("nested", [False, True])
def test_an_index_of_several_images_is_a_mismatch(tmp_path, nested):
    """The engine would load them all."""
    _, first = layout(docker=False)
    _, second = layout(b'{"os":"other"}', docker=False)
    entries = [one for _, index in (first[-1], second[-1]) for one in index["manifests"]]
    index = {"schemaVersion": 2, "manifests": entries}
    blobs = [*first[:-1], *second[:2]]
    if nested:
        digest, file = blob(json.dumps(index).encode())
        blobs.append(file)
        index = {"schemaVersion": 2, "manifests": [{"digest": digest}]}
    assert refusal(archive_of(tmp_path, [*blobs, ("index.json", index)])) == "image_mismatch"


def test_a_name_in_an_oci_layout_is_refused(tmp_path):
    """At the top, and in an index of the index."""
    notes = {"org.opencontainers.image.ref.name": "latest"}
    assert refusal(archive_of(tmp_path, layout(docker=False, notes=notes)[1])) == "archive_names"
    _, files = layout(docker=False, notes=notes)
    digest, file = blob(json.dumps(files[-1][1]).encode())
    index = ("index.json", {"manifests": [{"digest": digest}]})
    assert refusal(archive_of(tmp_path, [*files[:-1], file, index])) == "archive_names"


def test_a_blob_under_another_digest_is_refused(tmp_path):
    """The index names a manifest whose bytes are others."""
    _, files = layout(docker=False)
    (name, _), rest = files[1], [files[0], *files[2:]]
    lying = json.dumps({"config": {"digest": NAMED}}).encode()
    assert refusal(archive_of(tmp_path, [*rest, (name, lying)])) == "bad_archive"
    assert refusal(archive_of(tmp_path, rest)) == "bad_archive"


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(good(["parachutes/python:3.12"]), id="RepoTags"),
        pytest.param(
            [*good(), ("repositories", {"parachutes/python": {"3.12": "a"}})], id="repositories"
        ),
        pytest.param(
            [
                *good(),
                ("index.json", {"manifests": [{"annotations": {"io.containerd.image.name": "x"}}]}),
            ],
            id="OCI index",
        ),
    ],
)
def test_an_archive_that_names_images_is_refused(tmp_path, more):
    """A name that it brings would point at its image on this engine from then on."""
    assert refusal(archive_of(tmp_path, more)) == "archive_names"


@pytest.mark.parametrize(
    "files",
    [
        pytest.param([("x", b"{}"), ("manifest.json", manifest(config="x"))], id="another image"),
        pytest.param([("manifest.json", [])], id="no image"),
        pytest.param(
            [(f"{DIGEST}.json", CONFIG), ("manifest.json", manifest() + manifest())], id="two"
        ),
    ],
)
def test_an_archive_of_anything_else_is_a_mismatch(tmp_path, files):
    """The configuration's hash is the image's id, so that this is known before it is loaded."""
    assert refusal(archive_of(tmp_path, files)) == "image_mismatch"


@pytest.mark.parametrize(
    ("files", "links"),
    [
        pytest.param([LAYER], (), id="no manifest"),
        pytest.param([("manifest.json", b"no json")], (), id="no JSON"),
        pytest.param([("manifest.json", b"[" * 100_000)], (), id="deep JSON"),
        pytest.param([("manifest.json", {"Config": "x"})], (), id="no list"),
        pytest.param([("manifest.json", manifest(tags=7))], (), id="tags of another type"),
        pytest.param([*good(), ("./manifest.json", manifest())], (), id="a second manifest"),
        pytest.param([*good(), ("../outside", b"x")], (), id="a file outside"),
        pytest.param(
            good()[:2], [(tarfile.SYMTYPE, "manifest.json", "a/layer.tar")], id="manifest as link"
        ),
        pytest.param(good(), [(tarfile.LNKTYPE, "hard", "manifest.json")], id="hard link"),
        pytest.param(good(), [(tarfile.CHRTYPE, "device", "")], id="device"),
        pytest.param(
            [*good(), ("x/layer.tar/manifest.json", manifest(tags=["a:b"]))],
            [(tarfile.SYMTYPE, "x/layer.tar", "..")],
            id="through a link",
        ),
    ],
)
def test_what_no_engine_saves_is_refused(tmp_path, files, links):
    """Among it all ways to show this check another manifest than the engine would read."""
    assert refusal(archive_of(tmp_path, files, links)) == "bad_archive"


def test_a_compressed_or_cut_file_is_refused(tmp_path):
    """The engine would unpack gzip by itself; validators send plain tar files."""
    path = archive_of(tmp_path, good())
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole))
    assert refusal(path) == "bad_archive"
    path.write_bytes(whole[: whole.index(b"manifest.json") + 600])
    assert refusal(path) == "bad_archive"
    path.write_bytes(b"")
    assert refusal(path) == "bad_archive"


def test_too_large_a_document_is_refused(tmp_path):
    """It would be read into memory."""
    files = [*good()[:2], ("manifest.json", b" " * (MAX_DOCUMENT_BYTES + 1))]
    assert refusal(archive_of(tmp_path, files)) == "bad_archive"


def test_too_many_members_are_refused(tmp_path):
    """An image has at most 127 layers."""
    files = [*good(), *((f"f{number}", b"") for number in range(MAX_MEMBERS))]
    assert refusal(archive_of(tmp_path, files)) == "bad_archive"
