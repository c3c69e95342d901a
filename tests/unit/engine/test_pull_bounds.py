"""A registry that a validator names cannot fill a miner's disk without end."""

import json

import pytest

from chutes_core.base.errors import TooLarge
from chutes_core.engine.registry import MAX_PULL_BYTES, Access, pull_exactly

REFERENCE = f"r.example.com/x@sha256:{'d' * 64}"


class Answer:
    """What an engine streams of a pull that goes on for ever."""

    status_code = 200

    def __init__(self):
        self.closed = False
        self.read = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def iter_content(self, chunk_size=None, decode_unicode=False):
        del chunk_size, decode_unicode
        while True:
            self.read += 1
            assert self.read < 10_000, "it was read on"
            size = MAX_PULL_BYTES // 100
            yield (
                json.dumps(
                    {
                        "id": f"layer{self.read}",
                        "status": "Downloading",
                        "progressDetail": {"current": 1, "total": size},
                    }
                ).encode()
                + b"\n"
            )


class Api:
    base_url, api_version = "http://engine", "1.41"

    def __init__(self):
        self.answer = Answer()

    def post(self, *_, **__):
        return self.answer


class Client:
    def __init__(self):
        self.api = Api()


def test_a_pull_over_the_bound_is_cut_off():
    """The connection is closed as soon as the layers begun add up to more."""
    client = Client()
    with pytest.raises(TooLarge) as refused:
        pull_exactly(client, REFERENCE, Access(), lambda _: None)
    assert refused.value.code == "bad_image_ref"
    assert client.api.answer.closed
    assert client.api.answer.read <= 102
