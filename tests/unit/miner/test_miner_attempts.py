"""Tries against the walls are told once, and never as less than none."""

from chutes_core.miner.attempts import AttemptWatch


def test_each_try_is_told_once():
    """Counts grow by what is new; a counter that began anew counts from its beginning."""
    readings = [
        {("to_host", ""): 3},
        {("to_host", ""): 3, ("processes", "launch-1"): 1},
        {("to_host", ""): 5, ("processes", "launch-1"): 1, ("processes", "launch-2"): 4},
        {("to_host", ""): 1},  # the rules were set again, both containers are gone
    ]
    watch, told = AttemptWatch(lambda: readings.pop(0)), []
    while readings:
        watch.look()
        told.append(dict(watch.counts))
    assert told == [
        {"to_host": 3},
        {"to_host": 3, "processes": 1},
        {"to_host": 5, "processes": 5},
        {"to_host": 6, "processes": 5},
    ]
