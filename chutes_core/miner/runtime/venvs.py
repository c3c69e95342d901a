"""Images of the process runtime: one virtual environment per image digest, made once.

A venv cannot be moved (its scripts name their interpreter by absolute path), so it is made in its
final place and the image counts as prepared when `image.json` is renamed into it: that rename is
the commit. A directory without it is a torn build and is made anew. The venv sees the miner's own
packages through a .pth file, after its own, so that runner dependencies are not installed again.

pip is the miner's own, pointed at the venv, with the operator's pip configuration and proxies. It
may run a package's build code as this user: a reason why this runtime is for devnets only.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from loguru import logger

import chutes_core
from chutes_core.miner.runtime.base import ImageBundle, PreparedImage, RuntimeFailed
from chutes_core.miner.runtime.dockerfile import pip_lines

PIP_TIMEOUT_S = 1200.0
MAX_UNPACKED_BYTES = 2 << 30
MAX_FILES = 50_000
_LOG_TAIL_CHARS = 2000
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_CA_FILES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_PLACES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "NETRC", "PATH", "TMPDIR", "LANG", "LC_ALL")
_PASSED_TO_PIP = frozenset((*_PLACES, *_CA_FILES, *_PROXIES, *map(str.upper, _PROXIES)))


class Venvs:
    """The folder of prepared images."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._pip_env = {
            name: value
            for name, value in environ.items()
            if name in _PASSED_TO_PIP or name.startswith("PIP_")
        }
        self._locks: dict[str, asyncio.Lock] = {}
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def python(self, sha256: str) -> Path:
        """Return the interpreter of a prepared image."""
        return self._directory / sha256 / "venv" / "bin" / "python"

    def prepared(self) -> frozenset[str]:
        """Return the ids of prepared images."""
        ids = set()
        for marker in self._directory.glob("*/image.json"):
            ids.update(json.loads(marker.read_text())["image_ids"])
        return frozenset(ids)

    async def prepare(self, bundle: ImageBundle) -> PreparedImage:
        """Make the image's venv, or return at once where it exists.

        Raises:
            RuntimeFailed: ``image_failed``.
        """
        async with self._locks.setdefault(bundle.sha256, asyncio.Lock()):
            home = self._directory / bundle.sha256
            marker = home / "image.json"
            ids = set(json.loads(marker.read_text())["image_ids"]) if marker.exists() else set()
            if not ids:
                await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)
                await self._build(bundle, home)
            if bundle.image_id not in ids:
                _write_marker(marker, sorted(ids | {bundle.image_id}))
        return PreparedImage(bundle.image_id, bundle.sha256)

    async def _build(self, bundle: ImageBundle, home: Path) -> None:
        log = logger.bind(image=bundle.name, sha256=bundle.sha256)
        dockerfile = await asyncio.to_thread(_unpack, bundle.path, home)
        lines = pip_lines(dockerfile)
        for skipped in lines.skipped:
            log.bind(line=skipped).info("build step was skipped (process runtime)")
        await self._run(home, [sys.executable, "-m", "venv", "--without-pip", str(home / "venv")])
        await asyncio.to_thread(_share_own_packages, home / "venv")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python(bundle.sha256))]
        for arguments in lines.installs:
            options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
            await self._run(home, [*pip, "install", *options, *arguments])
        log.bind(installs=len(lines.installs)).info("image was prepared")

    async def _run(self, home: Path, command: Sequence[str]) -> None:
        with (home / "build.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=home / "bundle" / "context",
                env=self._pip_env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            code = await asyncio.wait_for(process.wait(), PIP_TIMEOUT_S)
        except asyncio.TimeoutError:
            code = -signal.SIGKILL
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code != 0:
            tail = (home / "build.log").read_text(errors="replace")[-_LOG_TAIL_CHARS:]
            raise RuntimeFailed("image_failed", f"a build step ended with {code}: {tail}")


def _unpack(bundle: Path, home: Path) -> str:
    """Unpack a bundle beneath ``home`` and return its Dockerfile.

    Raises:
        RuntimeFailed: ``image_failed``: no zip, too large, or a path that leaves the folder.
    """
    target = (home / "bundle").resolve()
    (target / "context").mkdir(parents=True)
    try:
        with zipfile.ZipFile(bundle) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(e.file_size for e in entries) > MAX_UNPACKED_BYTES:
                raise RuntimeFailed("image_failed", "the bundle unpacks to too much")
            for entry in entries:
                if not (target / entry.filename).resolve().is_relative_to(target):
                    raise RuntimeFailed("image_failed", "the bundle names a path outside of itself")
                archive.extract(entry, target)
        return (target / "Dockerfile").read_text()
    except (zipfile.BadZipFile, OSError, RuntimeError, UnicodeDecodeError) as error:
        raise RuntimeFailed("image_failed", f"the bundle cannot be read: {error}") from error


def _share_own_packages(venv: Path) -> None:
    checkout = Path(chutes_core.__file__).resolve().parent.parent
    packages = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    target = next((venv / "lib").glob("python*/site-packages"))
    (target / "zz_chutes_miner.pth").write_text("\n".join([str(checkout), *packages]) + "\n")


def _write_marker(marker: Path, image_ids: list[str]) -> None:
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps({"image_ids": image_ids}))
    temporary.replace(marker)
