"""Records the packets of one interface by AF_PACKET, as tcpdump would, with the kernel's own time stamps.

Only interfaces inside a Namespace that a test made. Must not know TCP states.
"""

import socket
import struct
import time

from . import frames, pcap
from .netns import Namespace

ETH_P_ALL = 3
SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING = 263, 8, 23  # linux/if_packet.h
TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_VALID = 1 << 3, 1 << 4
SO_TIMESTAMPNS = 35  # asm-generic/socket.h: nanoseconds of CLOCK_REALTIME, as timespec
LARGEST = 1 << 16


class Sniffer:
    """A context manager; `drain()` moves what the kernel has seen so far into the writer.

    `incoming_only` is for the loopback interface, where each packet is seen once leaving and once arriving. A checksum
    that the kernel left to the hardware is completed, and a VLAN tag that it took out of the frame is put back.
    """

    def __init__(
        self, namespace: Namespace, interface: str, writer: pcap.Writer, *, incoming_only: bool = False
    ) -> None:
        self.writer = writer
        self.channel = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.channel.setblocking(False)
            self.channel.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self.channel.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            _wait_for_stamps()
            if incoming_only:
                self.channel.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            self.channel.bind((interface, ETH_P_ALL))
        except OSError:
            self.channel.close()
            raise

    def __enter__(self) -> "Sniffer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.channel.close()

    def drain(self) -> int:
        """Returns how many packets were added."""
        before = len(self.writer.records)
        while True:
            try:
                frame, ancillary, _, _ = self.channel.recvmsg(LARGEST, 256)
            except BlockingIOError:
                return len(self.writer.records) - before
            time_ns = None
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                    time_ns = _stamp(data)
                elif (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status, _, _, _, _, tag, _ = struct.unpack("=IIIHHHH", data[:20])
                    if status & TP_STATUS_CSUMNOTREADY and frames.parse(frame):
                        frame = frames.with_checksum(frame)
                    if status & TP_STATUS_VLAN_VALID:
                        frame = frames.tagged(frame, tag)
            if time_ns is None:
                raise RuntimeError("the kernel gave no time stamp with a packet")
            self.writer.add(time_ns, frame)


def _stamp(data: bytes) -> int:
    seconds, nanoseconds = struct.unpack("@ll", data[: struct.calcsize("@ll")])
    return seconds * 10**9 + nanoseconds


def _wait_for_stamps() -> None:
    """Some time after it was asked to, the kernel begins to stamp packets when it meets them (net_enable_timestamp leaves
    that to a worker); one that it met before is dated when it is read. Packets on loopback tell whether it has begun."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", 0))
        here.settimeout(5)
        here.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for _ in range(1000):
            here.sendto(b"?", here.getsockname())
            sent_ns = time.time_ns()
            time.sleep(0.005)
            _, ((_, _, data), *_), _, _ = here.recvmsg(1, 256)
            if _stamp(data) <= sent_ns:
                return
    raise RuntimeError("the kernel dates packets only when they are read")
