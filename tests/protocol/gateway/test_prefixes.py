import json
import math
from dataclasses import replace

import pytest
from gateway_stand_in import House, Incoming

from chutes_core.validator.gateway import routing


async def echo(call: Incoming) -> None:
    await call.answer(call.body)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/c/bob-echo/v1/chat/completions"])
async def test_conversations_stay_with_their_instance(
    house: House, instance, path: str, monkeypatch: pytest.MonkeyPatch
):
    """Calls of an LLM that begin alike reach one instance, by model and by path, on both fronts."""
    monkeypatch.setattr(routing, "AFFINITY_SLACK", math.inf)  # however the machine stalls
    chute = replace(house.chute, standard_template="vllm")
    house.world.chutes[chute.chute_id] = chute
    several = [await instance(echo) for _ in range(3)]
    house.serve(*several)
    homes: dict[str, set[int]] = {}
    for _ in range(4):
        for system in ("red", "green", "blue", "white"):
            body = {"model": "model/bob-echo", "messages": [{"content": system}]}
            before = [len(one.calls) for one in several]
            answer = await house.post(path, content=json.dumps(body))
            assert answer.status_code == 200
            (home,) = (n for n, one in enumerate(several) if len(one.calls) > before[n])
            homes.setdefault(system, set()).add(home)
    assert [len(one) for one in homes.values()] == [1, 1, 1, 1]
