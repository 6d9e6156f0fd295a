"""Where nf_conntrack and the observer seat part, each difference with who is right and why. Data, nothing else.

The test demands exactly these: no other difference, and none of these gone. docs/conntrack.md is written from them.
Source of what conntrack does: net/netfilter/nf_conntrack_proto_tcp.c, and the run itself.
"""

from typing import NamedTuple

from kernel_witness.compare import Found

KERNEL = "Linux 6.18"  # where the differences were found
OLDEST = (6, 1)  # before, conntrack called INVALID what it now ignores: segments far below the window


class Cause(NamedTuple):
    right: str  # "fasttcp", "conntrack", "both", or "neither"
    what: str
    why: str


CAUSES = {
    "fin_repeated": Cause(
        "fasttcp",
        "A FIN that is sent again",
        "RFC 9293 section 3.10.7.4: what was received before is acknowledged again and has no other effect. "
        "conntrack takes any FIN after a FIN for the other end's, and is in TIME_WAIT while the other end has not "
        "closed.",
    ),
    "ack_of_less": Cause(
        "fasttcp",
        "An ACK after a FIN that does not cover it",
        "RFC 9293 section 3.10.7.4: FIN_WAIT_1 is left when the FIN itself is acknowledged. conntrack takes any "
        "ACK after a FIN for that.",
    ),
    "ack_from_the_closer": Cause(
        "fasttcp",
        "An ACK after the second FIN, from the end that sent that FIN",
        "RFC 9293 section 3.10.7.4: LAST_ACK ends with the peer's ACK of the FIN. conntrack does not ask who "
        "sends the last ACK.",
    ),
    "one_ack_of_two": Cause(
        "fasttcp",
        "The first of the two ACKs of a simultaneous close",
        "RFC 9293 section 3.6, figure 13: each FIN needs its ACK. One end is still in CLOSING; conntrack is in "
        "TIME_WAIT.",
    ),
    "crossed_syn_acks": Cause(
        "fasttcp",
        "The second SYN+ACK of a simultaneous open",
        "RFC 9293 section 3.5, figure 7: it acknowledges the other SYN, both ends are established. conntrack "
        "waits for an ACK without SYN.",
    ),
    "crossed_acks": Cause(
        "fasttcp",
        "A simultaneous open whose SYNs are answered by ACKs without SYN",
        "RFC 9293 section 3.10.7.4: in SYN_RCVD an ACK of the SYN is all that is needed. conntrack leaves "
        "SYN_SENT2 only by a SYN+ACK and calls the whole connection INVALID.",
    ),
    "refused": Cause(
        "both",
        "A SYN that is refused by RST+ACK",
        "RFC 9293 section 3.10.7.3: closed. conntrack drops at once an entry that was reset before any reply; the "
        "observer keeps the row a little, so that it can be told.",
    ),
    "rst_without_ack": Cause(
        "fasttcp",
        "A RST without ACK as the answer to a SYN",
        "RFC 9293 section 3.10.7.3: in SYN_SENT a RST counts only if its ACK is acceptable, any other is dropped. "
        "conntrack forgets the connection, calls the real SYN+ACK INVALID, and picks the stream up in its middle.",
    ),
    "syn_ack_again": Cause(
        "fasttcp",
        "The SYN and the SYN+ACK of the handshake once more on an established connection",
        "RFC 9293 section 3.10.7.4: old duplicates, answered by an ACK, no state changes. conntrack takes the "
        "pair for a new handshake and calls the next ACK INVALID.",
    ),
    "server_first": Cause(
        "fasttcp",
        "Data from the responder when the third segment of the handshake was not seen",
        "RFC 9293 section 3.10.2 lets a responder send data from ESTABLISHED on, so the ACK was received. (With "
        "TCP Fast Open, RFC 7413 section 4.2, it need not have been; conntrack's SYN_RECV would then be right.)",
    ),
    "syn_unseen": Cause(
        "fasttcp",
        "A SYN+ACK whose SYN was not seen, or is seen after it",
        "RFC 9293 section 3.5: nobody sends a SYN+ACK but in answer to a SYN, so both states are known. conntrack "
        "stands in the path, where the SYN must have passed; as a tap it drops a good handshake.",
    ),
    "syn_ack_unseen": Cause(
        "fasttcp",
        "A connection whose SYN+ACK was not seen",
        "RFC 9293 section 3.5: the opener's ACK proves that it has received one. conntrack stands in the path, "
        "where it must have passed, and calls all that follows INVALID.",
    ),
    "picked_up_at_fin": Cause(
        "fasttcp",
        "A connection of which only the close is seen",
        "RFC 9293 section 3.6: a FIN+ACK tells as much of both ends as an ACK. conntrack (nf_conntrack_tcp_loose) "
        "picks up with an ACK only, stays a FIN behind, and holds CLOSE_WAIT for a connection that is closed.",
    ),
    "hole": Cause(
        "fasttcp",
        "An ACK of data that were never seen",
        "To the hosts it is an ordinary ACK (RFC 9293 section 3.10.7.4): the capture has lost the data. conntrack "
        "stands in the path, where nothing is missing, and takes it for forged (RFC 5961 section 5.2).",
    ),
    "fin_unseen": Cause(
        "neither",
        "A FIN that was never seen, acknowledged and followed by the other end's close",
        "The hosts are in TIME_WAIT and CLOSED (RFC 9293 section 3.6). One acknowledged number more may be a byte "
        "as well as a FIN: the observer, which counts a missing byte, follows the other end's close; conntrack "
        "calls all of it INVALID.",
    ),
    "rst_in_window": Cause(
        "conntrack",
        "A RST inside the window but not at RCV.NXT",
        "RFC 9293 section 3.10.7.4 and RFC 5961 section 3.2: challenged, no state changes. The observer believes "
        "it on purpose: a host without RFC 5961 obeys it, and where a capture has holes nobody knows RCV.NXT.",
    ),
    "other_isn": Cause(
        "fasttcp",
        "A SYN with another number on a connection that lives, and the other end's SYN+ACK to it",
        "RFC 9293 section 3.5.1: another initial number is another connection, and the answer proves that the old "
        "one is gone. conntrack says the same state but goes on with the old entry, its counters and its age.",
    ),
    "old_syn": Cause(
        "fasttcp",
        "The very SYN of a connection that is closed",
        "RFC 9293 sections 3.5 and 3.6.1: an old duplicate; a new connection out of TIME_WAIT needs a larger "
        "number. conntrack does not compare the numbers.",
    ),
}

# (exchange, first segment, last segment, conntrack, fasttcp), segments counted from 1
_FOUND = {
    "fin_repeated": [
        ("capture/fin_lost", 5, 5, "LAST_ACK", "FIN_WAIT_1 / CLOSE_WAIT"),
        ("capture/fin_lost", 6, 6, "TIME_WAIT", "FIN_WAIT_2 / CLOSE_WAIT"),
        ("capture/fin_lost", 7, 7, "TIME_WAIT", "TIME_WAIT / LAST_ACK"),
        ("hand/everything_twice", 16, 16, "LAST_ACK", "FIN_WAIT_1 / CLOSE_WAIT"),
        ("hand/everything_twice", 17, 18, "TIME_WAIT", "FIN_WAIT_2 / CLOSE_WAIT"),
        ("hand/everything_twice", 19, 20, "TIME_WAIT", "TIME_WAIT / LAST_ACK"),
        ("hand/fin_again", 9, 10, "LAST_ACK", "FIN_WAIT_1 / CLOSE_WAIT"),
        ("hand/fin_again", 11, 11, "TIME_WAIT", "FIN_WAIT_2 / CLOSE_WAIT"),
        ("hand/fin_again", 12, 13, "TIME_WAIT", "TIME_WAIT / LAST_ACK"),
    ],
    "ack_of_less": [
        ("capture/data_reordered", 13, 14, "CLOSE_WAIT", "FIN_WAIT_1 / CLOSE_WAIT"),
        ("hand/fin_acknowledged_only_in_part", 9, 9, "CLOSE_WAIT", "FIN_WAIT_1 / CLOSE_WAIT"),
        ("hand/fin_before_its_data", 9, 10, "CLOSE_WAIT", "FIN_WAIT_1 / CLOSE_WAIT"),
    ],
    "ack_from_the_closer": [
        ("hand/last_ack_overtaken", 10, 10, "TIME_WAIT", "TIME_WAIT / LAST_ACK"),
    ],
    "one_ack_of_two": [
        ("capture/close_simultaneous", 10, 10, "TIME_WAIT", "CLOSING / TIME_WAIT"),
        ("hand/simultaneous_close", 10, 10, "TIME_WAIT", "CLOSING / TIME_WAIT"),
    ],
    "crossed_syn_acks": [
        ("capture/open_simultaneous", 4, 4, "SYN_RECV, ignored", "ESTABLISHED / ESTABLISHED"),
        ("hand/simultaneous_open", 4, 4, "SYN_RECV, ignored", "ESTABLISHED / ESTABLISHED"),
    ],
    "crossed_acks": [
        ("hand/simultaneous_open_with_plain_acks", 3, 3, "SYN_SENT2, INVALID", "SYN_RCVD / ESTABLISHED"),
        ("hand/simultaneous_open_with_plain_acks", 4, 4, "SYN_SENT2, ignored", "ESTABLISHED / ESTABLISHED"),
        ("hand/simultaneous_open_with_plain_acks", 5, 5, "SYN_SENT2, INVALID", "ESTABLISHED / ESTABLISHED"),
    ],
    "refused": [
        ("capture/refused", 2, 2, "none", "CLOSED / CLOSED"),
        ("hand/syn_after_refusal", 2, 2, "none", "CLOSED / CLOSED"),
    ],
    "rst_without_ack": [
        ("hand/rst_without_ack_answers_syn", 2, 2, "none", "SYN_SENT / SYN_RCVD, suspect"),
        ("hand/rst_without_ack_answers_syn", 3, 3, "none, INVALID", "ESTABLISHED / SYN_RCVD"),
        ("hand/rst_without_ack_answers_syn", 4, 4, "ESTABLISHED, new", "ESTABLISHED / ESTABLISHED"),
    ],
    "syn_ack_again": [
        ("hand/handshake_again_later", 9, 9, "SYN_RECV", "ESTABLISHED / ESTABLISHED"),
        ("hand/handshake_again_later", 10, 10, "SYN_RECV, INVALID", "ESTABLISHED / ESTABLISHED"),
    ],
    "server_first": [
        ("hand/server_speaks_first", 3, 3, "SYN_RECV", "ESTABLISHED / ESTABLISHED"),
    ],
    "syn_unseen": [
        ("hand/syn_ack_first", 1, 1, "none, INVALID", "ESTABLISHED / SYN_RCVD, new"),
        ("hand/syn_ack_first", 2, 2, "ESTABLISHED, new", "ESTABLISHED / ESTABLISHED"),
        ("hand/syn_overtaken_by_syn_ack", 1, 1, "none, INVALID", "ESTABLISHED / SYN_RCVD, new"),
        ("hand/syn_overtaken_by_syn_ack", 2, 2, "SYN_SENT, new", "ESTABLISHED / SYN_RCVD"),
        ("hand/syn_overtaken_by_syn_ack", 3, 4, "SYN_SENT, INVALID", "ESTABLISHED / ESTABLISHED"),
    ],
    "syn_ack_unseen": [
        ("hand/syn_ack_missing", 2, 3, "SYN_SENT, INVALID", "ESTABLISHED / ESTABLISHED"),
        ("hand/syn_ack_missing", 4, 4, "SYN_SENT, ignored", "ESTABLISHED / ESTABLISHED"),
        ("hand/one_direction_only", 2, 4, "SYN_SENT, INVALID", "ESTABLISHED / ESTABLISHED"),
        ("hand/one_direction_only", 5, 6, "SYN_SENT, INVALID", "FIN_WAIT_1 / CLOSE_WAIT"),
    ],
    "picked_up_at_fin": [
        ("hand/mid_stream_fin", 1, 1, "none, INVALID", "FIN_WAIT_1 / CLOSE_WAIT, new"),
        ("hand/mid_stream_fin", 2, 2, "ESTABLISHED, new", "FIN_WAIT_2 / CLOSE_WAIT"),
        ("hand/mid_stream_fin", 3, 3, "FIN_WAIT", "TIME_WAIT / LAST_ACK"),
        ("hand/mid_stream_fin", 4, 4, "CLOSE_WAIT", "TIME_WAIT / CLOSED"),
    ],
    "hole": [
        ("hand/acknowledged_but_never_seen", 8, 8, "ESTABLISHED, INVALID", "ESTABLISHED / ESTABLISHED"),
    ],
    "fin_unseen": [
        ("hand/fin_never_seen", 8, 8, "ESTABLISHED, INVALID", "ESTABLISHED / ESTABLISHED"),
        ("hand/fin_never_seen", 9, 9, "ESTABLISHED, INVALID", "CLOSE_WAIT / FIN_WAIT_1"),
        ("hand/fin_never_seen", 10, 10, "ESTABLISHED, INVALID", "CLOSE_WAIT / FIN_WAIT_2"),
    ],
    "rst_in_window": [
        ("capture/forged_reset", 4, 5, "ESTABLISHED", "CLOSED / CLOSED"),
        ("capture/forged_reset", 6, 6, "FIN_WAIT", "CLOSED / CLOSED, suspect"),
        ("capture/forged_reset", 7, 7, "CLOSE_WAIT", "CLOSED / CLOSED"),
        ("capture/forged_reset", 8, 8, "LAST_ACK", "CLOSED / CLOSED, suspect"),
        ("capture/forged_reset", 9, 9, "TIME_WAIT", "CLOSED / CLOSED"),
        ("hand/rst_in_window", 8, 11, "ESTABLISHED", "CLOSED / CLOSED"),
        ("hand/rst_in_window_meant", 8, 9, "ESTABLISHED", "CLOSED / CLOSED"),
    ],
    "other_isn": [
        ("hand/syn_on_a_half_open_connection", 9, 9, "SYN_RECV", "ESTABLISHED / SYN_RCVD, new"),
        ("hand/syn_with_another_isn_before_an_answer", 3, 3, "SYN_RECV", "ESTABLISHED / SYN_RCVD, new"),
    ],
    "old_syn": [
        ("hand/syn_again_after_close", 12, 12, "SYN_SENT, new", "TIME_WAIT / CLOSED"),
    ],
}
DIFFERENCES = {cause: [Found(*row) for row in rows] for cause, rows in _FOUND.items()}
