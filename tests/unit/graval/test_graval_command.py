"""`python -m graval info|selftest`."""

import json

from graval import golden
from graval.__main__ import main
from graval.params import PROFILES


def test_selftest_passes_without_a_gpu(capsys):
    """Every vector holds; what could not run is said."""
    assert main(["selftest", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert len(report["checks"]) >= len(golden.GOLDEN)


def test_selftest_fails_on_a_mismatch(capsys, monkeypatch):
    """One wrong vector makes the exit status 1 and is named."""
    monkeypatch.setitem(golden.GOLDEN, "answer 1", "00")
    assert main(["selftest"]) == 1
    assert "answer 1, ok False" in capsys.readouterr().out


def test_a_backend_that_computes_wrong_is_caught(challenge):
    """The comparison of a device's answers with the CPU's can fail."""
    from graval.prover.backend import Choice, open_backend

    device = open_backend("numpy", Choice(0, declare="h100_sxm"))
    honest = golden.check_backend("numpy", device, 256)
    assert [o.name for o in honest] == [f"numpy: answers of profile {name}" for name in PROFILES]
    assert all(o.ok for o in honest)
    honest_fill = device.fill

    def broken_fill(seed, layers, rows):
        honest_fill(seed, layers, rows)
        device._rows = device._rows ^ 1

    device.fill = broken_fill
    assert not any(o.ok for o in golden.check_backend("numpy", device, 256))


def test_info_lists_profiles_references_and_backends(capsys):
    """A reader sees what could run here and what the figures rest on."""
    assert main(["info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {
        "version", "backends", "profiles", "known_gpus", "references", "fallback",
    }  # fmt: skip
    assert report["references"]["h200/periodic"]["basis"] == "measured"
    assert main(["info"]) == 0
