"""All exchanges that are replayed: the committed captures of real connections, and the conversations written by hand.

Must not know any state.
"""

import json
import struct
from pathlib import Path

from kernel import frames, pcap

from kernel_witness import living, opening
from kernel_witness.script import BY_HAND, A, B, Exchange, Script, Segment, tcp_packet

CAPTURES = Path(__file__).resolve().parent.parent / "captures"
# One tuple for both ends: a segment does not say which of them sent it, so nobody can compare two halves.
LEFT_OUT = {"self_connect"}
__all__ = ["LEFT_OUT", "exchanges", "living", "opening"]  # the last two have filled BY_HAND


def hand_made() -> list[Exchange]:
    made = []
    for play in BY_HAND:
        script = Script()
        play(script)
        what = " ".join((play.__doc__ or "").split())
        made.append(Exchange(play.__name__, what, A, B, script.segments))
    return made


def captured() -> list[Exchange]:
    """The committed captures. Cut packets are filled up with zeros to their length, and checksums computed anew."""
    found = []
    for path in sorted(CAPTURES.glob("*.pcap")):
        if path.stem in LEFT_OUT:
            continue
        account = json.loads(path.with_suffix(".json").read_text())
        ends = {side: (account[side][0], account[side][1]) for side in "ab"}
        segments = []
        for record in pcap.read(path):
            place = frames.tcp_offset(record.data)
            if place is None:
                continue
            offset, length, *_ = place
            tcp = record.data[offset : offset + length].ljust(length, b"\0")
            source, _, seq, ack, size, flags, window = struct.unpack_from("!HHIIBBH", tcp)
            side, header = "a" if source == ends["a"][1] else "b", (size >> 4) * 4
            packet = tcp_packet(ends[side], ends["b" if side == "a" else "a"], tcp[:header], tcp[header:])
            segments.append(
                Segment(side, record.time_ns, flags, seq, ack, window, length - header, tcp[20:header], packet)
            )
        found.append(Exchange(path.stem, account["what"], ends["a"], ends["b"], segments))
    return found


def exchanges() -> list[Exchange]:
    """All of them, the captures first. A name stands for one exchange."""
    made = [each._replace(name=f"hand/{each.name}") for each in hand_made()]
    return [each._replace(name=f"capture/{each.name}") for each in captured()] + made
