"""The calls of an endpoint's application, with Python's arguments and errors. They decide nothing: calls.pyx does.

Arguments are read before `ready`, results made after: no Python code runs between the two, so that each call is whole.
"""

from operator import index

from libc.stdint cimport INT64_MAX, INT64_MIN, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.address cimport format_address, parse_address, parse_number, whole
from fasttcp.core.calls cimport (
    CALL_BAD_LOCAL, CALL_BAD_REMOTE, CALL_FULL, CALL_NOTHING, CALL_NO_MEMORY, CALL_NO_PORT, CALL_OK, CALL_REJECTED,
    endpoint_abort, endpoint_accept, endpoint_close, endpoint_keepalive, endpoint_listen, endpoint_open,
    endpoint_open_listener, endpoint_read, endpoint_send,
)
from fasttcp.core.expiry cimport endpoint_expired, next_timer
from fasttcp.core.layout cimport Segment, ns_t, row_t
from fasttcp.core.names cimport E_OPEN_ACTIVE, E_OPEN_PASSIVE
from fasttcp.core.observer cimport observer_expired
from fasttcp.core.output cimport output_take
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.core.store cimport store_handle, store_row_of
from fasttcp.core.tcb cimport Outcome
from fasttcp.core.turn cimport turn_take, turn_wait

from fasttcp.core.outcomes import read_outcome, refusal
from fasttcp.errors import PortsExhausted, SegmentError, StaleHandle, StateError, TableFull, TupleInUse

__all__ = ["Application"]

# ---- for every method of a table -------------------------------------------------------------------------------------

cdef int ready(Application table) except -1:
    """Return when no batch of another thread is in the table. Refuses a table that was never opened."""
    if table.engine == NULL:
        raise StateError("this table is not open")
    return turn_wait(&table.turn)


cdef int enter(Application table) except -1:
    """The same, and keep others out until turn_give: for what lets go of the GIL."""
    if table.engine == NULL:
        raise StateError("this table is not open")
    return turn_take(&table.turn)


cdef bint expired(Application table, row_t row) noexcept:
    """Whether the row's time is up though the wheel has not come round to it: then it is gone now."""
    if table.observer != NULL:
        return observer_expired(table.observer, row)
    return endpoint_expired(table.endpoint, row)


cdef bint row_of(Application table, object number, row_t *row) except -1:
    """Whether a handle (an int) names a live connection, and its row."""
    cdef uint64_t handle
    if not 0 <= number < 1 << 64:
        return False
    handle = number
    ready(table)
    return store_row_of(&table.engine.table, handle, row) and not expired(table, row[0])


cdef int live_row(Application table, handle, row_t *row) except -1:
    """The row of a handle; StaleHandle when its connection is gone."""
    try:
        number = index(handle)
    except TypeError:
        raise TypeError(f"handle is {handle!r}: it must be an int") from None
    if not row_of(table, number, row):
        raise StaleHandle(f"handle {number} names no live connection")
    return 0


# ---- inside ----------------------------------------------------------------------------------------------------------

cdef ns_t _time(now_ns) except? -1:
    return whole("now_ns", now_ns, INT64_MIN, INT64_MAX)


cdef int _seated(Application table, str call) except -1:
    """The call belongs to the endpoint seat."""
    if table.engine == NULL:
        raise StateError("this table is not open")
    if table.endpoint == NULL:
        raise StateError(f"{call}() belongs to the endpoint seat; this table sits in the observer seat")
    return 0


cdef str _place(const uint8_t *address, port):
    text = format_address(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


cdef object _told(Application table, str call, int answer, Outcome *out):
    """The outcome of a call, or the exception that its answer stands for."""
    if answer == CALL_OK:
        return read_outcome(
            out.handle, out.events, out.before, out.after, out.origin, out.last, out.delivered, out.sent, out.flags
        )
    if answer == CALL_REJECTED:
        why = refusal(call, out.origin, out.last)
        raise (TupleInUse if out.last in (E_OPEN_ACTIVE, E_OPEN_PASSIVE) else StateError)(why)
    if answer == CALL_FULL:
        raise TableFull(f"all {table.engine.table.max_rows} rows are in use")
    if answer == CALL_NO_MEMORY:
        raise MemoryError("no memory for another row")
    raise StateError(f"{call}() was answered with {answer}")


# ---- the calls -------------------------------------------------------------------------------------------------------

cdef class Application:
    """RFC 9293 section 3.9.1: OPEN, SEND, RECEIVE, CLOSE, ABORT, for tables in the endpoint seat.

    Each call takes the time, now_ns (int, ns, any epoch), and returns when all that follows from it has been done;
    segments that it sends wait for `take_output`. A call that the machine rejects raises StateError with the RFC's
    reason and changes nothing. All of them: O(1), the GIL is held, StaleHandle for a handle whose connection is gone.
    """

    def listen(self, local, port, now_ns, *, backlog=4096):
        """Passive OPEN: take connections to (local, port). Returns the listener's handle.

        local: an address; "0.0.0.0" or "::" is every address of its family. backlog: how many half-open connections may
        wait at most (and, without accept_all, as many established ones), not more than the profile's somaxconn.
        Raises TupleInUse when somebody listens there, TableFull, SegmentError for an address or port that cannot be.
        """
        cdef Outcome out
        cdef uint8_t address[16]
        cdef uint16_t number = parse_number("port", port, 1, 65535)
        cdef uint32_t waiting = whole("backlog", backlog, 0, (1 << 32) - 1)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        parse_address("local", local, address)
        _seated(self, "listen")
        ready(self)
        answer = endpoint_listen(self.endpoint, address, number, waiting, now, &row, &out)
        if answer == CALL_BAD_LOCAL:
            raise SegmentError(f"local: nobody can listen at {local!r}")
        return _told(self, "listen", answer, &out).handle

    def open(self, local, lport, remote, rport, now_ns):
        """Active OPEN from (local, lport) to (remote, rport): the SYN waits in the output. Returns the new handle.

        lport 0: an ephemeral port of ip_local_port_range is chosen (RFC 6056); PortsExhausted when all are in use or
        in TIME_WAIT. With a port given, TupleInUse when the 4-tuple is. tcp_tw_reuse decides about TIME_WAIT.
        TableFull when no row is left, SegmentError for an address or port that cannot be.
        """
        cdef Outcome out
        cdef uint8_t here[16]
        cdef uint8_t there[16]
        cdef uint16_t from_port = parse_number("lport", lport, 0, 65535)
        cdef uint16_t to_port = parse_number("rport", rport, 1, 65535)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        if parse_address("local", local, here) != parse_address("remote", remote, there):
            raise SegmentError(f"remote: {remote!r} and local {local!r} are not of one IP version")
        _seated(self, "open")
        ready(self)
        answer = endpoint_open(self.endpoint, here, from_port, there, to_port, now, &row, &out)
        if answer == CALL_NO_PORT:
            raise PortsExhausted(
                f"every port from {self.endpoint.policy.port_first} to {self.endpoint.policy.port_last} of "
                f"{format_address(here)} is in use or in TIME_WAIT towards {_place(there, to_port)}"
            )
        if answer == CALL_BAD_LOCAL:
            raise SegmentError(f"local: {local!r} is no address of a host")
        if answer == CALL_BAD_REMOTE:
            raise SegmentError(f"remote: {remote!r} is no address of a host")
        return _told(self, "open", answer, &out).handle

    def open_listener(self, handle, remote, rport, now_ns):
        """Turn a passive OPEN active (RFC 9293 section 3.10.1): the listener becomes a connection to (remote, rport).

        Returns the connection's handle; the listener's is void, and who waited in its accept queue is reset. Raises
        as `open`, StateError when the handle does not listen.
        """
        cdef Outcome out
        cdef uint8_t there[16]
        cdef uint16_t to_port = parse_number("rport", rport, 1, 65535)
        cdef ns_t now = _time(now_ns)
        cdef row_t listener, row
        cdef int answer
        parse_address("remote", remote, there)
        _seated(self, "open_listener")
        live_row(self, handle, &listener)
        answer = endpoint_open_listener(self.endpoint, listener, there, to_port, now, &row, &out)
        if answer == CALL_BAD_LOCAL:
            raise SegmentError("this listener has no address of its own, or another IP version than the remote end")
        if answer == CALL_BAD_REMOTE:
            raise SegmentError(f"remote: {remote!r} is no address of a host")
        return _told(self, "open_listener", answer, &out).handle

    def accept(self, handle):
        """The oldest established connection that waits at a listener: its handle, or None when nobody waits.

        For tables made with accept_all=False; otherwise a connection is the application's as soon as it is established
        (`OutcomeFlag.ACCEPTED`).
        """
        cdef row_t listener, row
        cdef uint64_t accepted = 0
        _seated(self, "accept")
        live_row(self, handle, &listener)
        if endpoint_accept(self.endpoint, listener, &row) == CALL_NOTHING:
            return None
        accepted = store_handle(&self.engine.table, row)
        return accepted

    def send(self, handle, nbytes, now_ns):
        """SEND nbytes (0 to 2^31 - 1) of data: what the peer's window allows goes out, the rest waits. Returns an
        `Outcome`.

        The table counts bytes and holds none: the segments in the output say by sequence number which bytes they carry.
        Raises ValueError when more than 2^31 - 1 bytes would wait.
        """
        cdef Outcome out
        cdef uint32_t n = whole("nbytes", nbytes, 0, (1 << 31) - 1)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        _seated(self, "send")
        live_row(self, handle, &row)
        answer = endpoint_send(self.endpoint, row, n, now, &out)
        if answer > CALL_NO_MEMORY:
            raise ValueError(f"nbytes is {nbytes}: more than 2^31 - 1 bytes would wait to be sent")
        return _told(self, "send", answer, &out)

    def read(self, handle, nbytes, now_ns):
        """RECEIVE: the application has taken nbytes of what was delivered, so the window may open. Returns an
        `Outcome`.

        For tables made with read_all=False; otherwise everything counts as read when it is delivered. Raises
        ValueError when less is there.
        """
        cdef Outcome out
        cdef uint32_t n = whole("nbytes", nbytes, 0, (1 << 32) - 1)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        _seated(self, "read")
        live_row(self, handle, &row)
        answer = endpoint_read(self.endpoint, row, n, now, &out)
        if answer > CALL_NO_MEMORY:
            raise ValueError(f"nbytes is {nbytes}: more than what waits to be read")
        return _told(self, "read", answer, &out)

    def close(self, handle, now_ns, *, half=False):
        """CLOSE. half: the sending direction only, as shutdown(2) does and RFC 9293 means it; else both, as close(2).

        After a full close the connection is an orphan: what arrives is answered by a RST, and tcp_fin_timeout and
        tcp_orphan_retries bound its life. A full close may follow a half one. Closing with unread data resets.
        Returns an `Outcome`; on a listener and in SYN_SENT the connection ends at once.
        """
        cdef Outcome out
        cdef bint only = bool(half)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        _seated(self, "close")
        live_row(self, handle, &row)
        answer = endpoint_close(self.endpoint, row, only, now, &out)
        return _told(self, "close", answer, &out)

    def abort(self, handle, now_ns):
        """ABORT: a RST, where a peer is left to be told, and the connection is over. Returns an `Outcome`."""
        cdef Outcome out
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        cdef int answer
        _seated(self, "abort")
        live_row(self, handle, &row)
        answer = endpoint_abort(self.endpoint, row, now, &out)
        return _told(self, "abort", answer, &out)

    def keepalive(self, handle, on, now_ns):
        """Keepalive of one connection on or off (SO_KEEPALIVE); new ones have the profile's so_keepalive."""
        cdef bint wanted = bool(on)
        cdef ns_t now = _time(now_ns)
        cdef row_t row
        _seated(self, "keepalive")
        live_row(self, handle, &row)
        endpoint_keepalive(self.endpoint, row, wanted, now)

    @property
    def next_timer_ns(self):
        """A time, ns, before which `advance` has nothing to fire; None when no timer runs. It may come early (a timer
        that was set anew is looked at when it was due before), never late: what a driver sleeps on. Cost: some
        microseconds at most.
        """
        cdef ns_t when
        ready(self)
        return when if next_timer(&self.engine.table, &when) else None

    # -- what is to be sent --------------------------------------------------------------------------------------------

    @property
    def output_count(self):
        """Segments that wait to be sent."""
        _seated(self, "output_count")
        ready(self)
        return self.endpoint.output.count

    def take_output(self, most=None):
        """The oldest segments that wait to be sent, all or `most` of them, as a `SegmentBatch`; they are the caller's
        now.

        Complete but for the payload: addresses, ports, sequence numbers, flags, window, options, ip_bytes, and in
        time_ns when they were made. A queue that is full (output_limit) drops what comes, as a device does; tallies()
        counts it. Cost: 80 bytes copied for each.
        """
        cdef SegmentBatch batch
        cdef size_t n
        wanted = -1 if most is None else whole("most", most, 0, 1 << 62)
        _seated(self, "take_output")
        ready(self)
        n = self.endpoint.output.count
        if wanted >= 0:
            n = min(n, <size_t>wanted)
        batch = SegmentBatch(max(n, 1))
        # Making the batch may have run other code, so what is taken is counted again.
        ready(self)
        n = min(n, <size_t>batch.capacity)
        batch.count = <Py_ssize_t>output_take(&self.endpoint.output, <Segment *>batch.records, n)
        return batch
