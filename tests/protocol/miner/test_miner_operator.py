"""What an operator asks a running miner, and the doctor, over real sockets."""

import asyncio
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import Conflict, Exhausted, NotFound, Unavailable
from chutes_core.miner.app import run
from chutes_core.miner.doctor.examine import examine
from chutes_core.miner.operate import fetch, read_status, status_text
from chutes_core.validator.launches.dialback import BURST, DialBacks
from chutes_core.wire.control import DialBackRequest
from tests.protocol.miner.test_miner_app import WAIT_S, connect_to, until, wallet, world
from tests.protocol.miner.test_miner_app import settings as one_gpu

__all__ = ["one_gpu", "wallet", "world"]


@pytest.fixture
def settings(one_gpu):
    # the tiny runner would go on for ever
    return one_gpu.model_copy(update={"declare_gpu": "h100_sxm:2", "drain_seconds": 1.0})


async def stop(running):
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, WAIT_S) == 0


async def test_the_status_says_what_runs_what_it_earns_and_why_the_rest_is_idle(
    world, settings, wallet
):
    """One GPU serves and the other has its reason; metrics tell the same."""
    chain, validator = world
    own = wallet.hotkey.ss58_address
    chain.neurons[own] = replace(chain.neurons[own], incentive=77)
    chute = validator.want(rao_per_hour=500)
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await validator.until(lambda: validator.events_of("listening"), WAIT_S)
    (launch_id, _), *_ = validator.events_of("listening")
    validator.set_state(launch_id, "active")

    async def serves():
        found = await asyncio.to_thread(read_status, settings)
        return found if [one.state for one in found.launches] == ["active"] else None

    found = None
    for _ in range(600):
        found = await serves()
        if found:
            break
        await asyncio.sleep(0.05)
    assert found is not None
    assert (found.registered, found.incentive, found.users_pay_rao_per_hour) == (True, 77, 500)
    assert [one.chute_id for one in found.launches] == [chute.chute_id]
    assert sorted(gpu.idle_reason for gpu in found.gpus) == ["", "nothing_wanted"]
    assert [one.hotkey for one in found.validators] == [validator.hotkey]
    assert "serves " + launch_id in status_text(found)
    metrics = (await asyncio.to_thread(fetch, settings, "/metrics")).decode()
    assert 'chutes_miner_launches{state="active"} 1.0' in metrics
    assert "chutes_miner_users_pay_rao_per_hour 500.0" in metrics
    assert 'reason="nothing_wanted"' in metrics
    await stop(running)


async def test_nothing_is_told_without_the_operators_token(world, settings, tmp_path):
    """/metrics and /status, and every other path, answer 401 to who does not know the token."""
    chain, _ = world
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await until(lambda: (tmp_path / "data" / "operator-token").exists() and chain.reads > 2)
    token = tmp_path / "data" / "operator-token"
    assert token.stat().st_mode & 0o077 == 0
    port = json.loads((tmp_path / "data" / "ports.json").read_text())["operator"]

    def ask(path, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    for path in ("/metrics", "/status", "/docs", "/openapi.json", "/nothing"):
        assert await asyncio.to_thread(ask, path) == 401
        assert await asyncio.to_thread(ask, path, Authorization="Bearer wrong") == 401
    good = {"Authorization": f"Bearer {token.read_text()}"}
    assert await asyncio.to_thread(ask, "/metrics", **good) == 200
    assert await asyncio.to_thread(ask, "/nothing", **good) == 404
    await stop(running)
    with pytest.raises(Unavailable) as caught:
        await asyncio.to_thread(read_status, settings)
    assert caught.value.code == "miner_not_running"


def test_a_miner_that_never_ran_is_told_apart(settings):
    """Without a token in the data directory there is nobody to ask."""
    with pytest.raises(NotFound) as caught:
        read_status(settings)
    assert caught.value.code == "miner_never_ran"


def states(report):
    return {finding.check: finding.state for finding in report.findings}


async def test_the_doctor_finds_a_host_well_from_outside_too(world, settings):
    """Keys, chain, registration, validators; both ports are dialled back and the clock agrees."""
    chain, _ = world
    report = await examine(settings, connect_to(chain))
    found = states(report)
    assert (report.exit_code, report.as_json()["well"]) == (0, True), report.text()
    for check in ("hotkey", "registration", "validators", "port", "relay port", "clock"):
        assert found[check] == "ok"
    assert chain.closed


async def test_the_doctor_dials_a_running_miner_and_says_what_is_unreachable(world, settings):
    """The running miner answers on its port; a port that is announced wrong fails with its fix."""
    chain, _ = world
    running = asyncio.create_task(run(settings, connect=connect_to(chain)))
    await until(lambda: chain.reads > 2)
    ports = json.loads((settings.data_path / "ports.json").read_text())
    taken = settings.model_copy(update={"port": ports["http"], "relay_port": ports["relay"]})
    assert states(await examine(taken, connect_to(chain)))["port"] == "ok"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wrong = taken.model_copy(update={"external_port": nobody.getsockname()[1]})
        report = await examine(wrong, connect_to(chain))
    assert states(report)["port"] == "fail"
    assert states(report)["relay port"] == "ok"
    assert report.exit_code == 4
    assert "NAT" in next(f.fix for f in report.findings if f.check == "port")
    await stop(running)


async def test_the_doctor_names_each_thing_that_is_missing_with_its_fix(world, settings, wallet):
    """No chain, no hotkey, no registration: each fails by itself, and what needs it is skipped."""
    chain, _ = world
    del chain.neurons[wallet.hotkey.ss58_address]
    report = await examine(settings, connect_to(chain))
    (registration,) = (f for f in report.findings if f.check == "registration")
    assert registration.state == "fail"
    assert "scripts/register.py" in registration.fix
    assert states(report)["validators"] == "skip"

    def down(url, netuid):
        raise Unavailable("chain_unreachable", "no node answers", hint="look at the node")

    unkeyed = settings.model_copy(update={"hotkey": "nobody"})
    report = await examine(unkeyed, down)
    failed = {f.check: f.fix for f in report.findings if f.state == "fail"}
    assert failed.keys() == {"hotkey", "chain"}
    assert all(failed.values())
    assert report.exit_code == 4


async def test_a_stranger_learns_nothing_from_the_reachable_route(world, wallet):
    """Only the caller's own address is dialled, and only a few times a minute."""

    class Network:
        def miner(self, hotkey):
            return None

        def may_dial(self, address):
            return False

    backs = DialBacks(Network(), ManualClock())
    caller = Keypair.create_from_uri("//Stranger").ss58_address
    request = DialBackRequest(port=1, relay_port=2)
    for _ in range(BURST):
        with pytest.raises(Conflict):
            await backs.dial(caller, "10.0.0.1", request)
    with pytest.raises(Exhausted):
        await backs.dial(caller, "10.0.0.1", request)
