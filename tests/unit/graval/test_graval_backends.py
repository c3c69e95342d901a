"""Opening a backend where there is no torch."""

import builtins
import sys

import pytest

from graval.errors import BackendUnavailable
from graval.prover.backend import Choice, open_backend


@pytest.fixture
def no_torch(monkeypatch):
    """A Python in which importing torch fails."""
    honest = builtins.__import__

    def refuse(name, *rest, **named):
        if name.split(".")[0] in ("torch", "triton"):
            raise ImportError(f"No module named {name!r}")
        return honest(name, *rest, **named)

    for module in [m for m in sys.modules if m.split(".")[0] in ("torch", "triton")]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("cuda", "torch_backend", "triton_backend", "triton_kernels"):
        monkeypatch.delitem(sys.modules, f"graval.prover.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("name", ["auto", "torch", "triton"])
def test_a_missing_torch_is_a_typed_error(no_torch, name):
    """The reason and the way out are named."""
    with pytest.raises(BackendUnavailable) as caught:
        open_backend(name, Choice(0))
    assert caught.value.code == "torch_missing"
    assert caught.value.hint


def test_an_unknown_backend_is_a_typed_error():
    """A name that is no backend is refused."""
    with pytest.raises(BackendUnavailable):
        open_backend("abacus", Choice(0))


def test_stand_ins_of_one_class_differ_by_index_and_by_uuid():
    """Two stand-ins never share a UUID unless told to."""
    uuids = [
        open_backend("auto", Choice(gpu, declare="l4", uuid=uuid)).device_info().uuid
        for gpu, uuid in ((0, None), (1, None), (0, "mine"))
    ]
    assert len(set(uuids)) == 3
