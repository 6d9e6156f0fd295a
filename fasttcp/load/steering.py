"""Which queue of a TUN device a packet goes to, as a program for the kernel (BPF, socket filter).

    queue = how many of the bounds are not above the key        key: the port, or the address, to which a packet goes

So each queue gets a range of ports or of addresses. A packet that is too short to have the key goes to queue 0. The kernel
takes such a program from root alone (CAP_BPF, in the user namespace that it was booted with) where
kernel.unprivileged_bpf_disabled is not 0; once loaded, it may be used in any namespace. Must not know devices.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from enum import Enum

__all__ = ["Key", "bpf", "load_steering"]

BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 5, 1  # linux/bpf.h
SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}  # asm/unistd.h; all of them little-endian
WORD = (1 << 32) - 1

# linux/bpf_common.h, linux/bpf.h. The packet's bytes are read in network order.
LOAD_BYTE, LOAD_WORD, LOAD_HALF_AT, LOAD_HALF = 0x30, 0x20, 0x48, 0x28  # into r0; _AT: the offset is in a register as well
LOAD_64 = 0x18  # an immediate of 64 bits; its upper half is in the next instruction
MOVE, SET, AND, OR, SHIFT_LEFT, IF_GREATER, EXIT = 0xBF, 0xB7, 0x57, 0x4F, 0x67, 0x2D, 0x95


class Key(Enum):
    """What a packet is steered by."""

    PORT = "port"
    ADDRESS = "address"


def _op(code: int, to: int = 0, of: int = 0, skip: int = 0, value: int = 0) -> bytes:
    return struct.pack("<BBhI", code, of << 4 | to, skip, value & WORD)


def _constant(to: int, value: int) -> bytes:
    return _op(LOAD_64, to, value=value) + _op(0, value=value >> 32)


def _key(key: Key, version: int) -> bytes:
    """Leave the key of a packet in r7 (upper 64 bits) and r8."""
    code = _op(MOVE, 6, 1) + _op(SET, 7)  # the loads want the packet in r6
    if key is Key.PORT and version == 4:
        code += _op(LOAD_BYTE, value=0) + _op(AND, 0, value=15) + _op(SHIFT_LEFT, 0, value=2)  # the header's length
        return code + _op(MOVE, 9, 0) + _op(LOAD_HALF_AT, 0, 9, value=2) + _op(MOVE, 8, 0)
    if key is Key.PORT:
        return code + _op(LOAD_HALF, value=42) + _op(MOVE, 8, 0)
    if version == 4:
        return code + _op(LOAD_WORD, value=16) + _op(MOVE, 8, 0)
    for register, at in ((7, 24), (8, 32)):
        code += _op(LOAD_WORD, value=at) + _op(SHIFT_LEFT, 0, value=32) + _op(MOVE, register, 0)
        code += _op(LOAD_WORD, value=at + 4) + _op(OR, register, 0)
    return code


def program(key: Key, version: int, bounds: Sequence[int]) -> bytes:
    """The instructions. bounds: ascending; ports, or addresses of this IP version as numbers."""
    code = _key(key, version)
    for queue in range(len(bounds), 0, -1):
        bound = bounds[queue - 1]
        code += _constant(2, bound >> 64) + _constant(3, bound)
        code += _op(IF_GREATER, 2, 7, skip=4) + _op(IF_GREATER, 7, 2, skip=1) + _op(IF_GREATER, 3, 8, skip=2)
        code += _op(SET, 0, value=queue) + _op(EXIT)
    return code + _op(SET, 0) + _op(EXIT)


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """The system call; it may write into an array. OSError for what it refuses, and where its number is not known."""
    number = SYS_BPF.get(platform.machine())
    if number is None or not sys.platform.startswith("linux") or sys.maxsize < WORD:
        raise OSError(errno.ENOSYS, f"BPF is not known on {platform.system()}, {platform.machine()}")
    answer = ctypes.CDLL(None, use_errno=True).syscall(number, command, attributes, len(attributes))
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(answer)


def load_steering(key: Key, version: int, bounds: Sequence[int]) -> int:
    """A file descriptor of the program, loaded. OSError where this process may not."""
    code = program(key, version, bounds)
    held, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    return bpf(
        BPF_PROG_LOAD,
        struct.pack(
            "=IIQQIIQ32x", BPF_PROG_TYPE_SOCKET_FILTER, len(code) // 8, ctypes.addressof(held), ctypes.addressof(licence), 0, 0, 0
        ),
    )
