"""What `fasttcp load` says on a machine that does not let it work, and that the command it names lets it work.

Each machine is a user namespace of the test's own, whose gates the test shuts.
"""

import re
import shlex
import subprocess
import sys

import pytest

from fasttcp.load import namespace
from fasttcp.load.device import MISSING

LOAD = f"{shlex.quote(sys.executable)} -m fasttcp load --hold 20 --duration 100ms --quiet"
WITHOUT_RIGHTS = f"setpriv --bounding-set=-sys_admin,-net_admin --inh-caps=-all {LOAD}"


def inside(script):
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script], capture_output=True, text=True, timeout=30
    )


@pytest.fixture(autouse=True)
def _possible():
    if not sys.platform.startswith("linux"):
        pytest.skip("a TUN device needs Linux")
    try:
        told = inside(LOAD)
    except FileNotFoundError:
        pytest.skip("the command `unshare` is missing")
    if told.returncode != 0:
        pytest.skip(f"no user namespace, or no load in it: {told.stderr.strip()}")


@pytest.mark.parametrize(
    ("gate", "command"),
    [("user.max_net_namespaces", LOAD), ("user.max_user_namespaces", WITHOUT_RIGHTS)],
    ids=["no network namespace", "no user namespace"],
)
def test_a_shut_gate_is_named_and_opened_by_the_command(gate, command):
    shut = f"echo 0 >/proc/sys/{gate.replace('.', '/')}"
    told = inside(f"{shut}; {command}")
    assert told.returncode == 1 and told.stdout == "" and len(told.stderr.splitlines()) == 1
    assert told.stderr.startswith("fasttcp load: this system refuses a network of its own even to root")
    (mend,) = re.findall("`([^`]+)`", told.stderr)
    assert gate in mend
    told = inside(f"{shut}; {mend} >/dev/null; {command}")
    assert told.returncode == 0 and "  ok                        20  100.00%" in told.stdout, told.stderr


def test_a_missing_device_is_named_with_what_makes_it():
    told = inside(f"mount -t tmpfs none /dev/net; {LOAD}")
    assert told.returncode == 1 and told.stdout == "" and len(told.stderr.splitlines()) == 1
    assert "/dev/net/tun is missing" in told.stderr and "modprobe tun" in told.stderr and "--device /dev/net/tun" in told.stderr


def test_serve_says_the_same():
    told = inside(f"echo 0 >/proc/sys/user/max_net_namespaces; {shlex.quote(sys.executable)} -m fasttcp serve --run true")
    assert told.returncode == 1 and "user.max_net_namespaces=15000" in told.stderr


@pytest.mark.parametrize("root", [False, True])
def test_without_a_gate_to_open_a_container_is_guessed(monkeypatch, root):
    monkeypatch.setattr(namespace, "GATES", ())
    said = str(namespace._refusal(1, root))
    assert "--cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun" in said
    assert ("Or run as root" in said) is not root


def test_every_way_a_device_is_refused_has_a_command():
    for said in MISSING.values():
        assert re.search("`[^`]+`", said)
