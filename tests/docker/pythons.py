"""Images with another Python than the base's, or with the public package, for tests."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from docker.errors import BuildError

PLACES = ("/root/.pyenv/versions", "/opt/python", "/usr/local/python")
PUBLIC = "chutes>=0.6,<0.7"
_LEFT_OUT = {"__pycache__", "test", "tests", "idlelib", "ensurepip"}


def home_of(version):
    """Return where this machine keeps a Python of that version, or None."""
    found = [path for place in PLACES for path in Path(place).glob(f"{version}.*/bin/python3")]
    return found[0].parent.parent if found else None


def python_alone(client, folder, *, base, version, name):
    """Make an image with one Python alone, copied from this machine where it has that version."""
    home = home_of(version)
    if home is None:
        pytest.skip(f"this machine has no Python {version} that can be copied into an image")
    with tarfile.open(folder / "python.tar", "w") as tar:
        tar.add(home, "python", filter=_slim)
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nADD python.tar /opt/\n"
        "RUN echo /opt/python/lib >/etc/ld.so.conf && /sbin/ldconfig\n"
        "RUN rm -rf /usr/bin/python* /usr/bin/pip* /usr/lib/python3* /usr/local/bin/python*\n"
        "ENV PATH=/opt/python/bin:/usr/local/bin:/usr/bin:/bin\n"
    )
    client.images.build(path=str(folder), tag=name, rm=True)


def public_package(client, folder, *, base, name):
    """Make an image with the public `chutes` package and all that it requires.

    Its wheels are made on this machine, for one requirement has to be compiled: so the image's
    Python has to be this one.
    """
    asked = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-input", "--wheel-dir"]
    done = subprocess.run(
        [*asked, str(folder / "wheels"), PUBLIC],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"the public package cannot be had here: {done.stderr[-300:]}")
    version = "{}.{}".format(*sys.version_info)
    same = f"import sys; assert '{{}}.{{}}'.format(*sys.version_info) == '{version}'"
    (folder / "Dockerfile").write_text(
        f'FROM {base}\nRUN python -c "{same}"\nCOPY wheels /wheels\n'
        "RUN python -m pip install -q --no-compile --no-index --find-links /wheels chutes"
        " && rm -r /wheels && python -c 'import chutes; print(chutes.__file__)'\n"
    )
    try:
        client.images.build(path=str(folder), tag=name, rm=True)
    except BuildError as error:
        if "AssertionError" in str(error) or "assert" in str(error):
            pytest.skip(f"the base image's Python is not {version}, for which there are wheels")
        raise


def _slim(entry):
    if _LEFT_OUT & set(entry.name.split("/")):
        return None
    return None if entry.name.endswith(".a") else entry
