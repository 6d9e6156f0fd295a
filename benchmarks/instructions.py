"""Instructions per event under callgrind: a guard against slow-downs that needs no quiet machine.

    python -m benchmarks.instructions               print the figures, compare with instructions.json
    python -m benchmarks.instructions --write       make what is measured now the reference

ipv4, ipv6, all: what observe_batch executes for an event of a seeded stream of churn, all that it calls included. track: a
packet of a seeded capture, from the file to the connection that has ended; log: a line of Zeek's log. Python itself is not
counted. The figures are the same in every run of one build; compilers differ by some per cent, so the reference names its
own. Exit code 1 when a figure is above its reference by more than the tolerance (5 % with the compiler of the reference, 25 %
with another).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

REFERENCE = Path(__file__).with_suffix(".json")
MIXES = ("ipv4", "ipv6", "all")
CAPTURE = ("track", "log")
CONNECTIONS = 4_000
SEGMENTS = 200_000
SAME_COMPILER, OTHER_COMPILER = 0.05, 0.25
PACKETS, CAPTURED = 100_000, 10_000  # of the capture; the latter: connections
COUNTED = {"track": "*Tracker*feed*", "log": "*lines_of*"}  # the functions between whose call and return is counted
OF_A_STREAM = "*observe_batch*"


def drive(mix: str, capture: str) -> None:
    """What runs under callgrind: one table, one stream."""
    if mix in CAPTURE:
        from fasttcp.observe.track import track

        lines = b"".join(track(capture, seed=1).lines("zeek")).count(b"\ttcp\t")
        if lines < CAPTURED:
            sys.exit(f"only {lines} connections came out of the capture")
        return
    from fasttcp.core.table import ConnectionTable
    from fasttcp.load.churn import ChurnStream

    table = ConnectionTable(CONNECTIONS * 2, seat="observer", seed=1)
    segments = ChurnStream(CONNECTIONS, mix=mix, seed=1).take(SEGMENTS)
    table.apply(segments)
    ended = table.tallies()["ended"]
    if ended < CONNECTIONS:
        sys.exit(f"only {ended} connections have ended: the stream is too short to count expiry")


def count(mix: str) -> float:
    """Instructions per event. Raises RuntimeError when callgrind has counted nothing."""
    with tempfile.TemporaryDirectory() as folder:
        out, capture = Path(folder) / "callgrind.out", Path(folder) / "capture.pcap"
        if mix in CAPTURE:
            from benchmarks.track.capture import Shape, write_capture

            write_capture(capture, Shape(PACKETS, CAPTURED, seconds=CAPTURED / 1000))
        counted = COUNTED.get(mix, OF_A_STREAM)
        call = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--collect-atstart=no", f"--toggle-collect={counted}",
            sys.executable, "-m", "benchmarks.instructions", "--drive", mix, str(capture),
        ]  # fmt: skip
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the driver has failed under valgrind: {done.stderr[-2000:]}")
        total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
    if total is None or int(total[1]) == 0:
        raise RuntimeError(f"no function that matches {counted} was called: is the extension stripped?")
    return int(total[1]) / {"track": PACKETS, "log": CAPTURED}.get(mix, SEGMENTS)


def compiler() -> str:
    """The C compiler that extensions are built with, and its version."""
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    try:
        return subprocess.check_output([name, "--version"], text=True).splitlines()[0]
    except OSError:
        return name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make this the reference")
    parser.add_argument("--drive", nargs=2, metavar=("MIX", "CAPTURE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.drive:
        drive(*options.drive)
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: nothing was counted", file=sys.stderr)
        return 2
    figures = {mix: round(count(mix), 1) for mix in MIXES + CAPTURE}
    if options.write:
        REFERENCE.write_text(json.dumps({"compiler": compiler(), "instructions_an_event": figures}, indent=1) + "\n")
    reference = json.loads(REFERENCE.read_text())
    tolerance = SAME_COMPILER if reference["compiler"] == compiler() else OTHER_COMPILER
    worse = False
    for mix, figure in figures.items():
        known = reference["instructions_an_event"][mix]
        change = figure / known - 1
        worse |= change > tolerance
        print(f"{mix:6} {figure:7.1f} instructions an event, reference {known:.1f} ({change:+.1%}, tolerance {tolerance:.0%})")
    print(f"{compiler()}; the reference is by {reference['compiler']}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
