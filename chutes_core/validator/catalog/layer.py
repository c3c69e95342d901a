"""The last layer of every image: the runner, installed into the image's own Python and tried.

Pure text. Every command is in the exec form with the interpreter's absolute path, so that neither
the image's shell nor its PATH matters; the trial runs as the user that instances run as. Invariant:
the image's entry point is the runner, its health check and stop signal are ours, and the label
PYTHON_LABEL names the interpreter for whoever starts it another way; BUILDER_LABEL names the
validator that built it, which alone removes it from its engine.
"""

import json

RUNNER_USER = 10001
"""Also the user of the miner's containers (miner/runtime/docker)."""
PYTHON_LABEL = "chutes.python"
BUILDER_LABEL = "chutes.built-by"
_FOLDER = "/opt/chutes"
_TRY = """
import chutes_core.runner.__main__, chutes_core.sdk.loader
from chutes_core.sdk.compat import install
install()
from chutes.chute import Chute
assert Chute.__module__.startswith("chutes_core."), Chute.__module__
try:
    import graval.prover.numpy_backend
except ImportError as error:
    print("note: stand-in GPUs will not work in this image:", error)
print("the runner can be imported")
"""
"""A real GPU's prover is the miner's own, so an image where numpy cannot load is still an image."""


def layer_dockerfile(image: str, python: str, wheel_name: str, built_by: str) -> str:
    """Return the Dockerfile of the last layer.

    Args:
        image: id of the image that the developer's Dockerfile made.
        python: absolute path of its interpreter.
        wheel_name: the wheel's name in the context.
        built_by: the value of BUILDER_LABEL.
    """
    wheel = f"{_FOLDER}/{wheel_name}"
    install = [python, "-m", "pip", "install", "--no-input", "--no-cache-dir"]
    install += ["--quiet", "--disable-pip-version-check", "--progress-bar", "off", wheel]
    lines = (
        f"FROM {image}",
        # A build argument is in the environment of RUN and not in the image's.
        "ARG PIP_BREAK_SYSTEM_PACKAGES=1",
        "ARG PIP_ROOT_USER_ACTION=ignore",
        "USER 0:0",
        f"COPY {wheel_name} {wheel}",
        f"RUN {json.dumps(install)}",
        f"USER {RUNNER_USER}:{RUNNER_USER}",
        f"RUN {json.dumps([python, '-B', '-c', _TRY])}",
        "HEALTHCHECK NONE",
        "STOPSIGNAL SIGTERM",
        f"ENTRYPOINT {json.dumps([python, '-m', 'chutes_core.runner'])}",
        "CMD []",
        f"LABEL {PYTHON_LABEL}={json.dumps(python)} {BUILDER_LABEL}={json.dumps(built_by)}",
    )
    return "\n".join(lines) + "\n"
