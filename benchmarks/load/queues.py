"""To which queue of a TUN device with two (IFF_MULTI_QUEUE) the kernel gives the answers to what one queue has sent.

    python -m benchmarks.load.queues [--connections N ...]        (Linux; root or user namespaces)

All connections are opened on the first queue; each answer to a SYN that is found on the second one would be the wrong
thread's, if two threads shared nothing. Once with the kernel's own choice, and once with a BPF program that chooses by the
last bit of the address to which a packet goes (TUNSETSTEERINGEBPF), all of ours being even.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import platform
import struct
import subprocess
import sys

from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TUNSETIFF, Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.server import OwnServer

TUNSETSTEERINGEBPF = 0x800454E0  # linux/if_tun.h
BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 5, 1  # linux/bpf.h
SYS_BPF = {"x86_64": 321, "aarch64": 280}
LAST_OCTET = 19  # of the destination address, in an IPv4 header
CHOOSE = b"".join(
    struct.pack("=BBhi", code, registers, 0, value)
    for code, registers, value in (
        (0xBF, 0x16, 0),  # r6 = r1, the packet
        (0x30, 0, LAST_OCTET),  # r0 = the octet
        (0x57, 0, 1),  # r0 &= 1
        (0x95, 0, 0),  # return r0
    )
)


def steering() -> int:
    """The BPF program, loaded. OSError where this process may not."""
    code, licence = ctypes.create_string_buffer(CHOOSE, len(CHOOSE)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQ32x", BPF_PROG_TYPE_SOCKET_FILTER, len(CHOOSE) // 8, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0
    )
    call = ctypes.CDLL(None, use_errno=True).syscall
    fd = call(SYS_BPF[platform.machine()], BPF_PROG_LOAD, attributes, len(attributes))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return int(fd)


def second_queue(name: str) -> int:
    """One more file of a device."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE))
    return fd


def drained(fd: int) -> int:
    """How many packets waited there."""
    n = 0
    while True:
        try:
            os.read(fd, 65600)
            n += 1
        except BlockingIOError:
            return n


def measure(connections: int, steered: bool) -> None:
    program = steering() if steered else -1  # before the user namespace, in which it may not be loaded
    enter_private_network()
    with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",), multi_queue=True) as tun:
        other = second_queue(tun.name)
        if steered:
            fcntl.ioctl(tun.fd, TUNSETSTEERINGEBPF, struct.pack("=i", program))
        with OwnServer("198.18.0.1", 80, mode="backlog", connections=connections):
            table = ConnectionTable(4096, max_capacity=2 * connections + 4096, seed=1)
            client = LoadClient(
                table, tun.fd, [f"198.19.0.{host}" for host in range(2, 18, 2)], [("198.18.0.1", 80)], connecting_limit=connections
            )
            client.plan(hold=connections)
            client.run(500_000_000)
            here, there = client.counts()["packets_in"], drained(other)
            how = "steered" if steered else "the kernel's choice"
            print(f"{here + there:7,} answers: {there / max(here + there, 1):.1%} on the other queue ({how})", flush=True)
            client.cut()
            client.run(100_000_000)
        os.close(other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[1000, 4000, 20_000])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        try:
            measure(args.one[0], bool(args.one[1]))
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    failed = 0
    for connections in args.connections:  # each in a process of its own: a private network is for good
        for steered in "01":
            call = [sys.executable, "-m", "benchmarks.load.queues", "--one", str(connections), steered]
            failed |= subprocess.run(call, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
