"""scripts/subnet.py: what it finds, and that its plan, carried out on a chain, leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path

import bittensor as bt
import pytest

from chutes_core.chain.client import ChainClient
from chutes_core.chain.extrinsics import submit
from chutes_core.chain.hyperparameters import (
    KNOWN_WEIGHTS_VERSION,
    NOBODY,
    OWNER,
    ROOT,
    RULES,
    judge,
    owner_problems,
    read_values,
)
from chutes_core.devnet.launch import DevnetProcess
from chutes_core.devnet.pallets.admin_utils import _OWNER_MAY
from chutes_core.validator.scoring import weights
from scripts import subnet as script

SCRIPT = Path(__file__).parents[3] / "scripts" / "subnet.py"


@pytest.fixture(scope="module")
def net():
    """A devnet of its own: its subnet is changed."""
    with DevnetProcess(block_seconds=0.1, tempo=20) as running:
        yield running


@pytest.fixture
def run(net, capsys):
    """Run the script in this process; return exit status and JSON."""

    def call(command, *options, url=net.url):
        status = script.main([command, "--network", url, "--netuid", str(net.netuid), *options])
        return status, capsys.readouterr().out

    return call


def carry_out(client, key, planned):
    """Send one planned extrinsic as its signer would, from its printed call data."""
    call_data = bytes.fromhex(planned["call_data"][2:])

    async def build(substrate):
        inner = await substrate.compose(bt.calls.System.remark(remark=b""))
        inner = type(inner)(data=call_data, spec_version=inner.spec_version)
        if planned["signer"] == OWNER:
            return inner
        return await substrate.compose(bt.calls.Sudo.sudo(call=inner))

    signer = key("//Owner" if planned["signer"] == OWNER else "//Alice")
    submit(client._connection, build, signer, planned["call"], hotkey_signed=False)


def test_a_plan_that_is_carried_out_leaves_nothing_to_do(net, run, key):
    """check names the differences (3), plan the extrinsics; then check is content (0)."""
    status, out = run("check", "--json")
    found = json.loads(out)
    wrong = {one["name"]: one for one in found["checks"] if not one["ok"]}
    assert (status, found["ok"], found["owner"]) == (script.EXIT_DIFFERS, False, [])
    assert wrong["tempo"]["value"] == 20
    assert all(one["reason"] for one in found["checks"])
    status, out = run("plan", "--json")
    planned = json.loads(out)["extrinsics"]
    assert status == 0
    assert [one["call"] for one in planned] == [f"AdminUtils.sudo_set_{name}" for name in wrong]
    assert {one["signer"] for one in planned} == {OWNER, ROOT}
    status, out = run("plan")
    assert 'btcli call AdminUtils.sudo_set_max_burn --args \'{"netuid": 1, "max_burn": ' in out
    assert out.count("--sudo") == sum(one["signer"] == ROOT for one in planned)
    with ChainClient.connect(net.url, net.netuid) as client:
        for one in planned:
            carry_out(client, key, one)
    status, out = run("check")
    assert (status, "differs" in out) == (0, False)
    assert run("plan") == (0, "nothing to do\n")


def test_it_runs_as_a_command_and_says_what_went_wrong(net):
    """A process of its own: a subnet that is not there is exit 1 with a code, in JSON as well."""
    command = [sys.executable, str(SCRIPT), "check", "--network", net.url, "--netuid", "77"]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "no_such_subnet"
    assert "no_such_subnet" in done.stderr


def test_the_rules_are_the_softwares_and_the_chains():
    """The known version is the validator's; who may set what is the pallet's own table."""
    assert KNOWN_WEIGHTS_VERSION == weights.KNOWN_WEIGHTS_VERSION
    for rule in RULES:
        if rule.who != NOBODY:
            assert (rule.who == OWNER) == (rule.name in _OWNER_MAY), rule.name
            assert hasattr(bt.calls.AdminUtils, rule.call)


def test_a_rule_may_depend_on_another_value_and_the_owner_needs_a_uid(net):
    """The rate limit is bounded by the tempo; a plan stays within the bound."""
    with ChainClient.connect(net.url, net.netuid) as client:
        values = {**read_values(client), "tempo": 100, "weights_set_rate_limit": 90}
        subnet = client.subnet()
        (limit,) = [f for f in judge(values) if f.name == "weights_set_rate_limit"]
    assert (limit.ok, limit.high, limit.wanted) == (False, 75, 75)
    assert owner_problems(subnet, frozenset({subnet.owner_hotkey})) == ()
    assert "has no uid" in owner_problems(subnet, frozenset())[0]
