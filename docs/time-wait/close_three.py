"""When closing takes three segments: an application that closes before its host's ACK has left. Recorded from two Linux hosts."""

from pathlib import Path

from fasttcp.cli.main import main

capture = Path(__file__).resolve().parent.parent.parent / "tests/captures/close_three_segments.pcap"
main(["explain", "--ascii", str(capture), "198.18.0.1:40000", "198.18.0.2:80"])
