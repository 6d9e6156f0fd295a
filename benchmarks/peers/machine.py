"""Writes machine.inc: the state machine and the time-outs as the C++ peers want them, from fasttcp's own data."""

from __future__ import annotations

from fasttcp.core.silence import silence_ns
from fasttcp.profiles import profile
from fasttcp.spec import TRANSITIONS, Event, State

__all__ = ["TICK_NS", "machine_data", "machine_inc"]

TICK_NS = 10_000_000


def machine_data() -> dict[str, object]:
    """The machine and the time-outs of the "linux" profile, by the names that the peers use."""
    linux = profile("linux")
    waits = (linux.nf_conntrack_tcp_timeout_syn_sent_ns, linux.time_wait_ns, linux.nf_conntrack_tcp_timeout_close_ns)
    return {
        **{state.name: int(state) for state in State},
        **{event.name: int(event) for event in Event},
        "TICK_NS": TICK_NS,
        "NEXT": [
            [int(TRANSITIONS[state, event].next if (state, event) in TRANSITIONS else state) for event in Event]
            for state in State
        ],
        "TIMEOUT_TICKS": [-(-ns // TICK_NS) for ns in silence_ns(linux)],
        "WAIT_TICKS": [-(-ns // TICK_NS) for ns in waits],  # silence after a SYN, 2MSL, silence after a RST
    }


def machine_inc() -> str:
    """The same as a C++ header."""
    data = machine_data()
    rows = [", ".join(map(str, row)) for row in data["NEXT"]]
    return "\n".join(
        (
            '// Made by machine.py from fasttcp/spec.py and the "linux" profile.',
            "#include <cstdint>",
            "enum { " + ", ".join(f"{state.name} = {int(state)}" for state in State) + " };",
            "enum { " + ", ".join(f"{event.name} = {int(event)}" for event in Event) + " };",
            f"constexpr uint64_t TICK_NS = {TICK_NS};",
            f"static const uint8_t NEXT[{len(State)}][{len(Event)}] = {{",
            *(f"    {{{row}}}," for row in rows),
            "};",
            f"static const uint32_t TIMEOUT_TICKS[256] = {{{', '.join(map(str, data['TIMEOUT_TICKS']))}}};",
            f"static const uint32_t WAIT_TICKS[3] = {{{', '.join(map(str, data['WAIT_TICKS']))}}};",
            "",
        )
    )
