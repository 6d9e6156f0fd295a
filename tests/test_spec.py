"""The machine as data: complete, without contradiction, and the one of RFC 9293."""

import pytest

from fasttcp.spec import EVENTS, SYNCHRONIZED, TRANSITIONS, Action, Event, State, transition

CELLS = [(state, event) for state in State for event in Event]

# RFC 9293 section 3.3.2 figure 5, typed in by hand from the figure: state, what the arrow says, next state, what is sent.
# "rcv FIN,ACK of FIN" is the figure's note 2, an event each for the ACK and the FIN.
FIGURE_5 = [
    ("CLOSED", ["OPEN_PASSIVE"], "LISTEN", ""),
    ("CLOSED", ["OPEN_ACTIVE"], "SYN_SENT", "SYN"),
    ("LISTEN", ["CLOSE"], "CLOSED", ""),
    ("LISTEN", ["RCV_SYN"], "SYN_RCVD", "SYN,ACK"),
    ("LISTEN", ["SEND"], "SYN_SENT", "SYN"),
    ("SYN_RCVD", ["RCV_RST_PASSIVE"], "LISTEN", ""),
    ("SYN_RCVD", ["RCV_ACK_OF_SYN"], "ESTABLISHED", ""),
    ("SYN_RCVD", ["CLOSE"], "FIN_WAIT_1", "FIN"),
    ("SYN_SENT", ["CLOSE"], "CLOSED", ""),
    ("SYN_SENT", ["RCV_SYN"], "SYN_RCVD", "SYN,ACK"),
    ("SYN_SENT", ["RCV_SYN_ACK"], "ESTABLISHED", "ACK"),
    ("ESTABLISHED", ["CLOSE"], "FIN_WAIT_1", "FIN"),
    ("ESTABLISHED", ["RCV_FIN"], "CLOSE_WAIT", "ACK"),
    ("FIN_WAIT_1", ["RCV_ACK_OF_FIN"], "FIN_WAIT_2", ""),
    ("FIN_WAIT_1", ["RCV_FIN"], "CLOSING", "ACK"),
    ("FIN_WAIT_1", ["RCV_ACK_OF_FIN", "RCV_FIN"], "TIME_WAIT", "ACK"),
    ("CLOSE_WAIT", ["CLOSE"], "LAST_ACK", "FIN"),
    ("FIN_WAIT_2", ["RCV_FIN"], "TIME_WAIT", "ACK"),
    ("CLOSING", ["RCV_ACK_OF_FIN"], "TIME_WAIT", ""),
    ("LAST_ACK", ["RCV_ACK_OF_FIN"], "CLOSED", ""),
    ("TIME_WAIT", ["TIMEOUT_2MSL"], "CLOSED", ""),
]
# Forms of a call that only some states can tell from the plain one; every state has a row for the plain calls.
SPECIAL_CALLS = {Event.OPEN_REUSE, Event.CLOSE_UNREAD, Event.SEND_UNSPECIFIED, Event.RELEASE}
SENDS = {
    Action.SEND_SYN: "SYN",
    Action.SEND_SYN_ACK: "SYN,ACK",
    Action.SEND_ACK: "ACK",
    Action.SEND_FIN: "FIN",
}


@pytest.mark.parametrize(("start", "events", "end", "sent"), FIGURE_5)
def test_figure_5_of_rfc_9293(start, events, end, sent):
    state, out = State[start], []
    for event in events:
        row = transition(state, Event[event])
        out += [text for action, text in SENDS.items() if row.actions & action]
        state = row.next
    assert (state, ",".join(out)) == (State[end], sent)


def test_no_other_ordinary_segment_or_close_changes_a_state_than_figure_5_shows():
    """Beyond the figure there are only: reuse, cookies, resets, aborts, crossings, and an OPEN of a listener."""
    beyond = {
        Event.OPEN_REUSE, Event.RCV_SYN_NEW, Event.RCV_COOKIE_ACK, Event.RCV_RST, Event.ABORT, Event.CLOSE_UNREAD,
        Event.RCV_DATA_UNWANTED, Event.RCV_SYN_FATAL,
    }  # fmt: skip
    drawn = {(State[start], Event[events[0]]) for start, events, _, _ in FIGURE_5 if len(events) == 1}
    drawn.add((State.LISTEN, Event.OPEN_ACTIVE))
    changing = {
        (row.state, row.event)
        for row in TRANSITIONS.values()
        if row.next != row.state and EVENTS[row.event].kind in ("call", "segment") and row.event not in beyond
    }
    timed = {(State.TIME_WAIT, Event.TIMEOUT_2MSL)}
    assert changing == drawn - timed


@pytest.mark.parametrize(("state", "event"), CELLS)
def test_every_cell_is_a_row_or_impossible_for_a_stated_reason(state, event):
    if (state, event) in TRANSITIONS:
        row = transition(state, event)
        assert (row.state, row.event) == (state, event)
        assert row.source
        assert row.why
        assert not row.actions & Action.NEVER
        if row.actions & Action.REJECT:
            assert (EVENTS[event].kind, row.next, row.actions) == ("call", state, Action.REJECT)
    else:
        assert EVENTS[event].kind != "call" or event in SPECIAL_CALLS
        assert EVENTS[event].elsewhere
        with pytest.raises(LookupError, match=f"{event.name} does not occur in {state.name}: "):
            transition(state, event)


@pytest.mark.parametrize("event", Event)
def test_events_are_described_and_their_gaps_explained_only_where_there_are_gaps(event):
    gaps = [state for state in State if (state, event) not in TRANSITIONS]
    assert EVENTS[event].kind in ("call", "segment", "timer", "policy", "tap")
    assert bool(gaps) == bool(EVENTS[event].elsewhere)


def test_the_row_is_freed_exactly_where_the_connection_ends():
    for row in TRANSITIONS.values():
        assert bool(row.outcome) == bool(row.actions & Action.DELETE), row
        if row.actions & Action.DELETE:
            assert row.next in (State.CLOSED, State.LISTEN), row


def test_an_entry_into_time_wait_always_arms_2msl_and_nothing_else_but_the_fin_again_does():
    for row in TRANSITIONS.values():
        enters = row.next is State.TIME_WAIT and row.state is not State.TIME_WAIT
        again = (row.state, row.event) == (State.TIME_WAIT, Event.RCV_FIN_AGAIN)
        assert bool(row.actions & Action.START_2MSL) == (enters or again), row


def test_a_rst_is_never_answered_by_a_rst():
    for row in TRANSITIONS.values():
        if row.event.name.startswith("RCV_RST"):
            assert not row.actions & (Action.SEND_RST | Action.SEND_RST_ACK | Action.SEND_ABORT_RST), row


def test_synchronized_states_never_answer_with_a_bare_rst():
    """RFC 9293 section 3.5.3 group 3: an unacceptable segment elicits an empty ACK."""
    for state in SYNCHRONIZED:
        for event in Event:
            row = TRANSITIONS.get((state, event))
            if row is not None and EVENTS[event].kind == "segment":
                assert not row.actions & (Action.SEND_RST | Action.SEND_RST_ACK), row


def test_every_state_is_reached_from_closed_and_leads_back_to_it():
    following = {state: {row.next for row in TRANSITIONS.values() if row.state is state} for state in State}

    def reach(start):
        seen, todo = set(), [start]
        while todo:
            for state in following[todo.pop()] - seen:
                seen.add(state)
                todo.append(state)
        return seen

    assert reach(State.CLOSED) == set(State)
    assert all(State.CLOSED in reach(state) for state in State)
