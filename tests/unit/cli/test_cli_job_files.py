"""`chutes jobs download`: whatever a validator names, nothing is written outside of the folder."""

import hashlib
from urllib.parse import quote

import pytest

JOB_ID = "00000000-0000-4000-8000-000000000001"
CONTENT = b"owned"


@pytest.fixture
def download(api, run, tmp_path, monkeypatch):
    """Return a function that downloads files of these names, each there for the asking."""
    monkeypatch.setenv("CHUTES_API_URL", api.url)
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_a.b.c")
    folder = tmp_path / "work" / "out"

    def fetch(*names, content=CONTENT):
        files = [
            {
                "name": name,
                "size_bytes": len(CONTENT),
                "sha256": hashlib.sha256(CONTENT).hexdigest(),
            }
            for name in names
        ]
        api.replies.clear()
        api.on(f"GET /jobs/{JOB_ID}", {"job_id": JOB_ID, "files": files})
        for name in names:
            path = quote(name.encode("utf-8", "surrogatepass"))
            api.on(f"GET /jobs/{JOB_ID}/files/{path}", content)
        return run("jobs", "download", JOB_ID, "--output-dir", str(folder), "--json")

    fetch.folder = folder
    return fetch


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "/etc/owned",
        "//owned",
        "../owned",
        "a/../../owned",
        "a/..",
        "..",
        "..\\owned",
        "C:\\owned",
        "a\0b",
        "a\nb",
        "\x1b[2Jowned",
        "\u202egnp.exe",
        "",
        ".",
        "./",
        "a" * 301,
        "a/" * 3000 + "b",
    ],
)
def test_a_name_that_is_no_plain_path_writes_nothing(download, tmp_path, name):
    """It is refused by code, good files beside it too; the folder and all around it stay as is."""
    before = everything_below(tmp_path)
    done = download("good.txt", name)
    assert (done.code != 0, done.json["error"]["code"]) == (True, "unsafe_file_name")
    assert done.json["error"]["hint"]
    assert everything_below(tmp_path) == before
    assert not list(tmp_path.parent.glob("owned"))


def test_a_link_that_lies_in_the_folder_is_not_followed(download, tmp_path):
    """Neither to a folder nor to a file outside, be it the file's own name or its draft's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_bytes(b"mine")
    download.folder.mkdir(parents=True)
    (download.folder / "away").symlink_to(outside)
    (download.folder / "file").symlink_to(victim)
    for name in ("away/new", "file"):
        done = download(name)
        assert done.json["error"]["code"] == "outside_folder", done
    draft = hashlib.sha256(b"draft").hexdigest()[:16]
    (download.folder / f"{draft}.part").symlink_to(victim)
    assert download("draft").code == 0
    assert (download.folder / "draft").read_bytes() == CONTENT
    assert not (download.folder / "draft").is_symlink()
    assert (everything_below(outside), victim.read_bytes()) == (["victim"], b"mine")


@pytest.mark.parametrize("names", [("a" * 256,), ("a", "a/b"), ("a/b", "a")])
def test_a_name_that_no_file_can_have_is_said(download, names):
    """Too long for a folder's entry, or a file's and a folder's at once: by code, no traceback."""
    done = download(*names)
    assert done.json["error"]["code"] == "not_written"
    assert not [name for name in everything_below(download.folder) if name.endswith(".part")]


def test_bytes_of_another_file_are_refused(download):
    """What arrives is what was announced, or nothing of it stays."""
    done = download("a.txt", content=b"other")
    assert done.json["error"]["code"] == "file_differs"
    assert everything_below(download.folder) == []


def test_plain_names_arrive_where_they_say(download):
    """Folders are made; dots and spaces within names are names."""
    names = ("a/b/c.txt", "..hidden", "with space", "ü.txt", "-rf")
    done = download(*names)
    assert done.code == 0, done
    assert everything_below(download.folder) == sorted((*names, "a", "a/b"))
    assert all((download.folder / name).read_bytes() == CONTENT for name in names)
