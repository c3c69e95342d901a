"""A gateway in a process of its own, to be killed: `python served_gateway.py DIRECTORY`.

Reads one JSON line (launch id, port, ticket, root of an instance), prints one (port, key), serves.
"""

import asyncio
import json
import sys
from pathlib import Path

import uvloop
from gateway_stand_in import World, planed

from chutes_core.validator.domain.snapshot import InstanceView
from chutes_core.validator.gateway.gateway import Gateway
from chutes_core.validator.gateway.journal import Journal


async def control(scope: object, receive: object, send: object) -> None:
    raise AssertionError("only invocations come here")


async def main(directory: Path) -> None:
    launch_id, port, ticket, root = json.loads(sys.stdin.readline())
    world = World()
    user_id = world.user(spendable_rao=10**18)
    chute, key = world.chute(user_id), world.key(user_id)
    view = InstanceView(
        launch_id,
        chute.chute_id,
        "127.0.0.1",
        port,
        bytes.fromhex(ticket),
        bytes.fromhex(root),
        concurrency=16,
    )
    world.instances[chute.chute_id] = (view,)
    gateway = Gateway(control=control, journal=Journal(directory, "w1"))
    gateway.swap(world.snapshot())
    async with planed(gateway) as own:
        print(json.dumps([own, key]), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
