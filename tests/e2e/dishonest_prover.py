"""A prover that cheats, started in place of `python -m graval.prover` by a dishonest miner.

Usage: dishonest_prover.py MODE -m graval.prover …; MODE is flip, late or other.
"""

import dataclasses
import sys
import time

from graval.challenge import Leg1, Leg2
from graval.prover import __main__ as honest
from graval.prover.prove import Prover

LATE_S = 14.0  # above D1 of the test profile


class Cheat(Prover):
    """Answers, but not what was asked, or not in time."""

    def __init__(self, prover, mode):
        self.__dict__ = prover.__dict__
        self._mode = mode

    def answer_leg1(self, leg: Leg1):
        if self._mode == "late":
            time.sleep(LATE_S)
        if self._mode == "other":  # the right answer to another challenge
            nonce = bytes(len(leg.context.nonce))
            context = dataclasses.replace(leg.context, nonce=nonce)
            return super().answer_leg1(dataclasses.replace(leg, context=context))
        answer = super().answer_leg1(leg)
        if self._mode == "flip":
            digest = bytes([answer.digest[0] ^ 1]) + answer.digest[1:]
            return dataclasses.replace(answer, digest=digest)
        return answer

    def answer_leg2(self, leg: Leg2):
        if self._mode == "other":
            leg = dataclasses.replace(leg, challenge_id=self._challenge_id)
        return super().answer_leg2(leg)


def main():
    mode, _, _, *arguments = sys.argv[1:]
    serve = honest.serve
    honest.serve = lambda prover, source, sink: serve(Cheat(prover, mode), source, sink)
    return honest.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
