"""What crosses a process border: signing, sealing, frames and message models.

PROTOCOL_MIN and PROTOCOL_MAX travel in every handshake; N and N-1 interoperate, except that nobody
speaks version 1 any more: from 2 on messages that are sent together are one frame (wire/together).
"""

PROTOCOL_MIN = 2
PROTOCOL_MAX = 2
