"""Fetch the Subtensor metadata that the local chain serves; run once, works offline afterwards.

The metadata lies in the source distribution of the bittensor SDK. pip downloads it and compares
its hash before it looks inside; then one file of it is copied. Nothing of it is installed.
Invariant: the destination either does not exist or holds exactly the expected bytes.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "11.3.0"
ARCHIVE = f"bittensor-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3"
MEMBER = f"bittensor-{VERSION}/tests/fixtures/golden.json"
MEMBER_SHA256 = "a74c2f7fd7d9c40ba8111170bf74dddfad57a040d181b3532acb2a9ce2ef2f11"
DEFAULT_DEST = Path(__file__).resolve().parent.parent / ".cache" / "metadata.json"


def main() -> int:
    """Bring the metadata to its place; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dest", type=Path, default=DEFAULT_DEST)
    dest: Path = parser.parse_args().dest
    if dest.is_file() and _sha256(dest.read_bytes()) == MEMBER_SHA256:
        print(f"{dest} is there already", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory(prefix="chutes-metadata-") as folder:
        archive = _download(Path(folder))
        if archive is None:
            return 1
        if _sha256(archive.read_bytes()) != ARCHIVE_SHA256:
            print(f"{ARCHIVE} is not the expected file (sha256 differs)", file=sys.stderr)
            return 1
        document = _member(archive)
    if document is None or _sha256(document) != MEMBER_SHA256:
        print(f"{MEMBER} is not the expected file (sha256 differs)", file=sys.stderr)
        return 1
    _write(dest, document)
    print(f"wrote {dest} ({len(document)} bytes)", file=sys.stderr)
    return 0


def _download(folder: Path) -> Path | None:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"bittensor=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n", "utf-8")
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-binary", "bittensor", "--require-hashes"),
        *("--dest", str(folder), "--requirement", str(wanted)),
    ]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        print("pip could not download the bittensor source distribution", file=sys.stderr)
        return None
    archive = folder / ARCHIVE
    return archive if archive.is_file() else None


def _member(archive: Path) -> bytes | None:
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(MEMBER)
        return stream.read() if stream else None


def _write(dest: Path, document: bytes) -> None:
    dest.parent.mkdir(parents=True, exist_ok=True)
    partial = dest.with_name(f"{dest.name}.{os.getpid()}.partial")
    partial.write_bytes(document)
    partial.replace(dest)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
