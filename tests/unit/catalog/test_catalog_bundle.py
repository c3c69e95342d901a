import io
import stat
import zipfile

import pytest

from chutes_core.base.errors import ChutesError
from chutes_core.validator.catalog import bundle as room
from chutes_core.validator.catalog.bundle import packed
from chutes_core.validator.catalog.dockerfile import check_dockerfile


def pack(context, dockerfile="FROM x\n"):
    with packed(dockerfile, context) as chunks:
        return b"".join(chunks)


def make_zip(*entries, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            archive.writestr(info, data)
    return buffer.getvalue()


def plain(name, data=b"x"):
    return (name, data, stat.S_IFREG | 0o644)


def test_bundle_holds_dockerfile_and_context_and_keeps_what_is_executable():
    """Files go under context/, executables stay executable, directories are not entries."""
    script = ("bin/run.sh", b"#!/bin/sh", stat.S_IFREG | 0o750)
    context = make_zip(plain("a/b.txt"), script, ("d/", b"", stat.S_IFDIR | 0o755))
    with zipfile.ZipFile(io.BytesIO(pack(context))) as made:
        assert made.namelist() == ["Dockerfile", "context/a/b.txt", "context/bin/run.sh"]
        assert made.read("Dockerfile") == b"FROM x\n"
        modes = [info.external_attr >> 16 & 0o777 for info in made.infolist()]
        assert modes == [0o644, 0o644, 0o755]


def test_equal_uploads_give_equal_bundles():
    """Dates and order of the upload do not matter."""
    one = make_zip(plain("a"), plain("b"))
    other = make_zip(plain("b"), plain("a"), compression=zipfile.ZIP_STORED)
    assert pack(one) == pack(other)


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../../b", "/etc/passwd", "a//b", "./a", "C:/a", "a\\b", "a\nb", "x" * 600],
)
def test_names_that_lead_elsewhere_are_refused(name):
    """A name that could leave the directory, or cannot be shown, is refused."""
    with pytest.raises(ChutesError, match="unsafe_zip"):
        pack(make_zip(plain(name)))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files_are_refused(kind):
    """Only files and directories are copied."""
    with pytest.raises(ChutesError, match="unsafe_zip"):
        pack(make_zip(("a", b"/etc/passwd", kind | 0o777)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused():
    """Two entries of one name could be read differently by two readers."""
    with pytest.raises(ChutesError, match="unsafe_zip"):
        pack(make_zip(plain("a"), plain("a")))


def test_bomb_is_refused_by_its_ratio():
    """A small file that unpacks to very much is refused before it is unpacked."""
    with pytest.raises(ChutesError, match="unsafe_zip"):
        pack(make_zip(plain("a", b"\0" * 50_000_000)))


def test_total_size_is_bounded(monkeypatch):
    """Many files together may not pass the limit."""
    monkeypatch.setattr(room, "MAX_UNPACKED_BYTES", 1_000)
    with pytest.raises(ChutesError, match="context_too_large"):
        pack(make_zip(plain("a", b"x" * 600), plain("b", b"y" * 600)))


def test_header_that_lies_about_the_size_is_caught():
    """A file that is longer than its header says is never copied whole."""
    data = make_zip(plain("a", b"x" * 5_000), compression=zipfile.ZIP_STORED)
    directory = data.rindex(b"PK\x01\x02")
    lying = bytearray(data)
    lying[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    with pytest.raises(ChutesError, match=r"unsafe_zip|bad_zip"):
        pack(bytes(lying))


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_damaged_zip_is_a_typed_error(cut):
    """A file that is cut off or is no zip leaves as bad_zip."""
    whole = make_zip(plain("a", bytes(range(256)) * 20))
    with pytest.raises(ChutesError, match="bad_zip"):
        pack(whole[: int(len(whole) * cut)])
    with pytest.raises(ChutesError, match="bad_zip"):
        pack(b"no zip at all")


def test_flipped_bytes_never_raise_a_foreign_error():
    """Whatever byte is wrong, the answer is a bundle or a typed error."""
    whole = make_zip(plain("a.txt", b"hello hello hello"), plain("b/c", b"more"))
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        try:
            pack(bytes(broken))
        except ChutesError:
            continue


@pytest.mark.parametrize(
    "text", ["FROM x", "# c\n\nARG A=1\nfrom x AS y\n", "# syntax=docker/dockerfile:1\nFROM x"]
)
def test_dockerfiles_that_begin_with_a_stage_pass(text):
    """Comments and ARG may stand before FROM."""
    check_dockerfile(text)


@pytest.mark.parametrize("text", ["", "RUN x\nFROM y", "FROMX y", "FROM", "# FROM x"])
def test_dockerfiles_without_a_stage_are_refused(text):
    """Anything else before FROM, or no FROM, is refused."""
    with pytest.raises(ChutesError, match="no_from"):
        check_dockerfile(text)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(method):
    """Only stored and deflated files are unpacked."""
    with pytest.raises(ChutesError, match="unsafe_zip"):
        pack(make_zip(plain("a", b"x" * 100), compression=method))
