"""The kernel's nf_conntrack as a witness: a namespace that forwards between two hosts which only the test plays.

    host a <-- TUN "a" --> [ namespace: ip_forward, nf_conntrack, drop what is INVALID ] <-- TUN "b" --> host b

The test writes an IP packet into one TUN; when write() returns, the kernel has tracked it and has either forwarded it
into the other TUN or dropped it as INVALID. So each packet has an exact answer and nothing waits.

Spoken by netlink alone, no `nft` and no `conntrack` are needed. Must not know what the states mean. Layouts:
linux/netfilter/nfnetlink.h, nf_tables.h, nfnetlink_conntrack.h, linux/rtnetlink.h.
"""

import errno
import os
import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple

from . import netlink
from .netns import CREATE, Namespace

NETLINK_NETFILTER = 12
NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 0, 3, 6
NFPROTO_INET, NF_INET_FORWARD, NF_DROP = 1, 2, 0
CT_STATE_INVALID = 1  # NF_CT_STATE_INVALID_BIT
RTM_NEWROUTE, RTA_DST, RTA_OIF = 24, 1, 4
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 253, 1
LARGEST = 1 << 16

# enum tcp_conntrack of linux/netfilter/nf_conntrack_tcp.h, from 0.
STATES = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
    "SYN_SENT2",
)  # fmt: skip

# The kernel's own defaults, set all the same: they rule what is INVALID.
SYSCTLS = {
    "net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1, "net.ipv4.conf.all.rp_filter": 0,
    "net.netfilter.nf_conntrack_tcp_loose": 1, "net.netfilter.nf_conntrack_tcp_be_liberal": 0,
    "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst": 0, "net.netfilter.nf_conntrack_checksum": 1,
    "net.netfilter.nf_conntrack_timestamp": 1, "net.netfilter.nf_conntrack_acct": 1,
}  # fmt: skip


class Entry(NamedTuple):
    """What the kernel holds for one connection."""

    state: str  # of STATES
    originator: tuple[str, int]  # the end whose packet made the entry
    born: bytes  # differs between two entries of the same tuple
    packets: int  # counted in both directions; one that is INVALID or that conntrack ignores is not


def _attribute(kind: int, *parts: bytes) -> bytes:
    return netlink.attribute(kind, b"".join(parts))


def _text(kind: int, value: str) -> bytes:
    return netlink.attribute(kind, value.encode() + b"\0")


def _u32(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, struct.pack("!I", value))


def _nfgen(family: int, resource: int = 0) -> bytes:
    return struct.pack("!BBH", family, 0, resource)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _expression(name: str, *attributes: bytes) -> bytes:
    return _attribute(1, _text(1, name), _attribute(2, *attributes))  # NFTA_LIST_ELEM: NFTA_EXPR_NAME, NFTA_EXPR_DATA


def _transaction(messages: list[tuple[int, bytes]]) -> None:
    """One nf_tables batch from the caller's namespace; OSError with the first error. All of it happens, or nothing."""
    begin = (NFNL_MSG_BATCH_BEGIN, 0, _nfgen(socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES))
    end = (NFNL_MSG_BATCH_END, 0, _nfgen(socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES))
    flags = netlink.NLM_F_ACK | netlink.NLM_F_CREATE
    parts = [(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, _nfgen(NFPROTO_INET) + body) for kind, body in messages]
    packed = b"".join(
        struct.pack("=IHHII", 16 + len(body), kind, flags | netlink.NLM_F_REQUEST, number, 0) + body
        for number, (kind, flags, body) in enumerate([begin, *parts, end])
    )
    left = len(parts)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as channel:
        channel.settimeout(5)
        channel.sendto(packed, (0, 0))
        while left:
            data, at = channel.recv(LARGEST), 0
            while at < len(data):
                length, _, _, _, _, code = struct.unpack_from("=IHHIIi", data, at)
                if code:
                    raise OSError(-code, f"nf_tables: {os.strerror(-code)}")
                at, left = at + ((length + 3) & ~3), left - 1


def drop_invalid() -> None:
    """`table inet witness`: in the forward hook, `ct state invalid drop`. A rule with `ct` switches tracking on."""
    table, chain = "witness", "forward"
    rule = (
        _expression("ct", _u32(2, 0), _u32(1, 1))  # NFTA_CT_KEY: state; into register 1
        # NFTA_CMP_SREG, NFTA_CMP_OP: equal, NFTA_CMP_DATA; the register holds a host's integer
        + _expression("cmp", _u32(1, 1), _u32(2, 0), _attribute(3, _attribute(1, struct.pack("=I", CT_STATE_INVALID))))
        + _expression("immediate", _u32(1, 0), _attribute(2, _attribute(2, _u32(1, NF_DROP))))  # into the verdict
    )
    _transaction([
        (NFT_MSG_NEWTABLE, _text(1, table)),
        (NFT_MSG_NEWCHAIN, _text(1, table) + _text(3, chain) + _text(7, "filter")
         + _attribute(4, _u32(1, NF_INET_FORWARD), _u32(2, 0))),
        (NFT_MSG_NEWRULE, _text(1, table) + _text(2, chain) + _attribute(4, rule)),
    ])  # fmt: skip


def _tuple(a: tuple[str, int], b: tuple[str, int]) -> bytes:
    source, destination = (ip_address(address).packed for address, _ in (a, b))
    kinds = (1, 2) if len(source) == 4 else (3, 4)
    addresses = netlink.attribute(kinds[0], source) + netlink.attribute(kinds[1], destination)
    ports = b"".join(netlink.attribute(2 + i, struct.pack("!H", port)) for i, (_, port) in enumerate((a, b)))
    protocol = netlink.attribute(1, bytes([socket.IPPROTO_TCP])) + ports
    # CTA_TUPLE_ORIG: CTA_TUPLE_IP, CTA_TUPLE_PROTO; the nested flag is demanded here
    return _attribute(1 | 0x8000, _attribute(1 | 0x8000, addresses), _attribute(2 | 0x8000, protocol))


class Gateway:
    """A context manager. `a` and `b` are the addresses of the hosts behind the TUNs "a" and "b", any IP versions."""

    def __init__(self, a: list[str], b: list[str]) -> None:
        self.addresses = {"a": a, "b": b}
        self.namespace = Namespace()
        self.files: dict[str, int] = {}

    def __enter__(self) -> "Gateway":
        self.namespace.__enter__()
        try:
            for side, addresses in self.addresses.items():
                self.files[side] = self.namespace.tun(side)
                self.namespace.link_up(side)
                for address in addresses:
                    self._route(address, side)
            self.namespace.run(drop_invalid)
            for name, value in SYSCTLS.items():
                self.namespace.sysctl(name, value)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self.files.values():
            os.close(file)
        self.namespace.__exit__()

    def _route(self, address: str, interface: str) -> None:
        packed = ip_address(address).packed
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        header = struct.pack(
            "=BBBBBBBBI", family, 8 * len(packed), 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0
        )
        index = struct.pack("=I", self.namespace.index(interface))
        body = header + netlink.attribute(RTA_DST, packed) + netlink.attribute(RTA_OIF, index)
        with self.namespace.inside():
            netlink.request(netlink.NETLINK_ROUTE, RTM_NEWROUTE, CREATE, body)

    def send(self, side: str, packet: bytes) -> bool:
        """Sends an IP packet as host `side`. Whether it came out at the other host; False: it was INVALID."""
        os.write(self.files[side], packet)
        out = []
        for file in self.files.values():
            while True:
                try:
                    out.append(os.read(file, LARGEST))
                except BlockingIOError:
                    break
        # From the first address on: the TTL and the header's checksum have changed. What else comes out is the
        # namespace's own noise (IPv6 multicast).
        at = 12 if packet[0] >> 4 == 4 else 8
        return any(each[at:] == packet[at:] for each in out)

    def entry(self, a: tuple[str, int], b: tuple[str, int]) -> Entry | None:
        """The entry of a connection between these ends, whichever began it; None if there is none."""
        family = socket.AF_INET6 if ":" in a[0] else socket.AF_INET
        try:
            with self.namespace.inside():
                (answer,) = netlink.request(
                    NETLINK_NETFILTER, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, 0, _nfgen(family) + _tuple(a, b)
                )
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        found = _attributes(answer[4:])
        state = _attributes(_attributes(found[4])[1])[1][0]  # CTA_PROTOINFO, ..._TCP, ..._TCP_STATE
        origin = _attributes(found[1])
        address = next(value for kind, value in _attributes(origin[1]).items() if kind in (1, 3))
        (port,) = struct.unpack("!H", _attributes(origin[2])[2])
        packets = sum(struct.unpack("!Q", _attributes(found[kind])[1])[0] for kind in (9, 10))  # CTA_COUNTERS_...
        # CTA_ID alone can be the same again when an entry's memory is: the time stamp of its birth cannot.
        return Entry(STATES[state], (str(ip_address(address)), port), found[12] + found[20], packets)

    def flush(self) -> None:
        """Forgets every connection."""
        with self.namespace.inside():
            netlink.request(
                NETLINK_NETFILTER, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, netlink.NLM_F_ACK,
                _nfgen(socket.AF_UNSPEC),
            )  # fmt: skip


def why_not() -> str | None:
    """Why connection tracking cannot be tried here, `netns.why_not()` aside; None if it can. Leaves nothing."""
    try:
        with Gateway([], []) as gateway:
            gateway.flush()
    except OSError as error:
        return f"the kernel refuses nf_conntrack or nf_tables by netlink: {error}"
    return None
