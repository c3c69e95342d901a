"""`chutes build --local`: the image on this machine's own Docker engine, twice.

First the image as the validator would build it, tagged ``user/name:tag``; then one on top of it,
``user/name:tag-dev``, that can run `chutes run --dev`: this SDK's own files and the HTTP server,
copied from this installation, so that nothing is downloaded for them. Invariant: nothing is sent
to a validator, and the folder that is built from is deleted again.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chutes_core.base.errors import Conflict, NotFound
from chutes_core.cli.options import note
from chutes_core.sdk.image import Image

ROOMS = ("base", "cli", "sdk", "wire")
SERVER = ("uvicorn", "h11")  # pure Python both
NEEDS = ("bittensor-core", "click", "cryptography", "fastapi", "httpx", "pydantic")
_FOLDER = "/opt/chutes-dev"
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", "*.so")  # for any interpreter
_START = (
    "import sys; sys.path.insert(0, '/opt/chutes-dev'); "
    "from chutes_core.cli.main import main; sys.exit(main())"
)


@dataclass(frozen=True)
class LocalImage:
    """The two images that were made."""

    name: str
    dev_name: str

    def run_command(self, chute_ref: str) -> str:
        """Return the command that serves the chute inside the container."""
        return (
            f'docker run --rm -p 8000:8000 -v "$PWD:/work" -w /work {self.dev_name} '
            f"run {chute_ref} --dev --host 0.0.0.0"
        )


def build_locally(image: Image, files: dict[str, Path], *, quiet: bool) -> LocalImage:
    """Build both images.

    Args:
        image: the image as declared.
        files: the build context: name in it -> file.
        quiet: whether the engine's own output is kept back.

    Raises:
        NotFound: ``docker_missing``. Conflict: ``build_failed``.
    """
    if shutil.which("docker") is None:
        raise NotFound(
            "docker_missing",
            "there is no `docker` command here",
            hint="install Docker, or leave --local out: the validator builds, too",
        )
    made = LocalImage(image.full_name.lower(), f"{image.full_name.lower()}-dev")
    with tempfile.TemporaryDirectory(prefix="chutes-build-") as place:
        own, dev = Path(place, "own"), Path(place, "dev")
        _write(own, f"{image.dockerfile()}\n", files)
        note(f"building {made.name}")
        _docker_build(own, made.name, quiet=quiet)
        _write_dev(dev, made.name)
        note(f"building {made.dev_name}, which can serve the chute")
        _docker_build(dev, made.dev_name, quiet=quiet)
    return made


def dev_dockerfile(name: str) -> str:
    """Return the Dockerfile of the image that can serve.

    >>> dev_dockerfile("bob/app:1").splitlines()[0]
    'FROM bob/app:1'
    """
    lines = (
        f"FROM {name}",
        "USER 0:0",
        "ARG PIP_BREAK_SYSTEM_PACKAGES=1",
        "ARG PIP_ROOT_USER_ACTION=ignore",
        # Installed already in the base image; else fetched.
        f"RUN python -m pip install --quiet --disable-pip-version-check {' '.join(NEEDS)}",
        f"COPY . {_FOLDER}",
        f'ENTRYPOINT ["python", "-c", "{_START}"]',
        "CMD []",
    )
    return "\n".join(lines) + "\n"


def _write(folder: Path, dockerfile: str, files: dict[str, Path]) -> None:
    folder.mkdir()
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / "Dockerfile").write_text(dockerfile, encoding="utf-8")


def _write_dev(folder: Path, name: str) -> None:
    package = Path(__file__).resolve().parents[1]
    for room in ROOMS:
        shutil.copytree(package / room, folder / "chutes_core" / room, ignore=_SKIPPED)
    shutil.copy(package / "__init__.py", folder / "chutes_core" / "__init__.py")
    for module in SERVER:
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise NotFound(
                "uvicorn_missing", f"{module} is not installed here", hint="pip install uvicorn"
            )
        shutil.copytree(Path(found.origin).parent, folder / module, ignore=_SKIPPED)
    (folder / "Dockerfile").write_text(dev_dockerfile(name), encoding="utf-8")


def _docker_build(folder: Path, tag: str, *, quiet: bool) -> None:
    command = ["docker", "build", "--tag", tag, str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL if quiet else sys.stderr.fileno(), check=False
    )
    if done.returncode:
        raise Conflict(
            "build_failed",
            f"`docker build` ended with {done.returncode}",
            hint="its output above says where",
        )
