"""Run by the public client's Python: print what the public SDK makes of chute files, as JSON.

usage: python public_dump.py FILE.txt… (each with a variable ``chute``); the folder it runs in has
the files that their images add. What is printed is what `chutes deploy` of that package sends.
"""

import json
import sys
import types
from pathlib import Path

CORD = {
    "method": "_method",
    "path": "path",
    "public_api_path": "public_api_path",
    "public_api_method": "_public_api_method",
    "stream": "_stream",
    "input_schema": "input_schema",
    "output_schema": "output_schema",
    "output_content_type": "output_content_type",
    "minimal_input_schema": "minimal_input_schema",
    "passthrough": "_passthrough",
}
OPTIONS = (
    "allow_external_egress",
    "concurrency",
    "encrypted_fs",
    "lock_modules",
    "max_instances",
    "readme",
    "revision",
    "scaling_threshold",
    "shutdown_after_seconds",
    "standard_template",
    "tagline",
    "tee",
)


def main(paths):
    """Print {name of the file: what it amounts to}."""
    print(json.dumps({Path(path).stem: described(load(path)) for path in paths}))


def load(path):
    """Run a chute file and return its chute."""
    module = types.ModuleType(f"chute_{Path(path).stem}")
    sys.modules[module.__name__] = module
    exec(compile(Path(path).read_text(), path, "exec", dont_inherit=True), module.__dict__)
    return getattr(module.chute, "chute", module.chute)


def described(chute):
    """Return a chute as the public client would send it."""
    image = chute.image
    named = isinstance(image, str)
    return {
        **{name: getattr(chute, name) for name in OPTIONS},
        "chute_id": chute.uid,
        "node_selector": chute.node_selector.model_dump(),
        "image": image if named else {"image_id": image.uid, "dockerfile": str(image)},
        "cords": [cord_of(cord) for cord in chute._cords],
        "jobs": [job_of(job) for job in chute._jobs],
    }


def cord_of(cord):
    """Return one cord."""
    document = {name: getattr(cord, attribute) for name, attribute in CORD.items()}
    return {"function": cord._func.__name__, **document}


def job_of(job):
    """Return one job."""
    ports = [{"name": port.name, "port": port.port, "proto": port.proto} for port in job.ports]
    return {"name": job._name, "ports": ports, "timeout": job.timeout, "upload": job.upload}


if __name__ == "__main__":
    main(sys.argv[1:])
