"""`python -m graval.prover --gpu INDEX --backend auto|triton|torch|numpy [--declare CLASS]`.

A child process: `graval.messages` on stdin and stdout, logs of libraries on stderr. It writes one
WARM when the device is ready, answers legs, and exits 0 on QUIT or at the end of its input. On any
error it writes one ERROR (code, text, hint) and exits 1.

With `--later` it imports its backend and waits for its arguments and environment: one line of JSON
before the frames. It opens no device before that line, and exits 0 where none comes.

The process ends without Python's own tidying up: whoever wants the device's memory waits for the
end of the process, and the kernel gives back what it held in any case.

Invariant: nothing but frames reaches stdout: file descriptor 1 is pointed at stderr before a
backend is imported, because CUDA and compilers print.
"""

import argparse
import json
import os
import sys
from typing import BinaryIO, NoReturn

from graval.challenge import Leg1, Leg2
from graval.errors import GravalError, ProtocolViolation
from graval.messages import MAX_ERROR_TEXT, ErrorReport, Kind, Message, read, write
from graval.prover.backend import BACKENDS, Choice, open_backend, prepare
from graval.prover.prove import Prover


def main(arguments: list[str] | None = None) -> int:
    """Run the prover on this process's stdin and stdout; the exit status."""
    options = _parser().parse_args(arguments)
    source, sink = _claim_streams()
    if options.later:
        prepare(options.backend)
        line = source.readline()
        if not line:
            return 0
        order = json.loads(line)
        os.environ.update(order["environ"])
        options = _parser().parse_args(order["arguments"])
    choice = Choice(gpu=options.gpu, declare=options.declare, uuid=options.uuid)
    try:
        prover = Prover(open_backend(options.backend, choice))
        serve(prover, source, sink)
    except GravalError as error:
        return _report(sink, ErrorReport(error.code, error.message[:MAX_ERROR_TEXT], error.hint))
    except MemoryError as error:
        return _report(sink, ErrorReport("host_memory", f"out of host memory: {error}"))
    except BrokenPipeError:
        return 1  # whoever started us is gone
    except Exception as error:  # noqa: BLE001 # the process's edge: the parent must learn of it
        text = f"{type(error).__name__}: {error}"[:MAX_ERROR_TEXT]
        return _report(sink, ErrorReport("internal", text))
    return 0


def serve(prover: Prover, source: BinaryIO, sink: BinaryIO) -> None:
    """Speak until QUIT or the end of the input.

    Raises:
        GravalError: what the prover or the framing refused.
    """
    write(sink, Message(Kind.WARM, prover.warm_up().to_bytes()))
    while (message := read(source)) is not None and message.kind is not Kind.QUIT:
        if message.kind is Kind.LEG1:
            answer = prover.answer_leg1(Leg1.from_bytes(message.body))
        elif message.kind is Kind.LEG2:
            answer = prover.answer_leg2(Leg2.from_bytes(message.body))
        else:
            raise ProtocolViolation("unexpected", f"a prover takes no {message.kind.name}")
        write(sink, Message(Kind.ANSWER, answer.to_bytes()))
    prover.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m graval.prover", description=__doc__)
    parser.add_argument("--gpu", type=int, default=0, help="index among the visible GPUs")
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto")
    parser.add_argument("--declare", help="class that a CPU stands in for (devnet only)")
    parser.add_argument("--later", action="store_true", help="wait for a line with the arguments")
    parser.add_argument("--uuid", help="UUID of a stand-in (devnet only)")
    return parser


def _claim_streams() -> tuple[BinaryIO, BinaryIO]:
    """Our own stdin and stdout; file descriptor 1 then points at stderr."""
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return sys.stdin.buffer, sink


def _report(sink: BinaryIO, report: ErrorReport) -> int:
    try:
        write(sink, Message(Kind.ERROR, report.to_bytes()))
    except BrokenPipeError:
        return 1
    return 1


def end(status: int) -> NoReturn:
    """Leave the process now; what was written has been flushed."""
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end(main())
