"""Provers of which the last misbehaves, started in place of `python -m graval.prover`.

Usage: one_bad_prover.py MODE INDEX MARK -m graval.prover --gpu N ...; with N equal to INDEX it
dies on its first leg (missing), writes MARK before it answers leg 2 (late), or flips a bit (wrong).
"""

import dataclasses
import os
import sys
from pathlib import Path

from graval.prover import __main__ as honest


class Bad:
    """A prover that does one thing wrong."""

    def __init__(self, prover, mode, mark):
        self._prover, self._mode, self._mark = prover, mode, mark

    def __getattr__(self, name):
        return getattr(self._prover, name)

    def answer_leg1(self, leg):
        if self._mode == "missing":
            os._exit(9)
        answer = self._prover.answer_leg1(leg)
        if self._mode == "wrong":
            digest = bytes([answer.digest[0] ^ 1]) + answer.digest[1:]
            return dataclasses.replace(answer, digest=digest)
        return answer

    def answer_leg2(self, leg):
        answer = self._prover.answer_leg2(leg)
        if self._mode == "late":
            Path(self._mark).touch()
        return answer


def main():
    mode, index, mark, _, _, *arguments = sys.argv[1:]
    if arguments[arguments.index("--gpu") + 1] == index:
        serve = honest.serve
        honest.serve = lambda prover, *streams: serve(Bad(prover, mode, mark), *streams)
    return honest.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
