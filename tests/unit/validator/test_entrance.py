"""The validator's entrance as others than its operator read it."""

import subprocess
import sys
from pathlib import Path

ENTRANCE = Path(__file__).parents[3] / "neurons/validator.py"
READS = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__mp_main__")
print(*(name for name in sys.modules if name.startswith("chutes_core.")))
"""


def test_a_helper_process_that_reads_the_entrance_imports_no_validator():
    """The verifier's pool starts helpers from it: they need its path and nothing that it runs."""
    read = subprocess.run(
        [sys.executable, "-c", READS, ENTRANCE], check=True, capture_output=True, text=True
    )
    assert read.stdout.split() == []
