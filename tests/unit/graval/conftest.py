import dataclasses

import pytest

from graval.challenge import SeedContext
from graval.params import PROFILES
from graval.prover.backend import Choice, open_backend
from graval.prover.prove import Prover
from graval.verifier import build_challenge


@pytest.fixture(scope="session")
def prover():
    """A warm prover on a stand-in H100."""
    opened = Prover(open_backend("numpy", Choice(0, declare="h100_sxm")))
    opened.warm_up()
    return opened


@pytest.fixture(scope="session")
def context(prover):
    """A seed context for that prover and the test profile."""
    return SeedContext(
        nonce=b"n" * 32,
        validator_hotkey="5Validator",
        miner_hotkey="5Miner",
        instance_id="instance-1",
        node_id="node-1",
        instance_public_key=b"k" * 32,
        gpu_index=0,
        gpu_count=1,
        device=prover.warm_up().device,
        profile_name="test",
        rows=PROFILES["test"].rows(0),
        time_s=1_790_000_000,
    )


@pytest.fixture(scope="session")
def challenge(context):
    return build_challenge(context, PROFILES["test"], secret=b"s" * 32)


@pytest.fixture(scope="session")
def honest(prover, challenge):
    """Both canonical answers of an honest prover."""
    one = prover.answer_leg1(challenge.leg1)
    return one.to_bytes(), prover.answer_leg2(challenge.leg2).to_bytes()


@pytest.fixture
def replace():
    return dataclasses.replace
