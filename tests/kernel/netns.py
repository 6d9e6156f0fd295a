"""Network namespaces for tests: made, used and torn down inside one process, with nothing but the standard library.

A namespace here is an open file and has no name: it lives as long as the file and the sockets made inside it. So
whatever ends the process, an exception, Ctrl-C or SIGKILL, also removes the namespaces and their interfaces.

    if reason := why_not():
        pytest.skip(reason)
    with Namespace() as left, Namespace() as right:
        veth_pair(left, "v0", right, "v0")
        left.add_address("v0", "198.18.0.1/24")
        child = left.popen(["python", "-m", "http.server"])

The namespace is a property of each THREAD: `inside()` moves the calling thread and brings it back. Sockets stay in the
namespace where they were made, so a single thread can hold sockets on both sides.
"""

import array
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

from . import netlink

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x1, 0x2, 0x1000  # linux/if_tun.h
SIOCETHTOOL = 0x8946
ETHTOOL_OFF = {"tx checksum": 0x17, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}  # linux/ethtool.h, the ETHTOOL_S... commands
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWNEIGH = 16, 20, 28
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFF_UP = 1
IFA_F_NODAD = 0x02  # the address is usable at once, no duplicate address detection
NUD_PERMANENT = 0x80
CREATE = netlink.NLM_F_ACK | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


def why_not(*, tap: bool = True) -> str | None:
    """Why namespaces cannot be used here, in words for `pytest.skip`; None if they can. Tries one, leaves nothing."""
    if not sys.platform.startswith("linux"):
        return f"needs Linux network namespaces, this is {sys.platform}"
    if os.geteuid() != 0:
        return "needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) to make network namespaces"
    if tap and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "needs /dev/net/tun, which is missing or not accessible (modprobe tun)"
    try:
        with Namespace() as namespace:
            namespace.link_up("lo")
            if tap:
                os.close(namespace.tap("probe0"))
    except OSError as error:
        return f"the kernel refuses a network namespace: {error}"
    return None


def missing(sysctls: Iterable[str]) -> str | None:
    """Why sysctls below net.ipv4 cannot be set, in words for `pytest.skip`: this kernel is too old for one; else None."""
    absent = [name for name in sysctls if not os.path.exists(f"/proc/sys/net/ipv4/{name}")]
    return f"this kernel has no {', '.join(absent)}" if absent else None


def _libc_call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns exist only from Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _own_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


class Namespace:
    """A network namespace of its own: a context manager, gone when it is left and its sockets are closed."""

    def __init__(self) -> None:
        self.fd = -1

    def __enter__(self) -> "Namespace":
        before = _own_namespace()
        try:
            _libc_call("unshare", CLONE_NEWNET)
            try:
                self.fd = _own_namespace()
            finally:
                _libc_call("setns", before, CLONE_NEWNET)
        finally:
            os.close(before)
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)
        self.fd = -1

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Moves the calling thread into the namespace for the length of the block."""
        before = _own_namespace()
        try:
            _libc_call("setns", self.fd, CLONE_NEWNET)
            try:
                yield
            finally:
                _libc_call("setns", before, CLONE_NEWNET)
        finally:
            os.close(before)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function inside the namespace."""
        with self.inside():
            return function(*arguments)

    def popen(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a child process inside the namespace; the caller ends it by its id (`terminate`, `wait`)."""
        with self.inside():  # a child inherits the namespaces of the thread that starts it
            return subprocess.Popen(command, **options)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket that lives in the namespace, whichever thread uses it."""
        with self.inside():
            return socket.socket(family, kind, protocol)

    def sysctl(self, name: str, value: int | str | None = None) -> str:
        """Reads, or sets and reads, e.g. "net.ipv4.tcp_syn_retries" of this namespace."""
        path = "/proc/sys/" + name.replace(".", "/")
        with self.inside():
            if value is not None:
                with open(path, "w") as file:
                    file.write(str(value))
            with open(path) as file:
                return " ".join(file.read().split())

    def index(self, interface: str) -> int:
        """The number of an interface; OSError if there is none of this name."""
        with self.inside():
            return socket.if_nametoindex(interface)

    def link_up(self, interface: str, *, mac: str | None = None, mtu: int | None = None) -> None:
        """Brings an interface up, with a fixed MAC address and MTU if given."""
        attributes = b""
        if mac is not None:
            attributes += netlink.attribute(IFLA_ADDRESS, _mac(mac))
        if mtu is not None:
            attributes += netlink.attribute(IFLA_MTU, struct.pack("=I", mtu))
        header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, self.index(interface), IFF_UP, IFF_UP)
        self._route(RTM_NEWLINK, netlink.NLM_F_ACK, header + attributes)

    def add_address(self, interface: str, address: str) -> None:
        """Adds e.g. "198.18.0.1/24" or "fd00::1/64", usable at once."""
        given = ip_interface(address)
        family = socket.AF_INET if given.version == 4 else socket.AF_INET6
        header = struct.pack("=BBBBI", family, given.network.prefixlen, IFA_F_NODAD, 0, self.index(interface))
        attributes = b"".join(netlink.attribute(kind, given.ip.packed) for kind in (1, 2))  # IFA_ADDRESS, IFA_LOCAL
        self._route(RTM_NEWADDR, CREATE, header + attributes)

    def add_neighbour(self, interface: str, address: str, mac: str) -> None:
        """Adds a permanent neighbour, so that no ARP or neighbour discovery is seen for it."""
        given = ip_address(address)
        family = socket.AF_INET if given.version == 4 else socket.AF_INET6
        header = struct.pack("=BxxxiHBB", family, self.index(interface), NUD_PERMANENT, 0, 0)
        attributes = netlink.attribute(1, given.packed) + netlink.attribute(2, _mac(mac))  # NDA_DST, NDA_LLADDR
        self._route(RTM_NEWNEIGH, CREATE, header + attributes)

    def tap(self, interface: str) -> int:
        """A TAP interface (Ethernet frames); returns the non-blocking file whose closing removes it.

        A TAP has no offloads: checksums are right and no segment is larger than the MTU. When write() to the file
        returns, the frame has been through the whole TCP input path and its answers stand in the queue.
        """
        return self._tun(interface, IFF_TAP)

    def tun(self, interface: str) -> int:
        """A TUN interface (IP packets without a link layer); returns the non-blocking file whose closing removes it."""
        return self._tun(interface, IFF_TUN)

    def offloads_off(self, interface: str) -> None:
        """Turns checksum and segmentation offloads off: a capture then shows what a wire would carry. For veth."""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            for command in ETHTOOL_OFF.values():
                value = array.array("I", [command, 0])
                request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
                fcntl.ioctl(channel, SIOCETHTOOL, request)

    def _tun(self, interface: str, kind: int) -> int:
        request = struct.pack("16sH22x", interface.encode(), kind | IFF_NO_PI)
        with self.inside():  # the interface is made in the namespace where the file was opened
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(file, TUNSETIFF, request)
            except OSError:
                os.close(file)
                raise
        return file

    def _route(self, kind: int, flags: int, body: bytes) -> None:
        with self.inside():
            netlink.request(netlink.NETLINK_ROUTE, kind, flags, body)


def veth_pair(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """Joins two namespaces by a virtual cable; both ends are up and without offloads."""
    header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)

    def named(name: str) -> bytes:
        return netlink.attribute(IFLA_IFNAME, name.encode() + b"\0")

    peer = header + named(right_name) + netlink.attribute(IFLA_NET_NS_FD, struct.pack("=i", right.fd))
    data = netlink.attribute(IFLA_INFO_DATA, netlink.attribute(VETH_INFO_PEER, peer))
    information = netlink.attribute(IFLA_LINKINFO, netlink.attribute(IFLA_INFO_KIND, b"veth") + data)
    left._route(RTM_NEWLINK, CREATE, header + named(left_name) + information)
    for namespace, name in ((left, left_name), (right, right_name)):
        namespace.offloads_off(name)
        namespace.link_up(name)
