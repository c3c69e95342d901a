"""Testing chutes with pytest: a chute run in the test's own process, without Docker or a network.

>>> from chutes_core.testing import ChuteClient
>>> from chutes_core.sdk.chute import Chute
>>> chute = Chute(username="bob", name="app", image="bob/app:1")
>>> @chute.cord(public_api_path="/double")
... async def double(self, n: int) -> int:
...     return 2 * n
>>> with ChuteClient(chute) as client:
...     client.call(double, n=21), client.post("/double", json={"n": 4}).json()
(42, 8)

Invariant: importing this package changes nothing; ``install()``, or the loading of a chute file,
makes ``import chutes`` our SDK.
"""

from chutes_core.sdk.compat import install
from chutes_core.testing.client import ChuteClient, JobOutput

__all__ = ["ChuteClient", "JobOutput", "install"]
