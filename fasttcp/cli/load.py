"""fasttcp load: real connections against a real server, a million of them if need be."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fasttcp.cli.progress import clear_progress, progress_line
from fasttcp.cli.said import said

if TYPE_CHECKING:
    from fasttcp.load.report import Condition, Report
    from fasttcp.load.run import Progress
    from fasttcp.load.scenario import Scenario

__all__ = ["Interrupts", "add_parser", "network", "run", "text_bytes", "word"]

# The load that is run when none is described: a fifth of the time opens, in the rest a thousand a second are replaced.
FILL_RATE, FILL_SHARE = 5_000.0, 0.2


def word(read: str) -> Callable[[str], Any]:
    """An argument that fasttcp.load.scenario reads; loaded when there is one."""

    def convert(text: str) -> Any:
        from fasttcp.load import scenario

        try:
            return getattr(scenario, read)(text)
        except ValueError as refusal:
            raise argparse.ArgumentTypeError(str(refusal)) from None

    return convert


def _condition(text: str) -> Condition:
    from fasttcp.load.report import condition

    try:
        return condition(text)
    except ValueError as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None


class Target(NamedTuple):
    address: str
    port: int
    get: dict[str, str]  # of a URL: what http_get is to ask for; empty for ADDRESS:PORT


def _target(text: str) -> Target:
    import socket

    scheme, _, rest = text.rpartition("://")
    if scheme not in ("", "http"):
        raise argparse.ArgumentTypeError(f"{text!r}: {scheme} is not spoken here, only http, and TCP itself as ADDRESS:PORT")
    where, slash, path = rest.partition("/")
    host, colon, port = where.rpartition(":")
    if host.startswith("[") != host.endswith("]") and not (scheme and port.endswith("]")):
        raise argparse.ArgumentTypeError(f"{text!r}: an IPv6 address stands in brackets, [::1]:80")
    if scheme and (not colon or port.endswith("]")):
        host, port = where, "80"
    if (slash and not scheme) or not path.isascii() or any(sign.isspace() for sign in path):
        raise argparse.ArgumentTypeError(f"{text!r} is neither ADDRESS:PORT nor a URL, http://ADDRESS:PORT/PATH without blanks")
    try:
        if not 1 <= int(port) <= 65535:  # getaddrinfo would take it modulo 65536
            raise ValueError(port)
        address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4]
    except (ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT that can be found") from None
    return Target(str(address[0]), int(address[1]), {"host": where, "path": f"/{path}"} if scheme else {})


def _ports(text: str) -> tuple[int, int]:
    from fasttcp.load.loads import parse_ports

    try:
        return parse_ports(text)
    except ValueError as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None


def network(text: str) -> str:
    """An argument that is a network."""
    from ipaddress import ip_network

    try:
        return str(ip_network(text, strict=False))
    except ValueError as refusal:
        raise argparse.ArgumentTypeError(str(refusal)) from None


def add_parser(subparsers) -> None:  # type: ignore[no-untyped-def]
    """The verb and its options."""
    parser = subparsers.add_parser(
        "load",
        help="open, hold and churn real connections against a server",
        description="Opens, holds, churns and closes real TCP connections from one process, through a TUN device. Without "
        "a TARGET it starts a small server in a network of its own and tests that, without root. With neither --hold, --rate nor "
        "--stage it opens 5,000 a second for a fifth of the time, and then replaces 1,000 a second.",
        usage="%(prog)s [TARGET] [options]; --help tells them",
        epilog="Exit status: 0, after Ctrl-C too; 99 when a --fail-if holds or was not measured; 1 when the load cannot be run; 2 "
        "for wrong arguments.",
        allow_abbrev=False,
    )
    count, rate, time, draw = word("count"), word("per_second"), word("seconds"), word("draw")
    parser.add_argument(
        "target", nargs="?", type=_target, metavar="TARGET", help="ADDRESS:PORT, or http://ADDRESS:PORT/PATH for --http with it"
    )
    parser.add_argument(
        "--i-may-test-this-target", action="store_true", help="for other than loopback, private and benchmark addresses"
    )
    parser.add_argument("--scenario", metavar="FILE", help="options from a TOML file; those given here win")
    what = parser.add_argument_group("load")
    what.add_argument("--hold", type=count, metavar="N", help="keep N connections open (closed model)")
    what.add_argument("--churn", type=rate, metavar="R", help="of those replace R a second, the oldest first")
    what.add_argument("--rate", type=rate, metavar="R", help="open R connections a second (open model)")
    what.add_argument("--arrivals", choices=("constant", "poisson"), help="of --rate (constant)")
    what.add_argument("--duration", type=time, metavar="T", help="how long (10s)")
    what.add_argument(
        "--stage",
        type=word("stage"),
        action="append",
        metavar="T:WHAT",
        help="30s:50k/s, 2m:hold, 1m:hold=100k,churn=5k/s; several",
    )
    what.add_argument(
        "--life",
        type=draw,
        metavar="T",
        help="how long a connection is held: 5s, exponential:5s, pareto:5s:1.5, lognormal:5s:1, forever",
    )
    what.add_argument("--connecting", type=count, metavar="N", help="unanswered SYNs at once, with --hold (512)")
    what.add_argument(
        "--threads", type=count, metavar="N", help="how many run it, each with packets and connections of its own (1)"
    )
    what.add_argument("--grace", type=time, metavar="T", help="for closing at the end (15s)")
    talk = parser.add_argument_group("what is said")
    talk.add_argument(
        "--request",
        metavar="TEXT",
        help=r"what each connection sends; \r \n \t \\ are read, {n} is its number; @FILE reads a file",
    )
    talk.add_argument("--http", action="store_true", help="GET /, or what the URL says, and the answer as long as HTTP says")
    talk.add_argument(
        "--expect",
        metavar="END",
        help="where the answer ends: nothing, NUMBER of bytes, line, close, http (also called content-length)",
    )
    talk.add_argument("--expect-line", metavar="REGEX", help="what the answer's first line must match")
    talk.add_argument("--requests", type=count, metavar="N", help="on each connection (1)")
    talk.add_argument("--think", type=draw, metavar="T", help="between two requests; as --life")
    talk.add_argument("--timeout", type=time, metavar="T", help="for connecting and for each answer (TCP's own)")
    talk.add_argument("--close", choices=("fin", "rst", "peer"), help="how connections are closed (fin)")
    talk.add_argument(
        "--half-close", action="store_true", default=None, help="shut down sending after the last request"
    )
    from_ = parser.add_argument_group("where from")
    from_.add_argument(
        "--source",
        type=network,
        action="append",
        metavar="CIDR",
        help="addresses to connect from, routed to this machine; several",
    )
    from_.add_argument("--ports", type=_ports, metavar="A-B", help="local ports (the profile's)")
    from_.add_argument("--profile", metavar="NAME", help="whose time-outs and policies: linux, bsd, rfc9293 (linux)")
    from_.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="a parameter of the profile: msl=15s, tcp_tw_reuse=1; several",
    )
    from_.add_argument(
        "--max-connections", type=count, metavar="N", help="rows of the table, TIME_WAIT included (by memory)"
    )
    from_.add_argument("--seed", type=int, metavar="K", help="of ports, sequence numbers and chance (1)")
    own = parser.add_argument_group("the server of its own")
    own.add_argument(
        "--server",
        choices=("http", "http-close", "echo", "sink", "backlog"),
        help="what it does (http; backlog: it never accepts)",
    )
    own.add_argument("--server-processes", type=count, metavar="N", help="(as many as files allow)")
    own.add_argument("--body", type=count, metavar="BYTES", help="of its answers (64)")
    own.add_argument("--ipv6", action="store_true", default=None, help="over IPv6")
    out = parser.add_argument_group("what comes out")
    out.add_argument("--json", nargs="?", const="-", metavar="FILE", help="the report as JSON, to a file or stdout")
    out.add_argument("--csv", metavar="FILE", help="one line a second")
    out.add_argument("--html", metavar="FILE", help="one self-contained page with plots")
    out.add_argument(
        "--fail-if",
        type=_condition,
        action="append",
        default=[],
        metavar="COND",
        help="'connect_p99 > 5ms', 'errors > 0': exit status 99; several",
    )
    out.add_argument("--quiet", action="store_true", help="no live progress")
    parser.set_defaults(run=run)


def text_bytes(text: str) -> bytes:
    """Text with its escapes read, or the bytes of @FILE."""
    if text.startswith("@"):
        with open(text[1:], "rb") as file:
            return file.read()
    escapes = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}
    first, *rest = re.split(r"\\(.?)", text, flags=re.DOTALL)
    read = first.encode()
    for escape, plain in zip(rest[::2], rest[1::2], strict=True):
        if escape not in escapes:
            raise ValueError(f"{text!r} has \\{escape}, which is none of \\r, \\n, \\t and \\\\")
        read += escapes[escape] + plain.encode()
    return read


def _scenario(args: argparse.Namespace) -> Scenario:
    """The options, over those of the scenario file, over the defaults. ValueError."""
    from fasttcp.load.scenario import DURATION, Scenario, Stage, http_get

    given: dict[str, Any] = {}
    if args.scenario:
        from fasttcp.load.toml import read_scenario

        given = read_scenario(args.scenario)
    names = (
        "hold", "churn", "rate", "arrivals", "duration", "life", "connecting", "grace", "expect_line", "requests", "think",
        "timeout", "close", "half_close", "ports", "profile", "max_connections", "seed", "threads", "server", "server_processes",
        "body", "ipv6",
    )  # fmt: skip
    given |= {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name in ("source", "stage", "set"):
        if getattr(args, name):
            given[name] = tuple(getattr(args, name))
    get: dict[str, str] = {}
    if args.target is not None:
        given["target"], get = args.target[:2], args.target.get
        for name in ("server", "server_processes", "body", "ipv6"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is of the server of its own: there is none beside a TARGET")
    if given.pop("http", False):
        given = {**http_get(given, **get), **given}  # a request or an expect of the file's own wins
    if args.http or get:
        given |= http_get(given, **get)
    if args.request is not None:
        try:
            given["request"] = text_bytes(args.request)
        except ValueError as refusal:
            raise ValueError(f"--request: {refusal}") from None
    if args.expect is not None:
        if args.expect.isdigit():
            given |= {"expect": "bytes", "expect_bytes": int(args.expect)}
        else:
            given["expect"] = args.expect
    if args.i_may_test_this_target:
        given["may_test_this_target"] = True
    if not ({"hold", "rate", "stage"} & set(given)):
        # Filled at a rate that no queue stands in the way of: the latencies are then the server's, not those of a burst.
        whole = given.pop("duration", DURATION)
        held = max(1, round(FILL_RATE * FILL_SHARE * whole))
        given["stage"] = (
            Stage(FILL_SHARE * whole, rate=FILL_RATE),
            Stage((1 - FILL_SHARE) * whole, hold=held, churn=given.pop("churn", 1_000.0)),
        )
        if not {"request", "expect"} & set(given) and given.get("target") is None and given.get("server", "http") == "http":
            given |= http_get(given)
    try:
        return Scenario(**given)
    except ValueError as refusal:
        raise ValueError(f"with {args.scenario}: {refusal}" if args.scenario else str(refusal)) from None


class Interrupts:
    """Counts Ctrl-C, and SIGTERM and SIGHUP, which mean the same; the run asks between two slices of time."""

    def __init__(self, says: str = "") -> None:
        self.count = 0
        self._says = says
        self._signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def __call__(self) -> int:
        return self.count

    def __enter__(self) -> Interrupts:
        self._before = [(each, signal.signal(each, self._heard)) for each in self._signals]
        return self

    def __exit__(self, *exception: object) -> None:
        for each, before in self._before:
            signal.signal(each, before)

    def _heard(self, *_: object) -> None:
        self.count += 1
        if self.count == 1 and self._says:
            print(f"\n{self._says}", file=sys.stderr)


def _line(progress: Progress) -> None:
    sample = progress.sample
    latency = [
        f"{name.replace('_', ' ')} p50 {p50:,.0f} us, p99 {sample.p99_us[name]:,.0f} us"
        for name, p50 in sample.p50_us.items()
        if p50 is not None
    ]
    progress_line(
        f"{progress.phase} {min(progress.seconds, progress.whole):.0f}/{progress.whole:.0f} s",
        f"{sample.rates['established']:,.0f} conn/s",
        *(f"{name} {n:,}" for name, n in sample.states.items()), *latency, f"cpu {sample.busy:.0%}",
    )  # fmt: skip


def _unwritable(args: argparse.Namespace) -> str:
    """Why a file that the report is to go to cannot be written: better said before a load of hours than after it."""
    names = [name for name in (args.csv, args.html, None if args.json == "-" else args.json) if name is not None]
    if "-" in names:
        return "only --json goes to standard output: give --csv and --html a file"
    if len(set(map(os.path.abspath, names))) < len(names):
        return f"{', '.join(names)}: two reports cannot go to one file"
    for name in names:
        folder = os.path.dirname(os.path.abspath(name))
        if os.path.isdir(name):
            return f"{name} is a folder"
        if not os.path.isdir(folder):
            return f"{name}: there is no folder {folder}"
        if not os.access(name if os.path.exists(name) else folder, os.W_OK):
            return f"{name} may not be written"
    return ""


def _deliver(args: argparse.Namespace, report: Report) -> list[OSError]:
    """The report to wherever it is to go; what failed, since one of them must not keep the others from it."""

    def html() -> str:
        from fasttcp.load.page import page

        return page(report)

    failures = []
    try:
        print(report.json() if args.json == "-" else report.text(), flush=True)
    except OSError as failure:
        failures.append(failure)
    texts: list[tuple[str | None, Callable[[], str]]] = [
        (args.csv, report.csv),
        (args.html, html),
        (None if args.json == "-" else args.json, lambda: report.json() + "\n"),
    ]
    for name, text in texts:
        if name is None:
            continue
        try:
            with open(name, "w") as file:
                file.write(text())
        except OSError as failure:
            failure.filename = name  # a full disk is told without it
            failures.append(failure)
    return failures


def run(args: argparse.Namespace) -> int:
    """Exit status 0; 99 when a condition holds; 1 when the load cannot be run; 2 when arguments do not fit together."""
    from fasttcp.load.run import run_load

    def say(text: str) -> None:
        print(f"fasttcp load: {text}", file=sys.stderr)

    tty = sys.stderr.isatty() and not args.quiet
    try:
        scenario = _scenario(args)
        if problem := _unwritable(args):
            raise ValueError(problem)
    except (ValueError, TypeError, OSError) as refusal:
        say(said(refusal))
        return 2
    try:
        with Interrupts("closing; Ctrl-C again resets everything") as interrupts:
            report = run_load(scenario, progress=_line if tty else None, interrupts=interrupts, warn=say)
        if tty:
            clear_progress()
    except ValueError as refusal:
        say(str(refusal))
        return 2
    except (OSError, MemoryError, RuntimeError) as failure:
        say(said(failure))
        return 1
    failures = _deliver(args, report)
    failed = [told for each in args.fail_if if (told := each.fails(report))]
    for text in failed:
        say(f"failed: {text}")
    untold = [each for each in failures if not isinstance(each, BrokenPipeError)]  # whose reader has enough, has what he wants
    for each in untold:
        say(f"{'' if each.filename else 'output: '}{said(each)}")
    return 99 if failed else 1 if untold else 0
