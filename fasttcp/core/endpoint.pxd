# The endpoint seat: one host's half of each connection. Each row is a connection, or a listener; side 0 is the local
# half.
#
#      calls (open, listen, send, read, close, abort)          segments that arrive          timers that are due
#                        |                                            |                             |
#                    calls.pyx                                  arrivals.pyx                   expiry.pyx
#                        |                          (no row: listening.pyx, as CLOSED or LISTEN)    |
#                        +-----------------------> events, in order <-------------------------------+
#                                                        |
#                        actions.pyx: step = seat.fire (spec.py's table) + what its Action bits ask for
#                                                        |
#                 output.pyx: segments to be sent        |        timeouts.pyx: the row's one timer
#
# Who keeps what: policy a Profile in C; isn.pyx sequence numbers, cookies and offsets; ports.pyx ephemeral ports,
# crowds.pyx those that are taken for certain; hosts.pyx tcp_tw_recycle's memory; tcb.pxd the records. The driver above
# puts segments on a wire and holds the payload; here bytes are counted only.
#
# Input: events at a time (now_ns), which never goes back. Output: Outcome for each input, Segment records in e.output.
#
# Promises, held by endpoint_check and the tests:
#   - no state changes but through seat.fire; a cell of the table marked NEVER is never met (Engine.never stays 0);
#   - a call that the table rejects changes nothing;
#   - after every input the timer of a row is the one that its state needs, exactly one or none;
#   - SND.UNA <= SND.NXT; a FIN is queued or sent exactly in the states that have closed, and acknowledged in
#     FIN_WAIT_2 and TIME_WAIT;
#   - a segment causes at most one ACK, and limited ACKs keep their limit;
#   - a deleted row leaves nothing behind: not in a backlog, an accept queue, a counter or the wheel.
#
# Not here: congestion control, SACK blocks, fast retransmit, urgent data, path MTU discovery. One unacknowledged run is
# retransmitted from SND.UNA on.
#
# Cost: of a segment one index line, the row's line, two lines of its cold record, and one and a half lines
# written for each segment sent.

from libc.stdint cimport uint64_t

from fasttcp.core.tcb cimport Endpoint

# Made ready with a Profile, 2 secret words, and room for `output_limit` segments that wait to be sent. The caller opens
# e.engine.table (SEAT_ENDPOINT, cold records of sizeof(EndpointCold)) and e.engine.trace, and closes them. MemoryError.
cdef int endpoint_init(Endpoint *e, object profile, const uint64_t *secret, size_t output_limit) except -1
cdef void endpoint_fini(Endpoint *e) noexcept nogil
# Count listeners and orphans anew, of rows that came out of a file.
cdef void endpoint_recount(Endpoint *e) noexcept nogil
# InvariantError naming the first broken promise and its row.
cdef int endpoint_check(Endpoint *e) except -1
