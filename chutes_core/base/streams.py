"""The standard streams of a process that runs on uvloop.

Invariant: descriptors 0 to 2 are open before a loop is made, whatever the parent closed.
"""

import os


def fill_standard_streams() -> None:
    """Open what the parent closed of 0 to 2, lest a socket get that number: libuv aborts then."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
