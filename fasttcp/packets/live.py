"""Packets of a network interface, by libpcap: a stream in the pcap format, as a file that grows would be.

Needs the extra `fasttcp[live]` (cypcap). Must not stand here: what is done with packets. Each one passes through Python
once, about 1 us, which bounds what can be followed live; what libpcap's buffer (16 MiB) cannot hold meanwhile is dropped
by the kernel and counted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import struct
import sys
from typing import Any, NamedTuple

from fasttcp.errors import CaptureError

__all__ = ["LiveCapture", "LiveStatistics"]

SNAPLEN = 262144  # libpcap's MAXIMUM_SNAPLEN
BUFFER = 16 << 20
WAIT_SECONDS = 0.1  # for a packet, in one call of `readinto`
AT_ONCE = 4096  # packets between two looks at what waits already

_HEADER = struct.Struct("=IHHiIII")  # pcap, in this machine's byte order, microseconds
_RECORD = struct.Struct("=IIII")


class LiveStatistics(NamedTuple):
    """What libpcap counts; on Linux `received` includes packets that the filter let pass and nobody has read yet."""

    received: int
    dropped: int  # there was no room in the buffer
    interface_dropped: int  # by the network card or its driver


class LiveCapture(io.RawIOBase):
    """An interface as a source for `track`: ``track(LiveCapture("eth0", "tcp port 443"), follow=True)``.

    Parameters
    ----------
    interface : str
        For example "eth0"; on Linux "any" stands for all.
    bpf : str
        A filter of pcap-filter(7); "" lets all packets pass.
    promiscuous : bool
        Also packets for other hosts, if the interface can.

    Raises
    ------
    CaptureError
        There is no such interface, no permission, a filter that libpcap does not understand, or no cypcap. The message
        names the interface and what helps.
    """

    #: `readinto` waits by itself for packets, and 0 is no end.
    waits = True

    def __init__(self, interface: str, bpf: str = "", *, promiscuous: bool = False) -> None:
        super().__init__()
        self.name = interface
        self._pcap: Any = None
        self._last: LiveStatistics | None = None
        try:
            import cypcap
        except ImportError:
            raise CaptureError("live capture needs cypcap: pip install 'fasttcp[live]'", interface) from None
        self._error = cypcap.Error
        try:
            pcap = cypcap.create(interface)
            pcap.set_snaplen(SNAPLEN)
            pcap.set_promisc(promiscuous)
            pcap.set_buffer_size(BUFFER)
            pcap.set_timeout(WAIT_SECONDS)
            pcap.activate()
            pcap.setnonblock(True)
        except cypcap.Error as failure:
            raise CaptureError(_why(cypcap, interface, failure), interface) from None
        if bpf:
            try:
                pcap.setfilter(bpf, netmask=cypcap.NETMASK_UNKNOWN)  # else cypcap 0.6 prints to stdout
            except cypcap.Error as failure:
                pcap.close()
                raise CaptureError(f"the filter {bpf!r}: {failure.args[-1]}", interface) from None
        self._pcap = pcap
        self._held = bytearray(_HEADER.pack(0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, int(pcap.datalink())))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Bytes of a pcap file; 0 when no packet came for 0.1 s. OSError when the interface is gone."""
        if self._pcap is None:
            raise ValueError(f"the capture on {self.name} is closed")
        if not self._held:
            self._wait()
        view = memoryview(buffer).cast("B")
        n = min(len(view), len(self._held))
        view[:n] = self._held[:n]
        del self._held[:n]
        return n

    def statistics(self) -> LiveStatistics:
        """Counts since the capture began; after `close` the last ones."""
        if self._pcap is not None:
            with contextlib.suppress(self._error):
                counted = self._pcap.stats()
                self._last = LiveStatistics(counted.recv, counted.drop, counted.ifdrop)
        return self._last or LiveStatistics(0, 0, 0)

    def close(self) -> None:
        if self._pcap is not None:
            self.statistics()
            self._pcap.close()
            self._pcap = None
        super().close()

    def _wait(self) -> None:
        try:
            descriptor = self._pcap.get_selectable_fd()
            if descriptor >= 0:
                select.select([descriptor], [], [], WAIT_SECONDS)
            self._pcap.dispatch(AT_ONCE, self._take)
        except self._error as failure:
            raise OSError(errno.EIO, f"the capture ended: {failure.args[-1]}") from None

    def _take(self, header: Any, data: bytes) -> None:
        microseconds = round(header.ts * 1e6)  # a double tells times of this century apart by 0.24 us
        record = _RECORD.pack(microseconds // 1_000_000, microseconds % 1_000_000, len(data), header.len)
        self._held += record + data  # at once: Ctrl-C may come between two statements


def _why(cypcap: Any, interface: str, failure: Any) -> str:
    code, text = failure.args[0], str(failure.args[-1])
    if code == cypcap.ErrorCode.NO_SUCH_DEVICE:
        names = []
        with contextlib.suppress(cypcap.Error):
            names = [device.name for device in cypcap.findalldevs()]
        return f"there is no such interface; there are {', '.join(names)}" if names else "there is no such interface"
    if code in (cypcap.ErrorCode.PERM_DENIED, cypcap.ErrorCode.PROMISC_PERM_DENIED):
        hint = "run as root"
        if sys.platform.startswith("linux"):
            hint += f", or once: setcap cap_net_raw+eip {os.path.realpath(sys.executable)}"
        return f"no permission to capture: {hint}"
    if code == cypcap.ErrorCode.IFACE_NOT_UP:
        return "the interface is down"
    return text
