"""docs/settings.md is written from the settings classes, and was."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_settings_is_up_to_date():
    """`python scripts/write_settings.py` has been run since the last change of a setting."""
    command = [sys.executable, str(ROOT / "scripts" / "write_settings.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
