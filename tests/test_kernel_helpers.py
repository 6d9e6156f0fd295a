"""The helpers around the kernel: namespaces that vanish, a link that obeys, states as the kernel tells them."""

import errno
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from kernel import diag, frames, netns, pcap
from kernel.link import Frame, Link, lose_first
from kernel.sniffer import Sniffer

A, B = ("198.18.0.1", 40000), ("198.18.0.2", 80)


@pytest.fixture
def namespace():
    if reason := netns.why_not():
        pytest.skip(reason)
    with netns.Namespace() as made:
        yield made


@pytest.fixture
def veth(namespace):
    """Two namespaces joined by a cable: 198.18.0.1 and 198.18.0.2, interface v0 in both."""
    with netns.Namespace() as other:
        netns.veth_pair(namespace, "v0", other, "v0")
        for host, address in ((namespace, A[0]), (other, B[0])):
            host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
            host.add_address("v0", f"{address}/24")
        yield namespace, other


def interfaces():
    return {name for _, name in socket.if_nameindex()}


def connected(veth):
    left, right = veth
    listener, client = right.socket(), left.socket()
    listener.bind(B)
    listener.listen()
    client.bind(A)
    client.settimeout(5)
    client.connect(B)
    server, _ = listener.accept()
    return listener, client, server


def test_reason_on_another_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert netns.why_not() == "needs Linux network namespaces, this is darwin"


@pytest.mark.skipif(sys.platform == "win32", reason="os.geteuid is POSIX")
def test_reason_without_root(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in netns.why_not()


def test_namespace_is_apart_and_the_thread_comes_back(namespace):
    outside, link = interfaces(), os.readlink("/proc/thread-self/ns/net")
    tap = namespace.tap("t0")
    assert namespace.run(interfaces) == {"lo", "t0"}
    assert namespace.run(os.readlink, "/proc/thread-self/ns/net") != link
    with pytest.raises(FileNotFoundError):
        namespace.run(os.readlink, "/proc/no-such-file")
    assert os.readlink("/proc/thread-self/ns/net") == link
    assert interfaces() == outside
    os.close(tap)
    assert namespace.run(interfaces) == {"lo"}


def test_sysctl_stays_inside(namespace):
    before = Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text()
    assert namespace.sysctl("net.ipv4.tcp_syn_retries", 3) == "3"
    assert Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text() == before


def test_errors_name_their_cause(namespace):
    with pytest.raises(OSError, match="no interface"):
        namespace.index("none0")
    namespace.link_up("lo")
    namespace.add_address("lo", "198.18.0.1/32")
    with pytest.raises(FileExistsError):
        namespace.add_address("lo", "198.18.0.1/32")


def test_child_process_runs_inside(namespace):
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    child = namespace.popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.communicate(timeout=20)[0] == "['lo']\n"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_leaves_no_namespace(namespace, end):
    # The far end of a cable vanishes together with the namespace that holds it: seen from here, our own end is gone.
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from kernel import netns\n"
        "outer = netns.Namespace(); outer.fd = netns._own_namespace()\n"
        "with netns.Namespace() as inner:\n"
        "    netns.veth_pair(outer, 'here', inner, 'there'); print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).resolve().parent)]
    child = namespace.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        assert "here" in namespace.run(interfaces)
    finally:
        child.send_signal(end)
        child.communicate(timeout=20)
    for _ in range(200):  # the kernel cleans up in the background
        if "here" not in namespace.run(interfaces):
            break
        select.select([], [], [], 0.05)
    assert namespace.run(interfaces) == {"lo"}


def test_sockets_and_states_over_a_cable(veth):
    left, right = veth
    listener, client, server = connected(veth)
    with listener, client, server:
        assert diag.state(left, A, B) == diag.state(right, B, A) == "ESTABLISHED"
        assert diag.find(left, A, ("198.18.0.9", 80)) is None
        assert diag.find(right, B, ("198.18.0.1", 5)) is None  # the listener is no answer
        client.send(b"unread")
        select.select([server], [], [], 5)
        assert diag.find(right, B, A).receive_queue == 6
        assert sorted((each.state, each.remote) for each in diag.sockets(right)) == [
            ("ESTABLISHED", A),
            ("LISTEN", ("0.0.0.0", 0)),
        ]
        server.recv(10)
        client.close()
        select.select([server], [], [], 5)
        server.close()
        for _ in range(100):
            if diag.state(left, A, B) == "TIME_WAIT":
                break
            select.select([], [], [], 0.02)
        assert diag.state(left, A, B) == "TIME_WAIT"
        assert diag.state(right, B, A) == "CLOSED"


def test_sniffer_sees_right_checksums_and_times(veth, tmp_path):
    writer = pcap.Writer(128)
    with Sniffer(veth[0], "v0", writer) as sniffer:
        for each in connected(veth):
            each.close()
        assert sniffer.drain() > 0
    writer.save(tmp_path / "x.pcap")
    records = pcap.read(tmp_path / "x.pcap")
    assert records == writer.records
    parsed = [tcp for tcp in map(frames.parse, (each.data for each in records)) if tcp]
    assert [tcp.names for tcp in parsed[:3]] == ["S", "SA", "A"]
    assert all(tcp.checksum_ok for tcp in parsed)
    assert [each.time_ns for each in records] == sorted(each.time_ns for each in records)


def test_sniffer_puts_a_vlan_tag_back(veth):
    writer = pcap.Writer(128)
    frame = frames.tagged(bytes.fromhex("ffffffffffff 02000000000a 88b5") + bytes(46), 10)  # 88b5: for experiments
    with Sniffer(veth[1], "v0", writer) as sniffer, veth[0].socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("v0", 0))
        sender.send(frame)
        select.select([sniffer.channel], [], [], 5)
        sniffer.drain()
    assert frame in [each.data for each in writer.records]


def test_link_records_all_loses_what_it_is_told_and_hands_over_the_rest(namespace):
    namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    taps = [namespace.tap(name) for name in ("t0", "t1")]
    try:
        for name in ("t0", "t1"):
            namespace.link_up(name)
        link, arrived = Link(*taps), []
        link.writer = pcap.Writer(128)
        link.lose = lose_first(2, lambda frame: frame.side == "a")
        link.delivered = lambda frame: arrived.append((frame.side, frame.number))
        for side in "abaa":
            link.deliver(Frame(side, bytes(60), link.record(bytes(60)), None))
        assert arrived == [("b", 2), ("a", 4)]
        assert link.lost == [1, 3]
        assert len(link.writer.records) == 4
    finally:
        for tap in taps:
            os.close(tap)


def test_pump_gives_up_in_time(namespace):
    taps = [namespace.tap(name) for name in ("t0", "t1")]
    try:
        with pytest.raises(TimeoutError, match=r"in 0\.05 s"):
            Link(*taps).pump(until=lambda: False, limit=0.05)
    finally:
        for tap in taps:
            os.close(tap)


def test_frames_forged_keep_a_right_checksum():
    path = Path(__file__).resolve().parent / "captures" / "left_half_open.pcap"
    syn = pcap.read(path)[0].data
    made = frames.forged(syn, flags=frames.RST, seq=2**32 + 5)
    tcp = frames.parse(made)
    assert (tcp.names, tcp.seq, tcp.checksum_ok) == ("R", 5, True)
    assert frames.parse(made[:-1] + bytes([made[-1] ^ 1])).checksum_ok is False
    assert frames.parse(made[:-1]).checksum_ok is None
    assert frames.parse(frames.tagged(made, 7)).vlan == 7
    with pytest.raises(ValueError, match="no TCP"):
        frames.forged(bytes(60), flags=0, seq=0)


def test_pcap_reader_refuses_damage(tmp_path):
    path = tmp_path / "x.pcap"
    writer = pcap.Writer(96)
    writer.add(1_700_000_000_000_000_001, bytes(200))
    writer.save(path)
    assert pcap.read(path) == [pcap.Record(1_700_000_000_000_000_001, bytes(96), 200)]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="at byte 24"):
        pcap.read(path)
    path.write_bytes(b"\xa1\xb2\xc3\xd4" + bytes(20))
    with pytest.raises(ValueError, match="not a little-endian"):
        pcap.read(path)


def test_refusals_of_the_kernel_become_oserror(namespace):
    with pytest.raises(OSError) as caught:
        diag.netlink.request(diag.netlink.NETLINK_ROUTE, 9999, diag.netlink.NLM_F_ACK, bytes(16))
    assert caught.value.errno == errno.EOPNOTSUPP
