"""Which validators a miner believes."""

import itertools
from dataclasses import dataclass, field

import pytest
from bittensor_core import Keypair

from chutes_core.base.clock import ManualClock
from chutes_core.base.errors import ChutesError, Forbidden, Unavailable
from chutes_core.miner.chain_view import CallerPolicy, ChainView, Seen
from chutes_core.miner.discovery import Directory, ServePolicy, candidates, check_url
from chutes_core.wire.control import Handshake
from chutes_core.wire.discovery import WellKnown, commitment_of

URL = "http://127.0.0.1:9"
KEY = Keypair.create_from_uri("//Validator")
OTHER = Keypair.create_from_uri("//Other")


@dataclass(frozen=True)
class Neuron:
    hotkey: str
    stake_rao: int = 1000
    validator_permit: bool = True
    axon_ip: str | None = None
    axon_port: int | None = None


@dataclass(frozen=True)
class Metagraph:
    neurons: tuple
    block: int = 7

    def by_hotkey(self, hotkey_ss58):
        return next((n for n in self.neurons if n.hotkey == hotkey_ss58), None)

    def validators(self):
        return tuple(n for n in self.neurons if n.validator_permit)


@dataclass
class FakeChain:
    graph: Metagraph
    texts: dict = field(default_factory=dict)
    served: list = field(default_factory=list)
    genesis_hash = "0xgenesis"
    is_devnet = True
    netuid = 3

    def metagraph(self):
        return self.graph

    def commitments(self):
        return self.texts

    def serve_axon(self, hotkey, ip, port):
        self.served.append((ip, port))

    def close(self):
        pass


def seen(*neurons, url=URL):
    return Seen(Metagraph(neurons), {n.hotkey: commitment_of(url) for n in neurons})


def well_known(nonce, *, key=KEY, url=URL, genesis="0xgenesis"):
    return WellKnown(
        handshake=Handshake(version="1"),
        hotkey=KEY.ss58_address,
        url=url,
        netuid=3,
        genesis_hash=genesis,
        nonce=nonce,
    ).signed(key)


def directory(fetch, clock=None):
    return Directory(
        fetch,
        policy=ServePolicy(None, 0),
        genesis_hash="0xgenesis",
        netuid=3,
        allow_private=True,
        clock=clock or ManualClock(),
    )


def test_candidates_need_permit_stake_choice_and_url():
    """Only permitted, staked, chosen validators with a commitment of ours are asked."""
    good, poor = Neuron("5good"), Neuron("5poor", stake_rao=1)
    view = seen(good, poor, Neuron("5miner", validator_permit=False))
    assert [v.hotkey for v in candidates(view, ServePolicy(None, 10))] == ["5good"]
    assert candidates(view, ServePolicy(frozenset({"5else"}), 0)) == ()
    assert candidates(Seen(view.metagraph, {"5good": "hello"}), ServePolicy(None, 0)) == ()


async def test_a_signed_answer_makes_a_validator():
    """A URL that answers over our nonce is used, and asked again only after a while."""
    asked, clock = [], ManualClock()

    async def fetch(url, nonce):
        asked.append(url)
        return well_known(nonce)

    book = directory(fetch, clock)
    view = seen(Neuron(KEY.ss58_address))
    assert [v.url for v in await book.refresh(view)] == [URL]
    assert await book.refresh(view) == ()
    assert len(asked) == 1
    clock.advance(301)
    assert await book.refresh(view) == ()
    assert len(asked) == 2
    assert await book.refresh(seen()) == ()
    assert book.validators == ()


@pytest.mark.parametrize(
    "answer",
    [
        lambda nonce: well_known("another"),
        lambda nonce: well_known(nonce, key=OTHER),
        lambda nonce: well_known(nonce, genesis="0xelse"),
        lambda nonce: well_known(nonce, url="http://127.0.0.1:10"),
    ],
)
async def test_a_wrong_answer_makes_none(answer):
    """A replayed, foreign or misplaced answer is not believed."""

    async def fetch(url, nonce):
        return answer(nonce)

    book = directory(fetch)
    await book.refresh(seen(Neuron(KEY.ss58_address)))
    assert book.validators == ()


async def test_a_validator_that_is_down_stays_while_its_url_does():
    """Once checked, a validator is kept through an outage, and dropped when its URL changes."""
    clock, up = ManualClock(), [True]

    async def fetch(url, nonce):
        if not up[0]:
            raise Unavailable("peer_unreachable", "down")
        return well_known(nonce)

    book = directory(fetch, clock)
    await book.refresh(seen(Neuron(KEY.ss58_address)))
    up[0] = False
    clock.advance(301)
    await book.refresh(seen(Neuron(KEY.ss58_address)))
    assert len(book.validators) == 1
    await book.refresh(seen(Neuron(KEY.ss58_address), url="http://127.0.0.1:10"))
    assert book.validators == ()


async def test_a_dead_url_is_tried_ever_less_often():
    """Waits double up to a minute, so that one dead validator does not slow each round."""
    clock, asked = ManualClock(), []

    async def fetch(url, nonce):
        asked.append(clock.now_s())
        raise Unavailable("peer_unreachable", "down")

    book = directory(fetch, clock)
    for _ in range(300):
        await book.refresh(seen(Neuron(KEY.ss58_address)))
        clock.advance(1)
    waits = [b - a for a, b in itertools.pairwise(asked)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://9.9.9.9",
        "file:///etc/passwd",
        "http://u:p@9.9.9.9",
        "http://",
        "http://9.9.9.9:x",
        "http://9.9.9.9/path",
        "http://9.9.9.9?query",
    ],
)
async def test_only_plain_http_urls(url):
    """Other schemes, credentials and broken URLs are refused."""
    with pytest.raises(ChutesError) as caught:
        await check_url(url, allow_private=True)
    assert caught.value.code == "bad_validator_url"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://10.1.2.3", "http://[::1]:8000"])
async def test_private_addresses_need_a_devnet(url):
    """Off a devnet a URL that leads inside is refused."""
    await check_url(url, allow_private=True)
    with pytest.raises(Forbidden) as caught:
        await check_url(url, allow_private=False)
    assert caught.value.code == "private_address"
    await check_url("https://9.9.9.9", allow_private=False)


async def test_callers_need_registration_permit_and_stake():
    """Every refused caller is told why."""
    chain = FakeChain(Metagraph((Neuron("5v", 500), Neuron("5m", 500, validator_permit=False))))
    view = ChainView(chain, hotkey_ss58="5m")
    with pytest.raises(Forbidden, match="not been read"):
        await CallerPolicy(view, min_stake_rao=0).authorise("5v")
    await view.refresh()
    await CallerPolicy(view, min_stake_rao=500).authorise("5v")
    for hotkey, least, code in (("5x", 0, "not_registered"), ("5m", 0, "no_permit")):
        with pytest.raises(Forbidden) as caught:
            await CallerPolicy(view, min_stake_rao=least).authorise(hotkey)
        assert caught.value.code == code
    with pytest.raises(Forbidden, match="minimum"):
        await CallerPolicy(view, min_stake_rao=501).authorise("5v")


async def test_an_axon_is_announced_once():
    """An address that the chain shows already is not sent again."""
    chain = FakeChain(Metagraph((Neuron("5m", axon_ip="9.9.9.9", axon_port=5),)))
    view = ChainView(chain, hotkey_ss58="5m")
    await view.refresh()
    assert not await view.announce(KEY, "9.9.9.9", 5)
    assert await view.announce(KEY, "9.9.9.9", 6)
    assert chain.served == [("9.9.9.9", 6)]
