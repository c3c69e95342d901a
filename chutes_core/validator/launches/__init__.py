"""One launch from requested to gone: the transition table and the only writer of states."""
