"""What crosses a process border: signing, sealing, frames and message models.

PROTOCOL_MIN and PROTOCOL_MAX travel in every handshake; N and N-1 interoperate.
"""

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
