"""The loop that belongs to user code."""

import asyncio
import threading

import pytest

from chutes_core.runner.chute_loop import ChuteLoop


@pytest.fixture
def chute_loop():
    loop = ChuteLoop()
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield loop
    loop.stop()
    thread.join()


async def test_work_runs_on_the_other_thread_and_its_result_comes_back(chute_loop):
    """A coroutine runs where user code lives."""

    async def where():
        return threading.current_thread()

    assert await chute_loop.submit(where()) is not threading.current_thread()


async def test_a_stray_exit_of_user_code_does_not_end_the_loop(chute_loop):
    """``sys.exit`` in a task of the chute's own is survived."""

    async def leave():
        raise SystemExit(3)

    async def go():
        stray = asyncio.ensure_future(leave())
        await asyncio.wait({stray})
        return isinstance(stray.exception(), SystemExit)

    assert await asyncio.wait_for(chute_loop.submit(go()), 10)


def test_a_stopped_loop_takes_no_more_calls():
    """Late notices of a session that ends are dropped, not raised."""
    loop = ChuteLoop()
    loop.stop()
    loop.run()
    loop.soon(print, "never")
