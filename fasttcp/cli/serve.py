"""fasttcp serve: the same engine as the server, so that clients, proxies and load balancers can be tested."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from typing import TYPE_CHECKING

from fasttcp.cli.load import Interrupts, network, text_bytes, word
from fasttcp.cli.said import said

if TYPE_CHECKING:
    from fasttcp.load.serving import LoadServer

__all__ = ["add_parser", "run"]

SLICE_NS = 50_000_000
MOST = 1 << 28  # connections, and bytes a second


def add_parser(subparsers) -> None:  # type: ignore[no-untyped-def]
    """The verb and its options."""
    parser = subparsers.add_parser(
        "serve",
        help="answer real connections, behind a TUN device",
        description="Serves every address of a network, which is routed to a TUN device, on one port. With --run it does so in "
        "a network of its own, without root, for as long as a command there runs.",
        usage="%(prog)s [options]; --help tells them",
        epilog="Exit status: 0; 1 when it cannot serve; with --run the command's.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--listen", type=network, metavar="CIDR", help="addresses to serve (198.19.0.0/24; 2001:2:0:1::/120)")
    add("--port", type=int, default=80, metavar="N", help="(80)")
    add(
        "--mode",
        choices=("answer", "echo", "sink", "slow"),
        default="answer",
        help="what is done with what comes (answer)",
    )
    add(
        "--answer",
        metavar="TEXT",
        help=r"to each request that ends with a blank line; \r \n are read; @FILE reads a file",
    )
    add("--close", action="store_true", help="close after the first answer")
    add(
        "--read-rate",
        type=word("count"),
        default=65536,
        metavar="B",
        help="bytes a second that --mode slow reads (64k)",
    )
    add("--backlog", type=word("count"), default=65535, metavar="N", help="half-open connections at most (65535)")
    add("--profile", default="linux", metavar="NAME", help="whose time-outs and policies (linux)")
    add("--max-connections", type=word("count"), default=1_000_000, metavar="N", help="(1M)")
    add("--duration", type=word("seconds"), metavar="T", help="how long; until Ctrl-C without it")
    add("--ipv6", action="store_true", help="over IPv6")
    add("--run", dest="command", type=_command, metavar="COMMAND", help="a command to run beside it, in a network of its own")
    add("--json", action="store_true", help="what happened, as JSON")
    parser.set_defaults(run=run)


def _command(text: str) -> list[str]:
    words = shlex.split(text)
    if not words:
        raise argparse.ArgumentTypeError("there is no command in it")
    return words


def _say(text: str) -> None:
    print(f"fasttcp serve: {text}", file=sys.stderr)


def _serve(args: argparse.Namespace, server: LoadServer, interrupts: Interrupts) -> int:
    """Serve until it is enough; the exit status."""
    import subprocess
    import time

    end = float("inf") if args.duration is None else time.monotonic() + args.duration
    command = None if args.command is None else subprocess.Popen(args.command)
    try:
        while not interrupts.count and time.monotonic() < end and (command is None or command.poll() is None):
            server.run(SLICE_NS)
    finally:
        if command is not None and command.poll() is None:
            command.terminate()
    if command is None:
        return 0
    over = time.monotonic() >= end
    status = command.wait()
    if over and status == -signal.SIGTERM:
        return 0  # as planned
    return status if status >= 0 else 128 - status  # ended by a signal: as a shell has it


def run(args: argparse.Namespace) -> int:
    """Exit status 0, or the command's; 1 when it cannot serve; 2 when arguments do not fit together."""
    import json

    from fasttcp.core.table import ConnectionTable
    from fasttcp.errors import FastTCPError
    from fasttcp.load.device import Tun
    from fasttcp.load.namespace import enter_private_network, forward
    from fasttcp.load.netlink import local_addresses
    from fasttcp.load.run import refuse_taken
    from fasttcp.load.scenario import source_network
    from fasttcp.load.server import http_answer
    from fasttcp.load.serving import LoadServer
    from fasttcp.profiles import profile

    networks = args.listen or ("2001:2:0:1::/120" if args.ipv6 else "198.19.0.0/24")
    addresses: tuple[str, ...] = ()
    try:
        answer = text_bytes(args.answer) if args.answer is not None else http_answer(64, args.close)
    except (OSError, ValueError) as refusal:
        _say(f"--answer: {said(refusal)}")
        return 2
    try:
        for name in ("read_rate", "max_connections", "backlog"):
            if not 1 <= getattr(args, name) <= MOST:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(args, name)}: it must be from 1 to {MOST}")
        if args.listen and args.ipv6 and ":" not in args.listen:
            raise ValueError(f"--listen {args.listen} is no IPv6, which --ipv6 asks for")
        source_network(networks)
        if args.command is None:
            refuse_taken("--listen", [networks], local_addresses(), "an address of this machine")
        rules = profile(args.profile)
        limit = args.backlog
        rules = rules.replace(somaxconn=limit, tcp_max_syn_backlog=limit)
        table = ConnectionTable(
            min(4096, args.max_connections),
            max_capacity=args.max_connections,
            profile=rules,
            read_all=args.mode != "slow",
        )
        if args.command is not None:
            enter_private_network()
            forward()
            addresses = ("2001:2::1/128",) if ":" in networks else ("198.18.0.1/32",)
        with Tun(addresses=addresses, networks=(networks,)) as tun, Interrupts() as interrupts:
            server = LoadServer(table, tun.fd, mode=args.mode, answer=answer, close=args.close, rate=args.read_rate)
            server.run(0)
            table.listen("::" if ":" in networks else "0.0.0.0", args.port, _now(), backlog=limit)
            if sys.stderr.isatty():
                _say(f"{networks} port {args.port} by {tun.name}")
            status = _serve(args, server, interrupts)
            states = {state.name: n for state, n in table.counts().items() if n and state.name != "LISTEN"}
            told = {**server.counts(), "states": states}
            server.reset_all()
            table.check_invariants()
        if args.json:
            print(json.dumps(told))
        else:
            print(
                f"{told['accepted']:,} connections, {told['answers']:,} answers, {told['payload_in']:,} bytes received"
            )
        return status
    except FastTCPError as refusal:
        _say(str(refusal))
        return 2
    except BrokenPipeError:
        raise
    except (OSError, MemoryError) as failure:
        _say(said(failure))
        return 1
    except ValueError as refusal:
        _say(str(refusal))
        return 2


def _now() -> int:
    import time

    return time.monotonic_ns()
