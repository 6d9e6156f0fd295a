"""How long an observed connection may be silent: the nf_conntrack time-outs of a profile, for each pair of states."""

from __future__ import annotations

from fasttcp.profiles import Profile
from fasttcp.spec import State

__all__ = ["silence_ns"]


def silence_ns(profile: Profile) -> list[int]:
    """Nanoseconds of silence after which a row is given up, at index ``state[0] * 16 + state[1]``.

    TIME_WAIT lasts 2MSL whatever the other half is in. Otherwise the half that is nearer to its end decides, in the
    order of the table below; linux/nf_conntrack_tcp.c walks the same way through its single state.
    """
    at = "nf_conntrack_tcp_timeout_"
    nearest_end_first = (
        ((State.TIME_WAIT,), profile.time_wait_ns),
        ((State.LAST_ACK, State.CLOSING), getattr(profile, at + "last_ack_ns")),
        ((State.CLOSE_WAIT,), getattr(profile, at + "close_wait_ns")),
        ((State.FIN_WAIT_1, State.FIN_WAIT_2), getattr(profile, at + "fin_wait_ns")),
        ((State.CLOSED,), getattr(profile, at + "close_ns")),
        ((State.ESTABLISHED,), getattr(profile, at + "established_ns")),
        ((State.SYN_SENT, State.SYN_RCVD, State.LISTEN), getattr(profile, at + "syn_sent_ns")),
    )
    answered = getattr(profile, at + "syn_recv_ns")
    table = [0] * 256
    for first in State:
        for second in State:
            pair = {first, second}
            ns = next(ns for states, ns in nearest_end_first if pair & set(states))
            if State.SYN_RCVD in pair and pair != {State.SYN_RCVD, State.SYN_SENT}:
                ns = min(ns, answered)  # the SYN+ACK was seen, the handshake is not complete
            table[first * 16 + second] = ns
    return table
