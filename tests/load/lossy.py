"""A load over a path that loses, delays and reorders packets; a process of its own, as it enters a private network.

    python lossy.py [LOSS, LEAST_DELAY_S, MOST_DELAY_S, CONNECTIONS, SEED]        JSON: counts, states, lost, carried, ...
"""

import json
import shutil
import subprocess
import sys
import time

from relay import Relay

from fasttcp import ConnectionTable
from fasttcp.load.client import LoadClient
from fasttcp.load.device import Tun
from fasttcp.load.namespace import enter_private_network
from fasttcp.load.run import _kernel_established
from fasttcp.load.server import OwnServer

loss, least, most, connections, seed = json.loads(sys.argv[1])
IFB = "ifb-lossy"


class Netem:
    """Both directions of a device; what comes in from it goes by way of an ifb."""

    def __init__(self, device):
        middle, spread = (least + most) * 500, (most - least) * 500  # ms
        self.fd, self.devices = device.fd, (device.name, IFB)
        inwards = f"qdisc add dev {device.name} handle ffff: ingress"
        redirect = f"filter add dev {device.name} parent ffff: matchall action mirred egress redirect dev {IFB}"
        by_netem = f"root netem limit 100000 loss {loss * 100}% delay {middle}ms {spread}ms"
        steps = (
            f"ip link add {IFB} type ifb", f"ip link set {IFB} up", f"tc qdisc add dev {IFB} {by_netem}",
            f"tc qdisc add dev {device.name} {by_netem}", f"tc {inwards}", f"tc {redirect}",
        )  # fmt: skip
        self.there = all(map(self.run, steps))  # up to the first that fails

    def run(self, step):
        command, *words = step.split()
        return not subprocess.run([shutil.which(command) or "false", *words], capture_output=True, check=False).returncode

    def counts(self):
        lost = carried = 0
        for device in self.devices:
            told = subprocess.run(["tc", "-j", "-s", "qdisc", "show", "dev", device], capture_output=True, check=True)
            netem = json.loads(told.stdout)[0]
            lost, carried = lost + netem["drops"], carried + netem["drops"] + netem["packets"]
        return lost, carried

    def close(self):
        pass


enter_private_network()
with Tun(addresses=("198.18.0.1/32",), networks=("198.19.0.0/16",)) as tun, OwnServer("198.18.0.1", 80, body=5000):
    netem = Netem(tun)
    path = netem if netem.there else Relay(tun.fd, loss, least, most, seed)
    table = ConnectionTable(4096, profile="linux", seed=seed)
    client = LoadClient(
        table, path.fd, ["198.19.0.1", "198.19.0.2"], [("198.18.0.1", 80)], request=b"GET /{n} HTTP/1.1\r\n\r\n",
        end="content-length", line="^HTTP/1.1 200", requests=2, life=("exponential", 2e8, 0), seed=seed,
    )
    client.plan(hold=connections)
    client.run(1_000_000_000)
    client.plan(opening=False)
    client.end()
    end = time.monotonic() + 25
    while not client.over and time.monotonic() < end:
        client.run(100_000_000)
    client.check()
    time.sleep(3 * most)
    end = time.monotonic() + 10
    while _kernel_established() and time.monotonic() < end:  # our last ACK may be lost: TIME_WAIT answers
        client.run(100_000_000)
    client.check()
    states = {state.name: n for state, n in table.counts().items() if n}
    path.close()
    lost, carried = path.counts()
    print(json.dumps([client.counts(), states, lost, carried, _kernel_established(), type(path).__name__]))
