"""What an ELF file asks of the loader: the names of the libraries that it needs.

Path: build_prover_bundle -> libraries -> here. Only what is needed of the format: 64 bit,
little-endian, the dynamic segment. Source: System V ABI, chapter 5; elf.h.
"""

import mmap
import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"  # 64 bit, little-endian
_LOAD, _DYNAMIC = 1, 2  # p_type
_NEEDED, _STRTAB = 1, 5  # d_tag


def needed(path: Path) -> tuple[str, ...] | None:
    """Return the DT_NEEDED names of a dynamic ELF file, in order; None where it is none."""
    with path.open("rb") as file:
        if file.read(6) != _MAGIC:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _needed(data)


def _needed(data: mmap.mmap) -> tuple[str, ...] | None:
    offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    loads, dynamic = [], None
    for at in range(offset, offset + size * count, size):
        kind, _, file_at, address, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == _LOAD:
            loads.append((address, file_at, length))
        elif kind == _DYNAMIC:
            dynamic = (file_at, length)
    if dynamic is None:
        return None
    entries = [
        struct.unpack_from("<qQ", data, at) for at in range(dynamic[0], sum(dynamic) - 15, 16)
    ]
    table = next((value for tag, value in entries if tag == _STRTAB), None)
    if table is None:
        return ()
    names = _in_file(loads, table)
    return tuple(_text(data, names + value) for tag, value in entries if tag == _NEEDED)


def _in_file(loads: list[tuple[int, int, int]], address: int) -> int:
    for start, file_at, length in loads:
        if start <= address < start + length:
            return file_at + address - start
    return address


def _text(data: mmap.mmap, at: int) -> str:
    return data[at : data.find(b"\0", at)].decode("ascii", "replace")
