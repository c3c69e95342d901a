"""Whether what an instance says of a complete job can be kept and shown. Pure.

Invariant: a result that passes is JSON that our own answers can carry, and a file's name that
passes stays below the folder that somebody downloads it into.
"""

import json
from pathlib import PurePosixPath

from chutes_core.wire.job import JobReport


def objection(report: JobReport) -> str:
    """Return the reason (domain/jobs) why a report cannot be kept, or an empty string."""
    if report.result and not is_plain_json(report.result):
        return "bad_job_result"
    names = [file.name for file in report.files]
    if len(set(names)) != len(names) or not all(map(is_safe_name, names)):
        return "bad_file_name"
    return ""


def is_plain_json(text: str) -> bool:
    """Tell whether a text is JSON without half characters, and numbers that JSON can say.

    >>> is_plain_json('{"a": 1}'), is_plain_json("1e999"), is_plain_json("[")
    (True, False, False)
    """
    try:
        json.dumps(json.loads(text), allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return True


def is_safe_name(name: str) -> bool:
    """Tell whether a name is a plain relative path.

    >>> [is_safe_name(name) for name in ("logs/a.txt", "../a", "/etc/x", "a//b", ".", "C:/x")]
    [True, False, False, False, False, False]
    """
    path = PurePosixPath(name)
    if not name.isprintable() or "\\" in name or not path.parts or str(path) != name:
        return False
    return not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]
