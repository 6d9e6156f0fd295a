"""`fasttcp track -i`: real connections on a veth and on lo of network namespaces, filters, drops, and every refusal."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from kernel.netns import Namespace, veth_pair, why_not

from fasttcp.errors import CaptureError
from fasttcp.packets.live import LiveCapture

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's")
cypcap = pytest.importorskip("cypcap", reason="cypcap is not installed: the extra fasttcp[live]")
COMMAND = [sys.executable, "-m", "fasttcp", "track", "--json", "--no-summary"]


@pytest.fixture
def hosts():
    """Two hosts on a cable: 198.18.0.1 and 198.18.0.2, on v0 each."""
    if reason := why_not(tap=False):
        pytest.skip(reason)
    with Namespace() as left, Namespace() as right:
        veth_pair(left, "v0", right, "v0")
        for host, address in ((left, "198.18.0.1"), (right, "198.18.0.2")):
            host.link_up("lo")
            host.add_address("v0", f"{address}/24")
        yield left, right


class Child:
    """A `fasttcp track -i` in a namespace that is known to capture; ended by its id."""

    def __init__(self, host, *args, command=COMMAND):
        self.process = host.popen([*command, "-i", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self._captures():
            time.sleep(0.02)
        time.sleep(0.3)  # the filter is set behind the socket's opening

    def _captures(self):
        """It has a packet socket."""
        try:
            links = [os.readlink(f"/proc/{self.process.pid}/fd/{n}") for n in os.listdir(f"/proc/{self.process.pid}/fd")]
        except OSError:
            return False
        return sum(link.startswith(("socket:", "anon_inode:[bpf")) for link in links) > 0

    def row(self):
        """The next row; it must come while the capture goes on."""
        ready, _, _ = select.select([self.process.stdout], [], [], 20)
        assert ready, "no row came"
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=30)
        return [json.loads(line) for line in out.splitlines()], err.decode()


def talk(client, server, address, port, *, reset=False):
    """One connection: 100 bytes there, 300 back, closed by the client."""
    with server.socket() as listener, client.socket() as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        caller.connect((address, port))
        answer, _ = listener.accept()
        with answer:
            caller.sendall(b"x" * 100)
            assert len(answer.recv(200)) == 100
            answer.sendall(b"y" * 300)
            assert len(caller.recv(400)) == 300
            if reset:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            caller.close()
            answer.recv(1) if not reset else None
    time.sleep(0.05)


def test_connections_on_a_cable(hosts):
    left, right = hosts
    child = Child(right, "v0")
    talk(left, right, "198.18.0.2", 80)
    talk(left, right, "198.18.0.2", 81, reset=True)
    time.sleep(0.4)
    rows, err = child.stop()
    assert (child.process.returncode, err) == (0, "")
    by_port = {row["id.resp_p"]: row for row in rows}
    assert set(by_port) == {80, 81}
    assert (by_port[80]["conn_state"], by_port[80]["orig_bytes"], by_port[80]["resp_bytes"]) == ("SF", 100, 300)
    assert (by_port[80]["id.orig_h"], by_port[80]["id.resp_h"]) == ("198.18.0.1", "198.18.0.2")
    assert (by_port[81]["end"], by_port[81]["orig_state"]) == ("reset", "CLOSED")
    assert abs(by_port[80]["ts"] - time.time()) < 60


def test_loopback_and_its_unfinished_checksums(hosts):
    left, _ = hosts
    child = Child(left, "lo")
    talk(left, left, "127.0.0.1", 80)
    time.sleep(0.4)
    (row,), err = child.stop()
    assert (row["conn_state"], row["orig_bytes"], err) == ("SF", 100, "")


def test_a_row_comes_when_its_time_has_come_not_with_the_next_packet(hosts):
    """Zeek lets go of a closed connection after 5 s: nothing else is sent, and nobody presses Ctrl-C."""
    left, right = hosts
    child = Child(right, "v0")
    talk(left, right, "198.18.0.2", 80)
    row = child.row()
    assert (row["conn_state"], row["end"]) == ("SF", "closed")
    assert child.stop()[0] == []


def test_filter_of_libpcap(hosts):
    left, right = hosts
    child = Child(right, "v0", "--filter", "tcp port 81")
    talk(left, right, "198.18.0.2", 80)
    talk(left, right, "198.18.0.2", 81)
    time.sleep(0.4)
    rows, _ = child.stop()
    assert [row["id.resp_p"] for row in rows] == [81]


def test_counts_are_shown_at_the_end(hosts):
    left, right = hosts
    process = Child(right, "v0", command=COMMAND[:4]).process
    talk(left, right, "198.18.0.2", 80)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"198.18.0.1" in out
    assert b"v0: " in err
    assert b" dropped by the kernel" in err


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs `ip` of iproute2 to delete an interface")
def test_an_interface_that_vanishes_ends_the_capture(hosts):
    left, right = hosts
    child = Child(right, "v0")
    talk(left, right, "198.18.0.2", 80)
    time.sleep(0.5)
    assert left.popen(["ip", "link", "delete", "v0"]).wait() == 0
    out, err = child.process.communicate(timeout=20)
    assert [json.loads(line)["id.resp_p"] for line in out.splitlines()] == [80]
    assert err.count(b"\n") == 1
    assert b"v0" in err and b"the capture ended" in err


# ---- refusals ----------------------------------------------------------------------------------------------------


def refused(*args, prefix=(), **options):
    done = subprocess.run([*prefix, *COMMAND, *args], capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done


def test_no_such_interface_names_those_there_are():
    done = refused("-i", "nope0")
    assert done.returncode == 1
    assert done.stderr.startswith("fasttcp: nope0: there is no such interface; there are ")
    assert "lo" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to open an interface")
def test_a_filter_that_libpcap_does_not_understand():
    done = refused("-i", "lo", "--filter", "tcp prt 80")
    assert done.returncode == 1
    assert done.stderr.startswith("fasttcp: lo: the filter 'tcp prt 80': ")


def test_no_permission():
    prefix = ()
    if os.geteuid() == 0:
        if shutil.which("capsh") is None:
            with pytest.MonkeyPatch.context() as patch:
                denied = cypcap.Error(cypcap.ErrorCode.PERM_DENIED, "Attempt to create packet socket failed")
                patch.setattr("cypcap.create", lambda _: (_ for _ in ()).throw(denied))
                with pytest.raises(CaptureError, match="lo: no permission to capture: run as root"):
                    LiveCapture("lo")
            return
        prefix = ("capsh", "--drop=cap_net_raw,cap_net_admin", "--shell=/usr/bin/env", "--")
    done = refused("-i", "lo", prefix=prefix)
    assert done.returncode == 1
    assert "no permission to capture: run as root" in done.stderr


def test_missing_extra_is_named(tmp_path):
    (tmp_path / "cypcap.py").write_text("raise ImportError('none here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    assert "pip install 'fasttcp[live]'" in refused("-i", "lo", env=environment).stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [((), "name a capture"), (("-i", "lo", "x.pcap"), "not both"), (("--filter", "tcp", "x.pcap"), "--where")],
)
def test_contradictions_are_wrong_arguments(args, words):
    done = refused(*args)
    assert done.returncode == 2
    assert words in done.stderr
