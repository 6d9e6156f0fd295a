"""Profiles: every time-out, limit and policy of a TCP, as data.

A profile is a frozen value. Four are built in: `LINUX`, `BSD` (FreeBSD), `RFC9293`, and `ZEEK` (Linux, watched as Zeek watches).
The fields of `Profile` are the one table: name, unit, range, defaults, source and meaning stand there and nowhere else;
`PARAMETERS`, the error texts and docs/profiles.md are read from it. Two groups: ENDPOINT parameters rule a host's half of a
connection, OBSERVER parameters rule a tap.

Names and units, one rule:
* a parameter has its usual name: `msl`, `tcp_fin_timeout`, `nf_conntrack_tcp_timeout_close`. `replace()` takes that name;
* a time is given as seconds (int or float) or as text ("200ms", "30s", "2min", "5d"), whatever unit the sysctl has, and is
  kept as an int of nanoseconds under the name with `_ns` added: `replace(msl="30s").msl_ns == 30_000_000_000`;
* anything else is kept under its own name: `profile.tcp_tw_reuse`;
* None, where it is allowed, means what the table says in its place ("for ever", "no limit", "off").

No rule of TCP stands here, only the figures that such rules need. No clock, no randomness, no import from a floor above.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fasttcp.errors import ProfileError
from fasttcp.parameters import LONGEST, Parameter, format_ns, to_ns

__all__ = ["BSD", "LINUX", "PARAMETERS", "PROFILES", "RFC9293", "ZEEK", "Parameter", "Profile",
           "format_ns", "profile", "table", "to_ns"]

ENDPOINT = "endpoint"
OBSERVER = "observer"
BUILTIN = ("linux", "bsd", "rfc9293", "zeek")


def _row(group: str, kind: str, linux: Any, source: str, meaning: str, *, unit: str = "", low: Any = 0, high: Any = 0,
         none: str = "", choices: tuple[Any, ...] = (), **others: Any) -> Any:
    """A parameter, as a field of Profile. A default that is not given is Linux's."""
    if kind in ("time", "port_times"):
        unit, low, high = "ns", to_ns(low), to_ns(high or LONGEST)
    assert others.keys() <= set(BUILTIN), others
    return Parameter(group, kind, source, meaning, unit=unit, low=low, high=high, none=none, choices=choices,
                     defaults={name: others.get(name, linux) for name in BUILTIN})


def _time(group: str, linux: Any, source: str, meaning: str, **more: Any) -> Any:
    return _row(group, "time", linux, source, meaning, **more)


def _count(group: str, linux: Any, unit: str, low: int, high: int, source: str, meaning: str, **more: Any) -> Any:
    return _row(group, "count", linux, source, meaning, unit=unit, low=low, high=high, **more)


def _flag(group: str, linux: bool, source: str, meaning: str, **more: Any) -> Any:
    return _row(group, "flag", linux, source, meaning, **more)


def _choice(group: str, choices: tuple[Any, ...], linux: Any, source: str, meaning: str, **more: Any) -> Any:
    return _row(group, "choice", linux, source, meaning, choices=choices, **more)


class Profile:
    """Every time-out, limit and policy of a TCP, frozen: two profiles with the same values are equal and hash alike.

    Make one with `profile("linux")` and `replace()`. The constructor takes the stored form (times as `_ns` ints); what is not
    given is as in the base. `base` names the built-in profile it was made from and takes no part in comparisons.
    """

    base: str

    # Closing: 2MSL, FIN_WAIT_2, TIME_WAIT
    msl_ns: int = _time(
        ENDPOINT, "30s", "RFC 9293 3.4.2; include/net/tcp.h TCP_TIMEWAIT_LEN (2MSL = 60 s, fixed); FreeBSD net.inet.tcp.msl",
        "Maximum segment lifetime. TIME_WAIT lasts twice as long.", rfc9293="2min", low="1ms", high="1h")
    tcp_fin_timeout_ns: int | None = _time(
        ENDPOINT, "60s", "ip-sysctl tcp_fin_timeout; FreeBSD tcp_timer.h, 8 x 75 s (60 s only with fast_finwait2_recycle=1); "
        "RFC 9293 3.6 has no limit",
        "How long an orphaned connection stays in FIN_WAIT_2.", bsd="600s", rfc9293=None, none="for ever", low="1ms")
    tcp_tw_reuse: int = _choice(
        ENDPOINT, (0, 1, 2), 2, "ip-sysctl tcp_tw_reuse; net/ipv4/tcp_ipv4.c tcp_twsk_unique",
        "connect() on a 4-tuple in TIME_WAIT that uses timestamps: 0 never, 1 always, 2 on loopback only.", bsd=0, rfc9293=0)
    tcp_tw_reuse_delay_ns: int = _time(
        ENDPOINT, "1s", "ip-sysctl tcp_tw_reuse_delay (since Linux 6.14; before, 1 s fixed)",
        "How long TIME_WAIT must have lasted before tcp_tw_reuse applies.", high="1d")
    tcp_tw_recycle: bool = _flag(
        ENDPOINT, False, "ip-sysctl tcp_tw_recycle (Linux before 4.12)",
        "Historical: TIME_WAIT lasts 3.5 RTO, and for 60 s a SYN with an older timestamp from the same address is dropped. "
        "Breaks clients behind NAT.")
    tcp_rfc1337: bool = _flag(
        ENDPOINT, False, "ip-sysctl tcp_rfc1337; RFC 1337; FreeBSD tcp_timewait.c tcp_twcheck; RFC 9293 3.10.7.4",
        "An RST in TIME_WAIT is ignored; off: it ends TIME_WAIT.", bsd=True)
    tcp_max_tw_buckets: int | None = _count(
        ENDPOINT, None, "connections", 0, 2**31 - 1,
        "ip-sysctl tcp_max_tw_buckets (Linux takes it from the machine's memory: half its hash buckets, at most 262144)",
        "Connections in TIME_WAIT; one more is freed at once and counted.", none="no limit")
    tcp_max_orphans: int | None = _count(
        ENDPOINT, None, "connections", 0, 2**31 - 1,
        "ip-sysctl tcp_max_orphans (Linux takes it from the machine's memory: half its hash buckets)",
        "Connections closed by the application and not yet gone; one more is reset at once.", none="no limit")
    time_wait_syn_reopens: str = _choice(
        ENDPOINT, ("never", "seq", "seq_or_timestamp"), "seq_or_timestamp",
        "RFC 9293 3.6.1 MAY-2; RFC 6191; net/ipv4/tcp_minisocks.c; FreeBSD tcp_timewait.c tcp_twcheck",
        "Which SYN opens a new connection out of TIME_WAIT: none, one above RCV.NXT, or one above it or with a newer timestamp.",
        bsd="seq")

    # Retransmission
    rto_initial_ns: int = _time(
        ENDPOINT, "1s", "RFC 6298 2.1; include/net/tcp.h TCP_TIMEOUT_INIT; FreeBSD tcp_timer.h TCPTV_RTOBASE",
        "First retransmission time-out, before any round trip was measured.", low="1us", high="1h")
    rto_min_ns: int = _time(
        ENDPOINT, "200ms", "ip-sysctl tcp_rto_min_us; FreeBSD net.inet.tcp.rexmit_min + rexmit_slop; RFC 6298 2.4",
        "Least retransmission time-out.", bsd="230ms", rfc9293="1s", low="1us", high="1h")
    rto_min_bounds_variance: bool = _flag(
        ENDPOINT, True, "net/ipv4/tcp_input.c tcp_rtt_estimator, __tcp_set_rto; RFC 6298 2.3, 2.4",
        "rto_min is the least of 4 RTTVAR, so that the time-out is SRTT and rto_min at least; off: it is the least of their sum.",
        bsd=False, rfc9293=False)
    rto_max_ns: int = _time(
        ENDPOINT, "120s", "ip-sysctl tcp_rto_max_ms; FreeBSD tcp_timer.h TCPTV_REXMTMAX; RFC 6298 2.5 (at least 60 s)",
        "Largest retransmission time-out, where back-off stops.", bsd="64s", rfc9293="60s", low="1us", high="1h")
    tcp_syn_retries: int = _count(
        ENDPOINT, 6, "retransmissions", 0, 127,
        "ip-sysctl tcp_syn_retries; FreeBSD: as many as fit in its net.inet.tcp.keepinit of 75 s; "
        "RFC 9293 3.8.3: at least 3 minutes, here 183 s",
        "SYNs after the first, before an active open times out; tcp_syn_linear_timeouts adds to them.", rfc9293=7)
    tcp_syn_linear_timeouts: int = _count(
        ENDPOINT, 4, "retransmissions", 0, 127,
        "ip-sysctl tcp_syn_linear_timeouts (since Linux 6.5; before, 0); FreeBSD tcp_timer.c; RFC 6298 5.5",
        "More SYNs, on top of tcp_syn_retries, sent rto_initial apart before back-off begins: 6 + 4 wait 1 1 1 1 1 2 4 ... 64 s.",
        bsd=0, rfc9293=0)
    syn_retry_after_bad_ack_ns: int | None = _time(
        ENDPOINT, "8ms", "net/ipv4/tcp_input.c tcp_rcv_synsent_state_process, TCP_TIMEOUT_MIN (2 jiffies, at 250 Hz)",
        "When the first SYN is sent again after an ACK that is not its own: the peer still held an old connection, and our RST "
        "has ended it.", bsd=None, rfc9293=None, none="as without it", low="1ms", high="1min")
    tcp_synack_retries: int = _count(
        ENDPOINT, 5, "retransmissions", 0, 255,
        "ip-sysctl tcp_synack_retries; FreeBSD tcp_syncache.c SYNCACHE_MAXREXMTS; RFC 9293 3.8.3, as tcp_syn_retries",
        "SYN+ACKs after the first, before a half-open connection is freed.", bsd=3, rfc9293=7)
    tcp_retries2: int = _count(
        ENDPOINT, 15, "retransmissions", 0, 255,
        "ip-sysctl tcp_retries2; FreeBSD tcp_timer.h TCP_MAXRXTSHIFT; RFC 9293 3.8.3 R2 and 3.9.1.1 (5 minutes, here 303 s)",
        "Retransmissions of data or FIN after which a connection times out.", bsd=12, rfc9293=9)
    tcp_orphan_retries: int = _count(
        ENDPOINT, 0, "retransmissions", 0, 255,
        "ip-sysctl tcp_orphan_retries; net/ipv4/tcp_timer.c tcp_orphan_retries (0 means 8); others: as tcp_retries2",
        "The same limit for an orphan, its FIN first of all; 0 means 8. Read it as `orphan_retries`.", bsd=12, rfc9293=9)
    retries_are_time: bool = _flag(
        ENDPOINT, True, "net/ipv4/tcp_timer.c retransmits_timed_out, tcp_model_timeout",
        "tcp_retries2, tcp_orphan_retries and tcp_syn_retries also stand for a time: what so many take that begin 200 ms apart "
        "(for SYNs rto_initial). The first time-out after it ends the connection; off: they are counted.",
        bsd=False, rfc9293=False)

    # Keepalive
    so_keepalive: bool = _flag(
        ENDPOINT, False, "socket(7) SO_KEEPALIVE; FreeBSD net.inet.tcp.always_keepalive; RFC 9293 3.8.4",
        "New connections have keepalive on.", bsd=True)
    tcp_keepalive_time_ns: int = _time(
        ENDPOINT, "7200s", "ip-sysctl tcp_keepalive_time; FreeBSD net.inet.tcp.keepidle; RFC 9293 3.8.4 (at least 2 h)",
        "Idle time before the first probe.", low="1ms")
    tcp_keepalive_intvl_ns: int = _time(
        ENDPOINT, "75s", "ip-sysctl tcp_keepalive_intvl; FreeBSD net.inet.tcp.keepintvl", "Time between probes.", low="1ms")
    tcp_keepalive_probes: int = _count(
        ENDPOINT, 9, "probes", 1, 127, "ip-sysctl tcp_keepalive_probes; FreeBSD net.inet.tcp.keepcnt",
        "Probes without an answer after which the connection is dropped.", bsd=8)

    # Listening
    tcp_max_syn_backlog: int | None = _count(
        ENDPOINT, 4096, "connections", 1, 2**31 - 1,
        "ip-sysctl tcp_max_syn_backlog (max(128, hash buckets / 128): 4096 on a machine with much memory); "
        "FreeBSD syncache(4) cachelimit",
        "Half-open connections that one listener remembers.", bsd=15360, rfc9293=None, none="no limit")
    somaxconn: int | None = _count(
        ENDPOINT, 4096, "connections", 1, 2**31 - 1, "net.core.somaxconn (since Linux 5.4); FreeBSD kern.ipc.soacceptqueue",
        "Largest backlog of a listener: connections established and not yet accepted.", bsd=128, rfc9293=None, none="no limit")
    tcp_syncookies: int = _choice(
        ENDPOINT, (0, 1, 2), 1, "ip-sysctl tcp_syncookies; FreeBSD syncookies(4); RFC 4987 3.6",
        "SYN cookies: 0 never, 1 when the SYN backlog is full, 2 always.", rfc9293=0)
    tcp_abort_on_overflow: bool = _flag(
        ENDPOINT, False, "ip-sysctl tcp_abort_on_overflow; FreeBSD syncache(4) rst_on_sock_fail",
        "A handshake that completes on a full accept queue is reset; off: its last ACK is dropped.", bsd=True)

    # Options and windows
    tcp_timestamps: int = _choice(
        ENDPOINT, (0, 1, 2), 1, "ip-sysctl tcp_timestamps; RFC 7323 3; FreeBSD net.inet.tcp.rfc1323",
        "Timestamps option: 0 off, 1 on with a random offset for each connection, 2 on without.")
    timestamp_tick_ns: int = _time(
        ENDPOINT, "1ms", "RFC 7323 5.4 (1 ms to 1 s); include/net/tcp.h TCP_TS_HZ",
        "Tick of the timestamp clock.", low="1us", high="1s")
    tcp_window_scaling: bool = _flag(
        ENDPOINT, True, "ip-sysctl tcp_window_scaling; RFC 7323 2; FreeBSD net.inet.tcp.rfc1323", "Window scale option.")
    tcp_sack: bool = _flag(
        ENDPOINT, True, "ip-sysctl tcp_sack; RFC 2018; FreeBSD net.inet.tcp.sack.enable", "SACK-permitted option.")
    rcv_wnd: int = _count(
        ENDPOINT, 65535, "bytes", 0, 2**30, "ip-sysctl tcp_rmem (131072 gives 65535); FreeBSD net.inet.tcp.recvspace",
        "Receive window of a new connection.", bsd=65536)
    rcv_wscale: int = _count(
        ENDPOINT, 7, "bits", 0, 14,
        "RFC 7323 2.3; Linux: from tcp_rmem max, 7 for 6 MiB (10 for 32 MiB); FreeBSD: from kern.ipc.maxsockbuf, 6 for 2 MiB",
        "Window shift that is offered.", bsd=6, rfc9293=0)
    mss_default_v4: int = _count(
        ENDPOINT, 536, "bytes", 48, 65535, "RFC 9293 3.7.1; include/net/tcp.h TCP_MSS_DEFAULT; FreeBSD net.inet.tcp.mssdflt",
        "MSS assumed of an IPv4 peer that sent no MSS option.")
    mss_default_v6: int = _count(
        ENDPOINT, 1220, "bytes", 48, 65535, "RFC 9293 3.7.1; FreeBSD net.inet.tcp.v6mssdflt",
        "MSS assumed of an IPv6 peer that sent no MSS option.")
    advmss_v4: int = _count(
        ENDPOINT, 1460, "bytes", 48, 65535, "RFC 9293 3.7.1, for an MTU of 1500", "MSS option that is sent over IPv4.")
    advmss_v6: int = _count(
        ENDPOINT, 1440, "bytes", 48, 65535, "RFC 9293 3.7.1, for an MTU of 1500", "MSS option that is sent over IPv6.")
    paws_idle_ns: int = _time(
        ENDPOINT, "2147s", "RFC 7323 5.5 (24 days); include/net/tcp.h TCP_PAWS_WRAP (since Linux 6.7; before, 24 days); "
        "FreeBSD tcp_seq.h TCP_PAWS_IDLE",
        "Age at which a stored timestamp (TS.Recent) is void.", bsd="24d", rfc9293="24d", low="1s")

    # Segments that do not fit
    rfc5961: bool = _flag(
        ENDPOINT, True, "RFC 5961 3 to 5; RFC 9293 3.10.7.4; FreeBSD net.inet.tcp.insecure_rst, insecure_syn",
        "Challenge ACKs: an RST must hit RCV.NXT exactly, a SYN never resets, ACKs are checked on both sides; off: RFC 793.")
    rst_after_fin_at_rcv_nxt_minus_1: bool = _flag(
        ENDPOINT, True, "net/ipv4/tcp_input.c tcp_reset_check",
        "After the peer's FIN an RST at RCV.NXT-1 is accepted too.", bsd=False, rfc9293=False)
    tcp_invalid_ratelimit_ns: int = _time(
        ENDPOINT, "500ms", "ip-sysctl tcp_invalid_ratelimit; FreeBSD net.inet.tcp.ack_war_cnt (5 each second); "
        "RFC 5961 7 (10 in 5 s)",
        "Least time between two ACKs that one connection sends for segments that do not fit; 0 sends all.",
        bsd="200ms", high="1h")
    tcp_challenge_ack_limit: int | None = _count(
        ENDPOINT, None, "ACKs a second", 1, 2**31 - 1, "ip-sysctl tcp_challenge_ack_limit (since Linux 5.18; before, 1000)",
        "Challenge ACKs of one host in a second.", none="no limit")

    # Ports and sequence numbers
    ip_local_port_range: tuple[int, int] = _row(
        ENDPOINT, "range", (32768, 60999), "ip-sysctl ip_local_port_range; FreeBSD net.inet.ip.portrange.first, last; "
        "RFC 6056 3.2",
        "First and last ephemeral port.", bsd=(10000, 65535), rfc9293=(1024, 65535))
    port_choice: str = _choice(
        ENDPOINT, ("in_turn", "even_first"), "even_first",
        "net/ipv4/inet_hashtables.c __inet_hash_connect; RFC 6056 3.3.3 (in turn)",
        "Which ephemeral port is tried next: the next one in turn, or the next of the first port's parity up to 16 further, the "
        "others only when all of those are taken (of an odd number of ports the last is then left out).",
        bsd="in_turn", rfc9293="in_turn")
    ip_local_reserved_ports: tuple[int, ...] = _row(
        ENDPOINT, "ports", (), "ip-sysctl ip_local_reserved_ports", "Ports that are never chosen as ephemeral ports.")
    iss_tick_ns: int = _time(
        ENDPOINT, "64ns", "RFC 9293 3.4.1 and RFC 6528 3 (4 us); net/core/secure_seq.c seq_scale; "
        "FreeBSD tcp_subr.c ISN_BYTES_PER_SECOND",
        "Time in which the clock part of an initial sequence number grows by one.", bsd="954ns", rfc9293="4us",
        low="1ns", high="1ms")

    # The tap: which rules
    observer_timeouts: str = _choice(
        OBSERVER, ("nf_conntrack", "zeek"), "nf_conntrack", "net/netfilter/nf_conntrack_proto_tcp.c; Zeek init-bare.zeek",
        "Which set of time-outs ends an observed connection: nf_conntrack_tcp_timeout_* or Zeek's; the other set is not read.",
        zeek="zeek")
    observer_reuse: str = _choice(
        OBSERVER, ("answered", "isn"), "answered", "RFC 9293 3.5.1 (half-open); Zeek TCPSessionAdapter.cc IsReuse",
        "A SYN with another sequence number on a live connection begins a new one: once it is answered, or at once.", zeek="isn")
    observer_rst_in_window: bool = _flag(
        OBSERVER, True, "RFC 9293 3.5.3; Zeek TCPSessionAdapter.cc",
        "An RST outside the peer's window is counted and changes no state; off: any RST resets.", zeek=False)
    observer_duplicate_window_ns: int | None = _time(
        OBSERVER, "1ms", "none: far below the least RTO and above the delay between two ports of a mirror",
        "Two equal segments within this time are one segment captured twice, not a retransmission.",
        zeek=None, none="off", high="1s")
    ignore_checksums: bool = _flag(
        OBSERVER, True, "Zeek ignore_checksums; on, because a sender's own capture holds checksums that its NIC fills in later",
        "A wrong TCP checksum is counted only; off: such a segment changes nothing.", zeek=False)
    likely_server_ports: tuple[int, ...] = _row(
        OBSERVER, "ports", (), "Zeek scripts/base/protocols/*/main.zeek",
        "When the first segment seen is no SYN, a sender on one of these ports is taken for the responder.",
        zeek=(21, 22, 25, 53, 79, 80, 81, 88, 135, 139, 143, 389, 443, 445, 465, 502, 514, 563, 585, 587, 614, 631, 636,
              989, 990, 992, 993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5222, 5223, 5269, 5432, 6379,
              6666, 6667, 6668, 6669, 8000, 8080, 8888, 20000))

    # The tap: nf_conntrack's names
    nf_conntrack_tcp_loose: bool = _flag(
        OBSERVER, True, "nf_conntrack-sysctl", "A connection is picked up in mid-stream; off: only from its SYN.")
    nf_conntrack_tcp_timeout_syn_sent_ns: int = _time(OBSERVER, "120s", "nf_conntrack-sysctl", "Silence after a SYN.")
    nf_conntrack_tcp_timeout_syn_recv_ns: int = _time(OBSERVER, "60s", "nf_conntrack-sysctl", "Silence after a SYN+ACK.")
    nf_conntrack_tcp_timeout_established_ns: int = _time(
        OBSERVER, "432000s", "nf_conntrack-sysctl; RFC 5382 5 (at least 2 h 4 min)", "Silence of an established connection.")
    nf_conntrack_tcp_timeout_fin_wait_ns: int = _time(OBSERVER, "120s", "nf_conntrack-sysctl", "Silence after the first FIN.")
    nf_conntrack_tcp_timeout_close_wait_ns: int = _time(
        OBSERVER, "60s", "nf_conntrack-sysctl", "Silence after the first FIN was acknowledged.")
    nf_conntrack_tcp_timeout_last_ack_ns: int = _time(OBSERVER, "30s", "nf_conntrack-sysctl", "Silence after the second FIN.")
    nf_conntrack_tcp_timeout_close_ns: int = _time(OBSERVER, "10s", "nf_conntrack-sysctl", "After an RST.")

    # The tap: Zeek's names
    tcp_attempt_delay_ns: int = _time(
        OBSERVER, "5s", "Zeek init-bare.zeek", "After the first SYN: removed if the responder is still silent.")
    tcp_close_delay_ns: int = _time(
        OBSERVER, "5s", "Zeek init-bare.zeek",
        "After both sides closed, or an RST: removed; packets until then still belong to it.")
    tcp_SYN_timeout_ns: int = _time(OBSERVER, "5s", "Zeek init-bare.zeek", "First run of the expiry check.", low="1ms")
    tcp_session_timer_ns: int = _time(OBSERVER, "6s", "Zeek init-bare.zeek", "Time between later runs of it.", low="1ms")
    tcp_connection_linger_ns: int = _time(
        OBSERVER, "5s", "Zeek init-bare.zeek", "Idle time after which the expiry check removes a connection that is over.")
    tcp_inactivity_timeout_ns: int | None = _time(
        OBSERVER, "5min", "Zeek init-bare.zeek",
        "Idle time after which any connection past its handshake is removed.", none="never")
    udp_inactivity_timeout_ns: int | None = _time(
        OBSERVER, "1min", "Zeek init-bare.zeek; packet_analysis/protocol/tcp/TCP.cc MakeSessionAdapter",
        "The same while a TCP connection is in its handshake (the name is Zeek's).", none="never")
    port_inactivity_timeouts_ns: tuple[tuple[int, int], ...] = _row(
        OBSERVER, "port_times", {21: "1h", 22: "1h", 23: "1h", 513: "1h"}, "Zeek protocols/conn/inactivity.zeek",
        "tcp_inactivity_timeout for established connections to these ports.")
    tcp_max_initial_window: int | None = _count(
        OBSERVER, 16384, "bytes", 1, 2**31 - 1, "Zeek init-bare.zeek",
        "Data of a side that was never acknowledged, above which its acknowledgements are not waited for.", none="no limit")
    tcp_max_above_hole_without_any_acks: int | None = _count(
        OBSERVER, 16384, "bytes", 1, 2**31 - 1, "Zeek init-bare.zeek",
        "Data above a hole, while nothing was acknowledged, at which gaps of that side are no longer counted.", none="no limit")
    tcp_excessive_data_without_further_acks: int | None = _count(
        OBSERVER, 10 * 2**20, "bytes", 1, 2**31 - 1, "Zeek init-bare.zeek",
        "Unacknowledged data at which gaps of that side are no longer counted.", none="no limit")
    report_gaps_for_partial: bool = _flag(
        OBSERVER, False, "Zeek init-bare.zeek", "Gaps are counted in connections picked up in mid-stream too.")

    def __init__(self, *, base: str = "linux", **values: Any) -> None:
        if base not in BUILTIN:
            raise _unknown("profile", base, BUILTIN)
        own = self.__dict__
        own["base"] = base
        for parameter in PARAMETERS.values():
            name = parameter.attribute
            own[name] = parameter.check(values.pop(name)) if name in values else parameter.defaults[base]
        for name in values:
            raise _unknown("parameter", name, [p.attribute for p in PARAMETERS.values()])
        for name in ("rto_min", "rto_initial"):
            ns = own[name + "_ns"]
            if ns > self.rto_max_ns:
                raise ProfileError(f"{name} = {format_ns(ns)!r}: it must not be above rto_max, {format_ns(self.rto_max_ns)!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} of a profile cannot be set: replace() makes another profile")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of a profile cannot be deleted")

    def _values(self) -> tuple[Any, ...]:
        return tuple(self.__dict__[p.attribute] for p in PARAMETERS.values())

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if isinstance(other, Profile) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    if not TYPE_CHECKING:       # a type checker shall see the fields only, so that it finds a misspelt one

        def __getattr__(self, name: str) -> Any:
            parameter = PARAMETERS.get(name)
            if parameter is not None and parameter.attribute != name:
                raise AttributeError(f"{name} is a time: read it as {parameter.attribute}, in nanoseconds")
            raise AttributeError(f"a profile has no {name!r}{_nearest(name, [p.attribute for p in PARAMETERS.values()])}")

    @property
    def time_wait_ns(self) -> int:
        """2MSL, the length of TIME_WAIT, in nanoseconds."""
        return 2 * self.msl_ns

    @property
    def orphan_retries(self) -> int:
        """`tcp_orphan_retries` with Linux's rule that 0 means 8."""
        return self.tcp_orphan_retries or 8

    def replace(self, **changes: Any) -> Profile:
        """A profile that differs in the named parameters.

        Parameters
        ----------
        **changes
            By usual name (times as seconds or text: `msl="30s"`), or by stored name (`msl_ns=30_000_000_000`).

        Raises
        ------
        ProfileError
            An unknown name (with the nearest that exist), the same parameter twice, or a value out of range.

        Warns
        -----
        UserWarning
            When `tcp_tw_recycle` is turned on.
        """
        new = vars(self) | _stored(changes)
        if new["tcp_tw_recycle"] and not self.tcp_tw_recycle:
            warnings.warn("tcp_tw_recycle drops connections of clients behind NAT; Linux removed it in 4.12", stacklevel=2)
        return Profile(**new)

    def changes(self) -> dict[str, Any]:
        """What differs from the base, by usual name and as `replace()` takes it."""
        return {
            p.name: p.human(value) for p in PARAMETERS.values()
            if (value := getattr(self, p.attribute)) != p.defaults[self.base]
        }

    def __repr__(self) -> str:
        changed = ", ".join(f"{name}={value!r}" for name, value in self.changes().items())
        return f"profile({self.base!r})" + (f".replace({changed})" if changed else "")

    def describe(self) -> str:
        """This profile as a Markdown table: name, value, the base's value where it differs, meaning."""
        rows = []
        for p in PARAMETERS.values():
            value, default = getattr(self, p.attribute), p.defaults[self.base]
            rows.append((p.group, f"`{p.name}`", p.text(value), "" if value == default else p.text(default), p.meaning))
        return _markdown(("Group", "Name", "Value", f"In {self.base}", "Meaning"), rows)

    def to_dict(self) -> dict[str, Any]:
        """Every value, by stored name, in types that JSON has; `from_dict` makes an equal profile of it."""
        plain: dict[str, Any] = {"base": self.base}
        for p in PARAMETERS.values():
            value = getattr(self, p.attribute)
            if p.kind == "port_times":
                value = [list(pair) for pair in value]
            plain[p.attribute] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` described. A missing name has its base's value. Raises ProfileError as `replace` does."""
        rest = dict(values)
        base = profile(rest.pop("base", "linux"))
        return cls(**(vars(base) | _stored(rest)))


PARAMETERS: Mapping[str, Parameter] = MappingProxyType({p.name: p for p in vars(Profile).values() if isinstance(p, Parameter)})
for _parameter in PARAMETERS.values():
    delattr(Profile, _parameter.attribute)  # from here on it is each profile's own
PROFILES: Mapping[str, Profile] = MappingProxyType({name: Profile(base=name) for name in BUILTIN})
LINUX, BSD, RFC9293, ZEEK = PROFILES.values()


def profile(name: str | Profile) -> Profile:
    """The built-in profile of that name ("linux", "bsd", "rfc9293", "zeek"), or the given Profile itself.

    Raises ProfileError if there is none of that name.
    """
    if isinstance(name, Profile):
        return name
    found = PROFILES.get(name) if isinstance(name, str) else None
    if found is None:
        raise _unknown("profile", name, BUILTIN)
    return found


def table() -> str:
    """Every parameter with its defaults in the built-in profiles, as Markdown; docs/profiles.md holds it."""
    text = [
        "# Profiles",
        "",
        "Written by `python -m fasttcp.profiles`; do not edit. Each parameter, its default in each built-in profile, its range.",
        "Times are given as seconds or as text (`30s`, `200ms`) and kept in nanoseconds under the name with `_ns` added.",
        "`bsd` is FreeBSD; `zeek` is `linux` watched by Zeek's rules.",
        "",
    ]
    for group, title in ((ENDPOINT, "Endpoint: one host's half of a connection"), (OBSERVER, "Observer: a tap on the wire")):
        rows = [
            (f"`{p.name}`", *(p.text(p.defaults[name]) for name in BUILTIN), p.limits, p.meaning, p.source)
            for p in PARAMETERS.values() if p.group == group
        ]
        text += [f"## {title}", "", _markdown(("Name", *BUILTIN, "Range", "Meaning", "Source"), rows)]
    return "\n".join(text)


def _stored(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes by usual or stored name, as checked values by stored name."""
    attributes = {p.attribute: p for p in PARAMETERS.values()}
    new: dict[str, Any] = {}
    for key, value in changes.items():
        if (parameter := attributes.get(key)) is not None:
            value = parameter.check(value)
        elif (parameter := PARAMETERS.get(key)) is not None:
            value = parameter.convert(value)
        else:
            raise _unknown("parameter", key, PARAMETERS)
        if parameter.attribute in new:
            raise ProfileError(f"{parameter.name} is given twice: as {parameter.name} and as {parameter.attribute}")
        new[parameter.attribute] = value
    return new


def _nearest(name: object, known: Iterable[str]) -> str:
    import difflib  # not at the top: 1 ms that only a mistake needs

    near = difflib.get_close_matches(str(name), list(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def _unknown(what: str, name: object, known: Iterable[str]) -> ProfileError:
    near = _nearest(name, known) if what == "parameter" else f"; there are {', '.join(known)}"
    return ProfileError(f"unknown {what} {name!r}{near}")


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(table(), end="")
