"""The model cache in containers on a real engine: found again, kept apart, and nowhere else."""

import asyncio
import os
import time
import uuid

import pytest

from chutes_core.base.clock import SystemClock
from chutes_core.engine.run import CACHE, USER_ID
from chutes_core.miner.cache.folders import Folders, Key
from chutes_core.miner.cache.hidden import hidden_bytes
from chutes_core.miner.cache.model_cache import ModelCache
from chutes_core.miner.cache.upkeep import Bounds
from chutes_core.miner.runtime.base import InstanceSpec, PreparedImage
from scripts.runtimes import ensure_base_image
from tests.docker.test_standby_containers import WAIT_S, Place

MIB = 1 << 20
A, B = Key("va", str(uuid.UUID(int=1))), Key("va", str(uuid.UUID(int=2)))
# stands in for a chute: says what it finds, keeps its models, and holds a file without a name
CHUTE = """#!/bin/sh
echo "finds $(cat "$HF_HOME"/model 2>/dev/null)" >&2
mkdir -p "$HF_HOME" && printf %s "$WRITES" >"$HF_HOME"/model
exec 9<>"$CHUTES_CACHE_DIR"/nameless
head -c 3145728 /dev/zero >&9
rm "$CHUTES_CACHE_DIR"/nameless
echo "at $HF_HOME as $(id -u) beside $(ls -a "$CHUTES_CACHE_DIR"/.. | tr '\\n' ' ')" >&2
touch /elsewhere 2>/dev/null && echo escaped >&2
echo '{"port": 7, "public_key": "ab"}'
while :; do sleep 1; done
"""


class World(Place):
    """A miner's cache and runtime."""

    def __init__(self, folder):
        super().__init__(CHUTE)
        self.in_use, self.overran = {}, []
        self.folders = Folders(folder / "model-cache", user_id=USER_ID)
        self.cache = ModelCache(
            self.folders,
            Bounds(64 * MIB, 32 * MIB, 0),
            in_use=lambda: self.in_use,
            overran=lambda key, said: self.overran.append(key),
            clock=SystemClock(),
        )

    async def launch(self, key, writes, image=None):
        """Start an instance of a chute and return its launch id, its folder and what it said."""
        self.in_use[key] = 1
        files = await self.cache.lend(*key, 1)
        launch_id = str(uuid.uuid4())
        env = {"CHUTES_RUNNER_LAUNCH_ID": launch_id, "WRITES": writes}
        await self.runtime.start(InstanceSpec(launch_id, image or self.image, env, cache=files))
        await self.runtime.wait_ready(launch_id, WAIT_S)
        deadline = time.monotonic() + WAIT_S
        while "beside" not in (said := self.runtime.log_tail(launch_id, 4000)):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        return launch_id, files, said

    async def end(self, key, launch_id):
        await self.runtime.stop(launch_id, 0)
        del self.in_use[key]
        await self.cache.look()


@pytest.fixture
def world(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives a container's user a folder")
    ensure_base_image()
    world = World(tmp_path)
    yield world
    world.close()
    world.folders.close()


async def test_a_chute_finds_its_models_again_and_nobody_elses(world):
    """Another container of the same chute sees them; that of another chute begins with none."""
    first, files, said = await world.launch(A, "bert")
    assert "finds \n" in said
    assert f"at {CACHE}/huggingface as {USER_ID}" in said
    assert "escaped" not in said
    assert (files / "huggingface" / "model").read_text() == "bert"
    other, others, said = await world.launch(B, "llama")
    assert "finds \n" in said
    assert others != files
    assert 3 * MIB <= hidden_bytes(files, CACHE) < 4 * MIB  # held open, and in no folder
    await world.end(A, first)
    await world.end(B, other)
    assert hidden_bytes(files, CACHE) == 0
    assert world.cache.warm() == {A, B}
    again, same, said = await world.launch(A, "bert")
    assert same == files
    assert "finds bert\n" in said
    await world.end(A, again)


async def test_an_image_that_brings_its_models_keeps_their_place(world):
    """Where the image says HF_HOME itself, the cache does not hide what lies there."""
    made = world.client.api.create_container(world.digest, "true")["Id"]
    own = world.client.api.commit(made, changes=["ENV HF_HOME=/tmp/own"])
    world.client.api.remove_container(made, v=True)
    image = PreparedImage("i2", "b" * 64, str(own["Id"]))
    try:
        launch_id, files, said = await world.launch(A, "bert", image)
        assert "at /tmp/own" in said
        assert not (files / "huggingface").exists()
        await world.end(A, launch_id)
    finally:
        world.client.api.remove_image(image.image_digest, force=True, noprune=True)
