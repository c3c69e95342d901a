"""What the runner brings into a chute's process."""

import subprocess
import sys

ABSENT = (
    "aiohttp bittensor docker fastapi graval.prover graval.verifier loguru numpy pydantic_settings "
    "sqlite_utils torch uvicorn"
)


def test_the_runner_imports_only_what_every_image_has():
    """Neither the web framework (until START) nor anything of the servers is imported."""
    code = f"""
import sys
import chutes_core.runner.__main__
print([name for name in {ABSENT.split()!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
