#!/usr/bin/env python3
"""Records what the kernel's own TCP does, as NAME.pcap, and what the kernel says of its states meanwhile, as NAME.json.

    python tests/captures/record.py                 every exchange, into this folder
    python tests/captures/record.py refused vlan    these only
    python tests/captures/record.py --into /tmp/x   elsewhere
    python tests/captures/record.py --list          what there is

Needs Linux, root and /dev/net/tun; nothing else is installed or left behind. Each exchange runs between two network
namespaces of its own, joined by a link in this process (tests/kernel/link.py): no packet leaves them, and when the
process ends, in whatever way, the kernel removes them. Addresses: 198.18.0.0/15 (RFC 2544) and fd00::/8. Files are
written once an exchange is complete. Sequence numbers, timestamps and times differ from run to run; flags, lengths and
states do not.

pcap: version 2.4, nanoseconds, Ethernet, 128 bytes a packet. JSON, times in ns since 1970 on the capture's clock
(CLOCK_REALTIME); "a" is the end that connects, "b" the one that listens, a self-connect has one end that is both:

    name, what        the file's name; one sentence
    kernel            e.g. "Linux 6.12.30"
    sysctls           those below net.ipv4 that bear on it, as they were in both namespaces
    recorded_at       "wire": between the hosts, each frame as it enters the link, before it may be lost
                      "a", "b": on that host's interface; "loopback": on lo
    a, b              [address, port]
    connections       calls of connect by "a": two where the tuple is used again
    opened_by         "a" or "both" (simultaneous open)
    closed_first_by   "a", "b", "both" (neither had seen the other's FIN), or null: nobody did, or nothing to close
    outcome           for each end the error its application was told, e.g. "ECONNREFUSED", or null
    bytes             for each end the bytes that its application has "sent" and "received" during the capture
    packets           how many the capture holds
    lost              numbers (from 1) of packets that are in the capture and were never delivered
    forged            numbers of packets that no kernel sent
    final             the states of both ends when the capture ended
    states            the time line: {"time_ns", "packets", "a", "b", "event"}, in order of time

A state is the kernel's own (NETLINK_SOCK_DIAG, as `ss` shows it) for exactly this 4-tuple, by RFC 9293's names; CLOSED
means that there is no such socket. "packets" in an entry is how many were recorded until then. With "wire", an entry
follows each delivered packet, when the receiving kernel has dealt with it and before its answer is recorded. So the
last entry that begins with "delivered" for a given number of packets says where both ends stood once all these
packets, the lost ones apart, had arrived: what a perfect observer would say, except for what an application did
without a packet yet. Other events are calls ("a closes") and rest.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from kernel import netns, pcap  # noqa: E402

from captures.exchanges import EXCHANGES  # noqa: E402
from captures.scene import Scene  # noqa: E402


def play(name: str) -> tuple[pcap.Writer, dict[str, Any]]:
    """Runs one exchange; returns its packets and the kernel's account of it."""
    what = EXCHANGES[name]
    with Scene(**what.options) as scene:
        what.play(scene)
        scene.finish()
        return scene.writer, scene.account(name, what.what)


def text(account: dict[str, Any]) -> str:
    """JSON with one line for each entry of the time line: readable, and a change shows as a small diff."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in account.items() if key != "states"]
    entries = ",\n".join("  " + json.dumps(entry) for entry in account["states"])
    return "{\n" + ",\n".join(lines) + ',\n "states": [\n' + entries + "\n ]\n}\n"


def record(name: str, folder: Path) -> dict[str, Any]:
    """Runs one exchange and writes NAME.pcap and NAME.json; returns the account."""
    writer, account = play(name)
    writer.save(folder / f"{name}.pcap")
    (folder / f"{name}.json").write_text(text(account))
    return account


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Records real kernel TCP, with the kernel's account of the states.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="exchanges to record (default: all)")
    parser.add_argument("--into", type=Path, default=HERE, metavar="FOLDER", help="default: beside this script")
    parser.add_argument("--list", action="store_true", help="name the exchanges and end")
    options = parser.parse_args(arguments)
    if options.list:
        for known in EXCHANGES.values():
            print(f"{known.name:24} {known.what}")
        return 0
    unknown = [name for name in options.names if name not in EXCHANGES]
    if unknown:
        parser.error(f"no exchange named {', '.join(unknown)}; --list names them")
    if not options.into.is_dir():
        parser.error(f"{options.into} is not a folder")
    if reason := netns.why_not():
        print(f"record.py: cannot record here: {reason}", file=sys.stderr)
        return 1
    for name in options.names or EXCHANGES:
        account = record(name, options.into)
        ends = f"a {account['final']['a']}, b {account['final']['b']}"
        print(f"{name:24} {account['packets']:3} packets   {ends}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("record.py: interrupted; nothing is left running, the exchange under way was not written")
