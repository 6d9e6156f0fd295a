"""What preflight says is true and mends what it says: each fault is made for real in a network of the test's own, the
command between the backticks is run where the message says, and the fault is seen to be gone."""

import contextlib
import json
import re
import subprocess
import sys

import pytest
from kernel.netns import Namespace, veth_pair, why_not

from fasttcp.load.preflight import find_listener, look, silence
from fasttcp.load.scenario import Scenario

HERE, THERE = "198.18.1.1", "198.18.1.2"
SOURCE = "198.19.5.0/24"
SERVER = """
import sys
from fasttcp.load.server import OwnServer
with OwnServer(sys.argv[1], 80, mode="http", connections=1000):
    print("listens", flush=True)
    sys.stdin.read()
"""
LISTENER = """
import socket, sys, time
with socket.create_server(("", 80), backlog=int(sys.argv[1])) as listener:
    print("listens", flush=True)
    kept = []
    while True:
        kept.append(listener.accept())
"""

pytestmark = pytest.mark.skipif(bool(why_not()), reason=str(why_not()))


@pytest.fixture
def here():
    with Namespace() as namespace:
        namespace.link_up("lo")
        yield namespace


@pytest.fixture
def there(here):
    """Another machine, on a cable."""
    with Namespace() as namespace:
        namespace.link_up("lo")
        veth_pair(here, "to-there", namespace, "to-here")
        here.add_address("to-there", f"{HERE}/24")
        here.add_address("to-there", "2001:2::1/64")
        namespace.add_address("to-here", f"{THERE}/24")
        namespace.add_address("to-here", "2001:2::2/64")
        yield namespace


@pytest.fixture
def start():
    """Starts a server in a namespace, and ends it; `start(namespace, script, argument)`."""
    running = []

    def begin(namespace, script, *arguments, **more):
        child = namespace.popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more,
        )  # fmt: skip
        running.append(child)
        assert child.stdout.readline() == "listens\n"
        return child

    def end(child):
        child.stdin.close()
        if child.args[2] != SERVER:
            child.kill()
        child.wait(timeout=10)
        child.stdout.close()
        running.remove(child)

    begin.end = end
    yield begin
    for child in list(running):
        end(child)


def load(namespace, target, *arguments):
    """(report, what was said) of a short load in a namespace."""
    child = namespace.popen(
        [
            sys.executable, "-m", "fasttcp", "load", target, "--source", SOURCE if "[" not in target else "2001:2:0:5::/120",
            "--duration", "400ms", "--grace", "300ms", "--json", "--quiet", *arguments,
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, said = child.communicate(timeout=30)
    assert child.returncode == 0, said
    report = json.loads(out)
    assert [f"fasttcp load: {note}" for note in report["notes"]] == said.splitlines()
    return report, report["notes"]


def commands(text):
    return [part for part in re.findall(r"`([^`]+)`", text) if not part.startswith(("ss ", "nft list", "listen "))]


def follow(namespace, text):
    """Run what stands between backticks, but what only looks."""
    todo = commands(text)
    assert todo, text
    for command in todo:
        namespace.run(subprocess.run, ["sh", "-ec", command], -1, None, subprocess.DEVNULL).check_returncode()


def fine(report):
    outcomes = report["outcomes"]
    assert outcomes == {**dict.fromkeys(outcomes, 0), "ok": report["counts"]["opened"]} and outcomes["ok"] > 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_remote_target_is_reached_by_what_preflight_says(here, there, start, version, tmp_path):
    address = THERE if version == 4 else "2001:2::2"
    target = f"{address}:80" if version == 4 else f"[{address}]:80"
    server = start(there, SERVER, address)
    # Neither forwarding here nor a route back: both are said, in their order.
    report, (forwarding, silent) = load(here, target, "--hold", "5")
    assert report["outcomes"]["ok"] == 0 and "does not forward" in forwarding and "nothing has come back" in silent
    follow(here, forwarding)
    report, (silent,) = load(here, target, "--hold", "5")
    assert report["counts"]["packets_in"] == 0 and f"via {HERE if version == 4 else '2001:2::1'}" in silent
    follow(there, commands(silent)[0].join("``"))
    report, said = load(here, target, "--hold", "50", "--churn", "50", "--http")
    assert not said
    fine(report)
    # Many segments by one write: the kernel has to cut them up and sum them on their way to a cable without offloads.
    (tmp_path / "request").write_bytes(b"POST / HTTP/1.1\r\n" + b"x" * 100_000 + b"\r\n\r\n")
    report, said = load(
        here, target, "--hold", "5", "--life", "0", "--request", f"@{tmp_path / 'request'}", "--expect", "content-length"
    )
    assert not said and report["counts"]["writes"] < report["counts"]["packets_out"] / 3
    fine(report)
    start.end(server)


def test_one_device_that_does_not_forward(here, there):
    scenario = Scenario(target=(THERE, 80), source=(SOURCE,), hold=1)
    here.sysctl("net.ipv4.ip_forward", 1)
    here.sysctl("net.ipv4.conf.to-there.forwarding", 0)
    found = here.run(_look, scenario)
    assert len(found) == 1 and "ip_forward" not in found[0]
    follow(here, found[0])
    assert here.run(_look, scenario) == []


def test_a_target_without_a_route_to_it(here, there):
    child = here.popen(
        [sys.executable, "-m", "fasttcp", "load", "10.7.7.7:80", "--source", SOURCE, "--hold", "1", "--duration", "100ms"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, said = child.communicate(timeout=20)
    assert child.returncode == 1 and "no route to 10.7.7.7" in said
    follow(here, said.replace("ITS_ROUTER", THERE))
    assert here.run(_look, Scenario(target=("10.7.7.7", 80), source=(SOURCE,), hold=1))


def test_what_only_connects_is_not_told_of_as_held(here, there):
    child = here.popen(
        [
            sys.executable, "-m", "fasttcp", "load", f"{THERE}:80", "--source", SOURCE, "--hold", "3", "--duration", "100ms",
            "--grace", "100ms",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, said = child.communicate(timeout=20)
    assert child.returncode == 0 and "nothing has come back" in said
    assert "\nheld " not in out and re.search(r"^  cut_off +3 ", out, re.MULTILINE)


@pytest.mark.parametrize("target", ["127.0.0.1", HERE])
def test_a_target_on_this_machine(here, there, start, target):
    report, said = load(here, f"{target}:80", "--hold", "5")
    assert len(said) == 1 and "start the server" in said[0]
    assert 5 <= report["outcomes"]["refused"] < 100, "who is refused waits a tenth of a second"
    server = start(here, SERVER, target)
    report, said = load(here, f"{target}:80", "--hold", "100", "--churn", "100", "--http")
    assert not said
    fine(report)
    start.end(server)


def test_an_accept_queue_that_the_system_cuts(here, there, start):
    scenario = Scenario(target=(HERE, 80), source=(SOURCE,), hold=400)
    here.sysctl("net.core.somaxconn", 16)
    server = start(here, LISTENER, 65535)
    found = here.run(_look, scenario)
    assert len(found) == 1 and "room for 16 connections" in found[0] and "400 may come at once" in found[0]
    follow(here, found[0])
    start.end(server)
    start(here, LISTENER, 65535)
    assert here.run(_look, scenario) == []


def test_an_accept_queue_that_the_server_made_too_short(here, there, start):
    scenario = Scenario(target=(HERE, 80), source=(SOURCE,), rate=5000)
    here.sysctl("net.core.somaxconn", 65535)
    server = start(here, LISTENER, 20)
    found = here.run(_look, scenario)
    assert len(found) == 1 and "room for 20 connections" in found[0] and "500 may come" in found[0]
    assert "larger backlog" in found[0] and not commands(found[0])
    start.end(server)
    start(here, LISTENER, 499)
    assert here.run(_look, scenario) == [], "a queue takes one more than it was given"


def test_a_server_with_too_few_files(here, there, start):
    import resource  # not on every system

    scenario = Scenario(target=(HERE, 80), source=(SOURCE,), hold=300, connecting=8)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = start(here, LISTENER, 512, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, most)))
    assert here.run(find_listener, HERE, 80).pids == (server.pid,)
    found = here.run(_look, scenario)
    assert len(found) == 1 and "some 64 connections open, 300 are to be held" in found[0]
    follow(here, found[0])
    assert here.run(_look, scenario) == []
    report, said = load(here, f"{HERE}:80", "--hold", "300", "--connecting", "8", "--close", "rst")
    assert not said and report["held"]["kernel_established"] is None
    fine(report)


def test_a_parent_that_only_holds_the_socket_is_not_counted(here, there, start):
    forks = LISTENER.replace("    print(", "    import os\n    os.fork() and time.sleep(100)\n    print(")
    parent = start(here, forks, 64)
    (child,) = here.run(find_listener, HERE, 80).pids
    assert child != parent.pid
    subprocess.run(["kill", str(child)], check=True)


def test_conntrack_with_too_little_room(here, there):
    try:
        most = int(here.sysctl("net.netfilter.nf_conntrack_max"))
    except OSError:
        pytest.skip("this kernel has no conntrack, or has not loaded it")
    here.sysctl("net.ipv4.ip_forward", 1)
    enough = Scenario(target=(THERE, 80), source=(SOURCE,), hold=most - 10)
    assert here.run(_look, enough) == []
    (found,) = here.run(_look, Scenario(target=(THERE, 80), source=(SOURCE,), hold=most + 10))
    assert f"room for {most} connections more, this load may need {most + 10}" in found
    # The limit is one for all networks: it can be set outside only, and a test leaves it alone.
    wanted = int(re.search(r"`sysctl -w net.netfilter.nf_conntrack_max=(\d+)` outside of this network", found)[1])
    assert wanted > most + 10
    (found,) = here.run(
        _look, Scenario(target=(THERE, 80), source=(SOURCE,), hold=10, churn=most // 100, duration=1000)
    )
    assert f"may need {10 + most // 100 * 120}" in found, "conntrack keeps a closed connection for 120 s"


def test_conntrack_is_mended_by_the_command(tmp_path, monkeypatch):
    """The same with files in place of the kernel's, since the true limit is the whole machine's."""
    scenario = Scenario(target=(THERE, 80), source=(SOURCE,), hold=5000)
    (tmp_path / "nf_conntrack_max").write_text("4096\n")
    (tmp_path / "nf_conntrack_count").write_text("7\n")
    monkeypatch.setattr(
        "fasttcp.load.preflight._path", lambda name: str(tmp_path / name.rpartition(".")[2]) if "nf_" in name else "/none"
    )
    (found,) = look(scenario, (THERE, 80), _REMOTE, ["none"]).warnings
    assert "room for 4089" in found and found.endswith("`")
    (tmp_path / "nf_conntrack_max").write_text(re.search(r"nf_conntrack_max=(\d+)", found)[1])
    assert look(scenario, (THERE, 80), _REMOTE, ["none"]).warnings == []


def test_an_accept_queue_that_is_full_is_no_firewall(here, there):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(here.socket())
        server.bind((HERE, 80))
        server.listen(1)  # and nobody accepts
        for _ in range(4):
            client = stack.enter_context(here.socket())
            client.setblocking(False)
            client.connect_ex((HERE, 80))
        _, said = load(here, f"{HERE}:80", "--hold", "5")
    full = [each for each in said if "nothing has come back" in each]
    assert len(full) == 1 and "its accept queue is full (`ss -ltn`: Recv-Q 2, Send-Q 1)" in full[0] and "firewall" not in full[0]


def test_strict_reverse_path_filtering_is_named_only_where_it_is_on(here, there):
    scenario = Scenario(target=(THERE, 80), source=(SOURCE,), hold=1)
    here.sysctl("net.ipv4.conf.all.rp_filter", 0)
    assert "rp_filter" not in here.run(silence, scenario, THERE, _REMOTE)
    here.sysctl("net.ipv4.conf.all.rp_filter", 1)
    assert "rp_filter=2" in here.run(silence, scenario, THERE, _REMOTE)


def test_a_server_of_our_own_needs_no_preflight():
    scenario = Scenario(hold=1)
    assert look(scenario, (HERE, 80), None, ["none"]).warnings == [] and silence(scenario, HERE, None) is None


def _look(scenario):
    """What preflight says with a real device, in the namespace of the caller."""
    from fasttcp.load.device import Tun
    from fasttcp.load.netlink import route_to

    with Tun(networks=scenario.source) as tun:
        return look(scenario, scenario.target, route_to(scenario.target[0]), [tun.name]).warnings


def _remote():
    from fasttcp.load.netlink import Route

    return Route("none", False, HERE)


_REMOTE = _remote()
