"""The few netlink messages that the helpers need: one request, its answers, errors as OSError.

Must not know what the messages mean. Layouts: linux/netlink.h, linux/rtnetlink.h.
"""

import os
import socket
import struct

NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3


def attribute(kind: int, value: bytes) -> bytes:
    """One rtattr, padded to four bytes. Attributes nest by concatenation."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def request(protocol: int, kind: int, flags: int, body: bytes) -> list[bytes]:
    """Sends one request from the caller's network namespace; returns the bodies of the answers, none for a bare ack.

    Raises OSError with the kernel's errno.
    """
    answers: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as channel:
        channel.settimeout(5)
        channel.sendto(struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, 1, 0) + body, (0, 0))
        while True:
            data, at = channel.recv(1 << 18), 0
            while at < len(data):
                length, answer, _, _, _ = struct.unpack_from("=IHHII", data, at)
                payload = data[at + 16 : at + length]
                if answer == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", payload)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answers
                if answer == NLMSG_DONE:
                    return answers
                answers.append(payload)
                if not flags & (NLM_F_ACK | NLM_F_DUMP):
                    return answers
                at += (length + 3) & ~3
