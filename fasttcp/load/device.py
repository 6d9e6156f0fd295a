"""A TUN device: made, brought up, given its routes. It is gone when its file is closed, whatever ends the process.

    kernel's sockets <--> routes <--> [ TUN ] <--> file: one IP packet a read or a write, behind a virtio_net header

A device can have several queues, each a file of its own. What is written to any of them reaches the kernel; to which one it
gives a packet of its own is its choice, or that of a program (steering.py). Must not know segments or connections.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from fasttcp.load.netlink import add_address, add_route, interface_up

if sys.platform != "win32":
    import fcntl

__all__ = ["Tun"]

# linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, TUNSETSTEERINGEBPF = 0x400454CA, 0x400454D0, 0x400454D8, 0x800454E0
IFF_TUN, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x0100, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 0x01, 0x02, 0x04
VNET_HEADER = 10  # bytes, struct virtio_net_hdr
QUEUE = 16_384  # packets that wait for us: the kernel answers a burst of ours at once

IN_CONTAINER = "a container needs `--device /dev/net/tun` when it is started"
MISSING = {
    errno.ENOENT: "/dev/net/tun is missing; as root, `modprobe tun && mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200` "
    f"makes it; {IN_CONTAINER}",
    errno.ENODEV: "the kernel has no TUN driver loaded; `modprobe tun` as root loads it",
    errno.ENXIO: "the kernel has no TUN driver loaded; `modprobe tun` as root loads it",
    errno.EACCES: "/dev/net/tun may not be opened by this user; `chmod 0666 /dev/net/tun` as root allows it",
    errno.EPERM: f"/dev/net/tun may not be opened here; {IN_CONTAINER}",
}


class Tun:
    """A TUN device in the namespace of the calling thread; a context manager.

    Parameters
    ----------
    name : str
        Of the interface; "%d" in it is replaced by a free number.
    addresses : sequence of str
        Addresses of the kernel at the other end, such as "198.18.0.1/32".
    networks : sequence of str
        What the kernel is to send here: the addresses that we speak for. None of them becomes the kernel's own, so that
        it never answers for them.
    offload : bool
        Take and give packets whose TCP checksum is not computed, and segments larger than the MTU.
    queues : int
        How many files it has.
    steering : int
        A loaded BPF program that says to which queue a packet goes, as steering.py makes it; -1: the kernel decides.

    `fds` are its files, non-blocking, `fd` the first of them. Raises OSError with what is missing in words.
    """

    def __init__(
        self,
        name: str = "fasttcp%d",
        *,
        addresses: tuple[str, ...] = (),
        networks: tuple[str, ...] = (),
        mtu: int = 1500,
        offload: bool = True,
        queues: int = 1,
        steering: int = -1,
    ) -> None:
        self.fds: list[int] = []
        self.name = name
        try:
            for _ in range(queues):
                self.fds.append(os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise OSError(error.errno, MISSING.get(error.errno or 0, f"/dev/net/tun: {error.strerror}")) from None
        try:
            flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (IFF_MULTI_QUEUE if queues > 1 else 0)
            for fd in self.fds:
                answer = fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", self.name.encode(), flags))
                self.name = answer[:16].rstrip(b"\0").decode()
            if steering >= 0:
                fcntl.ioctl(self.fd, TUNSETSTEERINGEBPF, struct.pack("=i", steering))
            fcntl.ioctl(self.fd, TUNSETVNETHDRSZ, struct.pack("=i", VNET_HEADER))
            fcntl.ioctl(self.fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 if offload else 0)
            self._sysctl("ipv6", "addr_gen_mode", "1")  # no link-local address: it would only make noise
            interface_up(self.name, mtu=mtu, queue=QUEUE)
            for address in addresses:
                add_address(self.name, address)
            for network in networks:
                self._route(network)
        except OSError as error:
            self.close()
            if error.errno in (errno.EPERM, errno.EACCES):
                own = "a network of its own (load without a target, serve --run)"
                raise OSError(error.errno, f"a TUN device needs CAP_NET_ADMIN here: run as root, or in {own}") from None
            raise

    @property
    def fd(self) -> int:
        return self.fds[0] if self.fds else -1

    def _route(self, network: str) -> None:
        try:
            add_route(self.name, network)
        except FileExistsError as error:
            raise OSError(error.errno, f"{network} is routed elsewhere already: `ip route show {network}` tells where") from None

    def _sysctl(self, family: str, key: str, value: str) -> None:
        try:
            with open(f"/proc/sys/net/{family}/conf/{self.name}/{key}", "w") as file:
                file.write(value)
        except OSError:
            pass  # another kernel, or IPv6 is off

    def route_loopback(self) -> None:
        """Let packets for 127.0.0.0/8 come in here (route_localnet), and be answered."""
        with open(f"/proc/sys/net/ipv4/conf/{self.name}/route_localnet", "w") as file:
            file.write("1")

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> Tun:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
