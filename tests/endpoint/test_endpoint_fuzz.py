"""Anything may come, in any order: no cell of the machine that is marked impossible is met, no invariant breaks.

Segments are random, but near what matters: the numbers of a live connection, the edges of its windows, its timestamps.
"""

import random

import pytest
from exchange import LOCAL, REMOTE, SECOND, Exchange, ip4, pack
from fasttcp.core._testing_endpoint import Seat

from fasttcp.profiles import profile as find_profile
from fasttcp.spec import EVENTS, TRANSITIONS, Action, Event, State

F, S, R, P, A = 1, 2, 4, 8, 16
LIKELY_FLAGS = (
    [A] * 8 + [A | P] * 4 + [F | A] * 5 + [S] * 4 + [S | A] * 3 + [R, R | A] * 2 + [F, 0, S | F, R | S, P, 63]
)
SETTINGS = [
    {},
    {"tcp_syncookies": 2},
    {"tcp_tw_reuse": 1, "so_keepalive": True},
    {"rfc5961": False, "time_wait_syn_reopens": "never"},
    {"tcp_max_tw_buckets": 0},
    {"tcp_max_orphans": 1, "tcp_max_syn_backlog": 2, "tcp_abort_on_overflow": True},
    {"rcv_wnd": 700, "tcp_timestamps": 0},
]
PORTS = (50000, 50003)


def random_segment(rng, seat):
    """Towards a connection of this seat, or towards one that might be."""
    handles = seat.handles()
    fields = seat.fields(rng.choice(handles)) if handles and rng.random() < 0.95 else None
    listening = fields is not None and fields["state"] == State.LISTEN
    rcv = fields["rcv_nxt"] if fields else rng.getrandbits(32)
    wnd = fields["rcv_wnd"] if fields else 1000
    una, nxt = (fields["snd_una"], fields["snd_nxt"]) if fields else (rng.getrandbits(32), rng.getrandbits(32))
    irs = fields["irs"] if fields else 0
    recent = fields["ts_recent"] if fields else 0
    if rng.random() < 0.04:  # the peer's FIN once more, if it was its last word
        return pack(
            src=REMOTE,
            dst=LOCAL,
            sport=fields["rport"] if fields else 443,
            dport=fields["lport"] if fields else 80,
            seq=(rcv - 1) % 2**32,
            ack=una,
            flags=F | A,
            options=8,
            tsval=recent,
            window=1000,
        )
    options = rng.choice([0, 0, 1, 8, 8, 15, 15])
    return pack(
        src=REMOTE,
        dst=LOCAL,
        sport=rng.choice((443, 444)) if fields is None or listening else fields["rport"],
        dport=rng.choice((*PORTS, 80)) if fields is None else fields["lport"],
        seq=rng.choice(
            (rcv, rcv, rcv, rcv + 1, rcv - 1, irs, rcv + wnd - 1, rcv + wnd, rcv + 100, rcv + 300, rng.getrandbits(32))
        )
        % 2**32,
        ack=rng.choice((una, nxt, nxt, nxt, nxt + 1, una + 1, una - 1, una - 70000, nxt - 1, rng.getrandbits(32)))
        % 2**32,
        flags=rng.choice(LIKELY_FLAGS) if rng.random() < 0.97 else rng.getrandbits(9),
        payload=rng.choice((0, 0, 0, 1, 100, 200, 1460, 70000)),
        window=rng.choice((0, 1, 500, 65535)),
        options=options,
        mss=rng.choice((0, 536, 1460)),
        wscale=rng.choice((0, 7, 15)),
        tsval=(recent + rng.choice((0, 0, 1, 5, -1, 1 << 31))) % 2**32,
        tsecr=rng.getrandbits(8),
    )


def random_input(rng, seat, now):
    """One input of any kind."""
    kind = rng.random()
    handles = seat.handles()
    if kind < 0.62:
        seat.receive(random_segment(rng, seat), now)
    elif kind < 0.70 or not handles:
        if rng.random() < 0.2:
            seat.listen(rng.choice((LOCAL, ip4("0.0.0.0"))), rng.choice((*PORTS, 80)), rng.randrange(4), now)
        else:
            port = rng.choice((0, *PORTS))
            seat.open(LOCAL, port, rng.choice((REMOTE, LOCAL)), rng.choice((443, *PORTS)), now)
    else:
        handle = rng.choice(handles)
        call = rng.randrange(8)
        if call < 2:
            seat.send(handle, rng.choice((0, 1, 100, 5000)), now)
        elif call < 4:
            seat.close(handle, rng.random() < 0.5, now)
        elif call == 4:
            if seat.state(handle) != State.LISTEN:
                seat.read(handle, rng.randrange(seat.fields(handle)["rcv_unread"] + 1), now)
            else:
                seat.accept(handle)
        elif call == 5:
            seat.keepalive(handle, rng.random() < 0.7, now)
        elif rng.random() < 0.3:
            if rng.random() < 0.5:
                seat.abort(handle, now)
            elif seat.state(handle) == State.LISTEN:
                seat.open_listener(handle, REMOTE, 443, now)
    if rng.random() < 0.3:
        now += rng.choice((1, 1_000_000, 200_000_000, SECOND, 3 * SECOND, 61 * SECOND, 7200 * SECOND))
        seat.advance(now, rng.choice((1, 3, 1 << 30)))
    return now


@pytest.mark.parametrize("name", ["linux", "bsd", "rfc9293"])
@pytest.mark.parametrize("setting", range(len(SETTINGS)))
def test_random_inputs_break_nothing(name, setting):
    rng = random.Random(f"{name} {setting}")
    profile = find_profile(name).replace(ip_local_port_range=PORTS, **SETTINGS[setting])
    for seed in range(10):
        seat = Seat(
            profile,
            rows=rng.choice((4, 12)),
            seed=seed,
            evict=rng.random() < 0.5,
            auto_read=rng.random() < 0.5,
            auto_accept=rng.random() < 0.5,
        )
        now = rng.choice((0, -5 * SECOND, 1 << 60))
        for _ in range(250):
            now = random_input(rng, seat, now)
            seat.check()
            seat.take()


def test_bytes_without_any_meaning_break_nothing():
    rng = random.Random(5)
    seat = Seat(find_profile("linux"), rows=8)
    seat.listen(LOCAL, 80, 4, 0)
    for _ in range(3000):
        record = bytearray(rng.randbytes(80))
        if rng.random() < 0.9:
            record[8:24], record[24:40] = REMOTE, LOCAL
            record[42:44] = (80).to_bytes(2, "little")
        seat.receive(bytes(record), rng.getrandbits(40))
        seat.check()
        seat.take()
    seat.batch(rng.randbytes(80 * 500))
    seat.check()


def endpoint_cells():
    """The cells of the machine that an endpoint can meet on a row: not a tap's, not those of a refused call."""
    beyond = {Event.TIMEOUT_IDLE, Event.REPLACED, Event.RCV_SYN_COOKIE}
    cells = {
        (state, event)
        for (state, event), row in TRANSITIONS.items()
        if EVENTS[event].kind != "tap"
        and event not in beyond
        and not row.actions & Action.REJECT
        and state != State.CLOSED
    }
    cells -= {(State.LISTEN, Event.SEND)}  # a listener names no remote socket here: SEND_UNSPECIFIED
    return cells


def test_every_cell_that_an_endpoint_can_meet_is_met():
    """The fuzz would prove little if it did not get about: all cells are met, but those named here."""
    met = set()
    rng = random.Random(11)
    for turn in range(1000):
        setting = SETTINGS[turn % len(SETTINGS)]
        profile = find_profile(rng.choice(("linux", "bsd", "rfc9293"))).replace(ip_local_port_range=PORTS, **setting)
        seat = Seat(
            profile,
            rows=rng.choice((3, 8)),
            seed=turn,
            evict=turn % 2 == 0,
            auto_read=rng.random() < 0.5,
            auto_accept=rng.random() < 0.5,
            trace=1 << 14,
        )
        now = 0
        for _ in range(300):
            now = random_input(rng, seat, now)
            seat.take()
        assert seat.counts()["never"] == 0
        met |= {(State(state), Event(event)) for state, event in seat.steps()}
    assert met <= set(TRANSITIONS)
    rare = {  # the shortest way there is a test of its own in the other modules
        (state, event)
        for state, event in endpoint_cells() - met
        if event
        in (
            Event.EVICTED,
            Event.OPEN_REUSE,
            Event.GIVE_UP,
            Event.KEEPALIVE_FAILED,
            Event.RCV_COOKIE_ACK,
            Event.RCV_ACK_DROPPED,
        )
    }
    assert endpoint_cells() - met - rare == set()


def test_time_that_goes_back_is_the_newest_time_seen():
    x = Exchange().established()
    x.send(10)
    x.sent.clear()
    due = x.deadline_ns
    x.now -= 500 * SECOND
    x.gets("A 1 ack 1")
    assert x.deadline_ns == due
    assert x.seat.advance(x.now)[0] == []
