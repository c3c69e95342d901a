"""A real OCI registry (Debian's docker-registry) on this host: asks for passes or passwords."""

import contextlib
import json
import shutil
import subprocess
import threading

import pytest

PROGRAM = "docker-registry"
USER, PASSWORD = "puller", "let me in"
# bcrypt of PASSWORD at its least cost
_HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuTnc8amReAFiMHxaSoW9U22KarbWnkSm\n"


@contextlib.contextmanager
def registry(folder, auth):
    """Serve a registry of an empty folder within the block and yield its ``host:port``.

    Args:
        folder: for its data.
        auth: the registry's `auth` section.
    """
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"{PROGRAM} is not installed (apt-get install docker-registry)")
    folder.mkdir(parents=True)
    config = folder / "config.yml"
    storage = {
        "filesystem": {"rootdirectory": str(folder / "data")},
        "delete": {"enabled": True},
        "maintenance": {"uploadpurging": {"enabled": False}},
    }
    document = {
        "version": "0.1",
        "log": {"formatter": "json", "level": "info"},
        "storage": storage,
        "http": {"addr": "127.0.0.1:0"},
        "auth": auth,
    }
    config.write_text(json.dumps(document))  # JSON is YAML
    process = subprocess.Popen(
        [PROGRAM, "serve", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        address = _address(process)
        reader = threading.Thread(target=process.stdout.read)  # a full pipe would stop it
        reader.start()
        yield address
    finally:
        process.kill()
        process.wait()
    reader.join()
    process.stdout.close()


def with_passes(certificate, issuer, service):
    """Return the `auth` section of a registry that believes a validator's passes."""
    token = {
        "realm": "http://127.0.0.1:1/nobody",
        "service": service,
        "issuer": issuer,
        "rootcertbundle": str(certificate),
    }
    return {"token": token}


def with_password(folder):
    """Return the `auth` section of a registry that knows USER."""
    file = folder / "htpasswd"
    file.write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "images", "path": str(file)}}


def _address(process):
    for line in process.stdout:
        with contextlib.suppress(ValueError):
            said = json.loads(line)["msg"]
            if said.startswith("listening on "):
                return said.removeprefix("listening on ")
    raise AssertionError(f"the registry ended with {process.wait()}")
