"""The SDK's tests leave neither the compat finder nor loaded chute files behind."""

import sys
from collections.abc import Callable, Iterator

import httpx
import pytest

from chutes_core.sdk import compat
from chutes_core.sdk.chute import Chute


@pytest.fixture(autouse=True)
def clean_imports(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    for name in ("CHUTES_EXECUTION_CONTEXT", "CHUTES_API_URL", "CHUTES_API_KEY", "CHUTES_DEV_URL"):
        monkeypatch.delenv(name, raising=False)
    empty = tmp_path_factory.mktemp("config") / "config.ini"
    monkeypatch.setenv("CHUTES_CONFIG_PATH", str(empty))
    yield
    compat.uninstall()
    for name in [name for name in sys.modules if name.startswith("chute_file_")]:
        del sys.modules[name]


@pytest.fixture
def chute() -> Chute:
    return Chute(username="bob", name="app", image="bob/app:1")


@pytest.fixture
def client_of() -> Callable[[Chute], httpx.AsyncClient]:
    def make(chute: Chute) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(chute), base_url="http://chute")

    return make
