"""Which case of an endpoint's behaviour is compared with Linux, in which role, and by what.

Names are those of probes, openings, scenes, scripts and tests of this folder; a test looks for each, and that the table of
docs/against-linux.md is this one. `python -m oracle.cases` (in tests/) prints it.
"""

BOTH, ACTIVE, PASSIVE, NOBODY = "both", "active", "passive", "no connection"

# case: (state, what happens, role of the endpoint, names)
CASES: dict[int, tuple[str, str, str, tuple[str, ...]]] = {
    1: ("CLOSED", "a segment for nobody", NOBODY, ("ack", "data", "syn", "fin")),
    2: ("CLOSED", "a RST for nobody", NOBODY, ("reset", "reset_with_ack")),
    3: ("LISTEN", "RST, ACK, SYN", PASSIVE, ("reset", "ack", "syn", "everything")),
    4: ("SYN_SENT", "a wrong ACK", ACTIVE, ("case_04_ack_of_iss", "case_04_syn_ack_of_the_future")),
    5: ("SYN_SENT", "a RST that proves nothing", ACTIVE, ("case_05_reset_without_ack", "case_05_reset_of_iss")),
    6: ("SYN_SENT", "a RST with our ACK", ACTIVE, ("good_reset",)),
    7: ("SYN_SENT", "simultaneous open", ACTIVE, ("syn", "case_07 crossed, never acknowledged")),
    8: ("SYN_SENT", "no answer", ACTIVE, ("case_08 back-off", "case_08 linear at first", "case_08 by default")),
    9: ("SYN_RCVD", "the same SYN again", BOTH, ("case_09 the syn again", "case_09 after both opened")),
    10: ("SYN_RCVD", "a wrong ACK", BOTH, ("case_22_ack_of_the_future", "case_22_ack_of_the_far_past")),
    11: ("SYN_RCVD", "a RST in the window", BOTH, ("case_18_reset_at_rcv_nxt", "case_14 who is reset makes room")),
    12: ("SYN_RCVD", "CLOSE", ACTIVE, ("case_12 close of a crossed opening",)),
    13: ("SYN_RCVD", "no ACK", PASSIVE, ("case_13 back-off", "case_13 by default")),
    14: ("LISTEN", "a full backlog, cookies", PASSIVE, ("case_14 a full backlog drops", "case_14 cookies always")),
    15: ("synchronized", "outside the window", BOTH, ("case_15_old_data", "case_15_data_beyond_the_window")),
    16: ("any", "sequence numbers through the wrap", BOTH, ("test_case_16_a_conversation_through_the_wrap",)),
    17: ("any", "windows of a SYN, shift 15", BOTH, ("window of a SYN is not scaled", "window scale of 15 is 14")),
    18: ("synchronized", "a RST at RCV.NXT", BOTH, ("case_18_reset_at_rcv_nxt", "case_18_reset_with_ack_at_rcv_nxt")),
    19: ("synchronized", "a RST elsewhere", BOTH, ("case_19_reset_in_the_window", "case_19_reset_outside_the_window")),
    20: ("after a FIN", "a RST at RCV.NXT - 1", BOTH, ("case_20_reset_before_rcv_nxt",)),
    21: ("synchronized", "a SYN", BOTH, ("case_21_syn_in_the_window", "case_21_syn_outside_the_window")),
    22: ("synchronized", "an ACK of the future or the past", BOTH, ("case_22_ack_of_the_future", "case_22_ack_of_the_far_past")),
    23: ("synchronized", "ACKs for what does not fit", BOTH, ("case_23, active", "case_23, passive")),
    24: ("with timestamps", "old ones, and a RST", BOTH, ("case_24 old data in ESTABLISHED", "case_24 an old reset in LAST_ACK")),
    25: ("ESTABLISHED", "CLOSE", BOTH, ("test_every_call_in_every_synchronized_state",)),
    26: ("ESTABLISHED", "data, FIN, holes", BOTH, ("case_26_fin_in_order", "case_26_fin_beyond_a_hole")),
    27: ("FIN_WAIT_1", "ACK of our FIN", BOTH, ("pure_ack",)),
    28: ("FIN_WAIT_1", "another ACK", BOTH, ("pure_ack_again",)),
    29: ("FIN_WAIT_1", "FIN and ACK of our FIN", BOTH, ("case_26_fin_in_order", "case_26_data_and_fin")),
    30: ("FIN_WAIT_1", "FIN without it", BOTH, ("case_30_fin_without_our_last_ack",)),
    31: ("FIN_WAIT_2", "data", BOTH, ("case_26_data_in_order", "test_case_16_a_conversation_through_the_wrap")),
    32: ("FIN_WAIT_2", "FIN", BOTH, ("case_26_fin_in_order",)),
    33: ("FIN_WAIT_2", "an orphan", BOTH, ("case_33, active", "case_33, passive", "case_33 by default, active", "orphan pure_ack")),
    34: ("any", "unread data, data for nobody", BOTH, (
        "test_case_34_close_with_unread_data_resets", "test_case_34_data_after_a_full_close_resets")),
    35: ("CLOSE_WAIT", "CLOSE", BOTH, ("test_every_call_in_every_synchronized_state", "case_39 LAST_ACK, active")),
    36: ("LAST_ACK", "ACK of our FIN", BOTH, ("pure_ack",)),
    37: ("after a FIN", "the FIN again", BOTH, ("case_37_fin_again",)),
    38: ("CLOSING", "ACK of our FIN", BOTH, ("pure_ack", "case_43 after CLOSING, active")),
    39: ("FIN_WAIT_1, CLOSING, LAST_ACK", "our FIN is lost", BOTH, (
        "case_39, active", "case_39 CLOSING, passive", "case_39 orphan, active", "case_39 by default, active")),
    40: ("TIME_WAIT", "the FIN again", BOTH, ("case_37_fin_again", "case_40 the fin again, active")),
    41: ("TIME_WAIT", "a SYN", PASSIVE, ("case_41 above, newer, timestamps", "case_41 below, older, timestamps")),
    42: ("TIME_WAIT", "a RST", BOTH, ("case_42 tcp_rfc1337 off", "case_42 tcp_rfc1337 on")),
    43: ("TIME_WAIT", "2MSL", BOTH, ("case_43, active", "case_43, passive")),
    44: ("TIME_WAIT", "connect()", ACTIVE, (
        "case_44 tcp_tw_reuse 1, timestamps, late enough", "case_44 tcp_tw_reuse 2, timestamps, late enough")),
    46: ("TIME_WAIT", "too many of them", BOTH, ("case_46 none may wait", "case_46 one may wait")),
    47: ("synchronized", "ABORT", BOTH, ("test_every_call_in_every_synchronized_state",)),
    48: ("ESTABLISHED", "keepalive", BOTH, ("case_48, active", "case_48 CLOSE_WAIT, passive", "case_48 FIN_WAIT_2, active")),
}  # fmt: skip

#: What no exchange with this kernel can show, or shows in one role only, and why.
NOT_SHOWN = {
    7: "who listens sends no SYN of its own, so both SYNs can cross in the active role only",
    12: "a request of a Linux listener has no socket yet that could be closed",
    14: "tcp_syncookies and the accept queue belong to listeners",
    16: "the peer's numbers wrap; those of a Linux socket are its own choice, and ours wrap in tests/endpoint",
    41: "a SYN opens TIME_WAIT anew only where somebody listens",
    44: "tcp_tw_reuse = 2 on loopback is compared in docs/plan-kernel.md, since a TUN device has no loopback address",
    45: "tcp_tw_recycle exists in no kernel since 4.12 (2017); tests/endpoint shows it by our machine alone",
}


def table() -> str:
    """The table of docs/against-linux.md."""
    rows = ["| case | state | what happens | role | shown by, among others |", "|---|---|---|---|---|"]
    for case in range(1, 49):
        if case not in CASES:
            rows.append(f"| {case} | | | not shown | {NOT_SHOWN[case]} |")
            continue
        state, what, role, names = CASES[case]
        rows.append(f"| {case} | {state} | {what} | {role} | {', '.join(f'`{name}`' for name in names)} |")
    notes = [f"- {case}: {why}." for case, why in NOT_SHOWN.items() if case in CASES]
    return "\n".join([*rows, "", "Where a role is missing, or something else:", "", *notes, ""])


if __name__ == "__main__":
    print(table(), end="")
