"""Captures into connections: the loop reader, observer, journal, and what Python gets out of it.

What must not stand here: a rule of TCP or of Zeek, a format. Memory: the table and its journal, that is, live
connections; entries wait only until the next `take` or `write`.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from fasttcp.core.address cimport format_address
from fasttcp.core.hash cimport Key
from fasttcp.core.layout cimport Segment
from fasttcp.core.observer cimport observer_advance
from fasttcp.core.pipeline cimport observe_batch, observe_keyed
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.core.summary cimport SUMMARY_PARTIAL
from fasttcp.core.tap cimport Observer, Verdict
from fasttcp.observe.interim cimport interim_apply
from fasttcp.observe.journal cimport entry_free, journal_close, journal_flush, journal_open
from fasttcp.observe.keyed cimport KeyedBatch
from fasttcp.observe.logs cimport F_COMMUNITY, F_UID, Layout, layout_open, put_entry, write_field
from fasttcp.observe.page cimport Entry, Journal
from fasttcp.observe.sieve cimport Op, sift
from fasttcp.observe.text cimport WIDEST, Text, text_free
from fasttcp.packets.reader cimport CaptureReader, read_segments, reader_look

from fasttcp.core.table import ConnectionTable as Table
from fasttcp.errors import WrongThread
from fasttcp.observe.journal import CONN_STATES, ENDS
from fasttcp.spec import State

__all__ = ["Connection", "Sheaf", "Tracker"]

cdef tuple _ENDS = tuple(ENDS)
cdef tuple _STATES = tuple(State)


cdef class Connection:
    """What was seen of one connection; made by `track`. Times in nanoseconds of the capture, sizes in bytes.

    `orig_` is the originator, `resp_` the responder. Values cannot be changed.
    """

    def __cinit__(self):
        self.entry.long_history = NULL

    def __dealloc__(self):
        entry_free(&self.entry)

    @property
    def uid(self):
        """The name that this connection has in the log."""
        return _field_text(&self.entry, F_UID)

    @property
    def community_id(self):
        """Community ID version 1."""
        return _field_text(&self.entry, F_COMMUNITY)

    @property
    def orig_addr(self):
        """Address of the originator, text."""
        return format_address(self.entry.summary.addr[0])

    @property
    def resp_addr(self):
        """Address of the responder, text."""
        return format_address(self.entry.summary.addr[1])

    @property
    def orig_port(self):
        return self.entry.summary.port[0]

    @property
    def resp_port(self):
        return self.entry.summary.port[1]

    @property
    def orig_state(self):
        """The originator's state (`State`) when the connection ended, or at the end of the capture."""
        return _STATES[self.entry.summary.state[0]]

    @property
    def resp_state(self):
        """The responder's state (`State`)."""
        return _STATES[self.entry.summary.state[1]]

    @property
    def first_ns(self):
        """Time of the first packet."""
        return self.entry.summary.first_ns

    @property
    def last_ns(self):
        """Time of the last packet before both sides had closed."""
        return self.entry.last_ns

    @property
    def duration_ns(self):
        """last_ns - first_ns, never negative."""
        return max(0, self.entry.last_ns - self.entry.summary.first_ns)

    @property
    def ended_ns(self):
        """When the connection was let go, None if the capture ended before, or if this is an interim row."""
        if self.end == "interim" or self.end == "open" and self.entry.summary.ended_ns == 0:
            return None
        return self.entry.summary.ended_ns

    @property
    def end(self):
        """How it ended: closed, reset, refused, idle, replaced, evicted; or open, when the capture ended before it did.

        interim: it goes on, and there will be another Connection of it.
        """
        return _ENDS[self.entry.end]

    @property
    def conn_state(self):
        """Zeek's word for how it went: "SF", "S0", "REJ", ..."""
        return CONN_STATES[self.entry.conn_state]

    @property
    def history(self):
        """Zeek's letters, in the order in which things were first seen; upper case: from the originator."""
        if self.entry.long_history != NULL:
            return self.entry.long_history[:self.entry.letters].decode("ascii")
        return self.entry.history[:self.entry.letters].decode("ascii")

    @property
    def orig_packets(self):
        return self.entry.summary.packets[0]

    @property
    def resp_packets(self):
        return self.entry.summary.packets[1]

    @property
    def orig_bytes(self):
        """Bytes that the originator sent, by sequence numbers: lost ones count, repeated ones count once."""
        return self.entry.size[0]

    @property
    def resp_bytes(self):
        """Bytes that the responder sent, by sequence numbers."""
        return self.entry.size[1]

    @property
    def orig_payload(self):
        """Bytes of payload in the originator's packets, repeated ones too."""
        return self.entry.summary.bytes[0]

    @property
    def resp_payload(self):
        """Bytes of payload in the responder's packets, repeated ones too."""
        return self.entry.summary.bytes[1]

    @property
    def orig_ip_bytes(self):
        """Bytes of the originator's IP datagrams, headers and all."""
        return self.entry.ip_bytes[0]

    @property
    def resp_ip_bytes(self):
        """Bytes of the responder's IP datagrams, headers and all."""
        return self.entry.ip_bytes[1]

    @property
    def orig_retransmitted(self):
        """Segments of the originator that brought nothing new."""
        return self.entry.summary.retransmitted[0]

    @property
    def resp_retransmitted(self):
        """Segments of the responder that brought nothing new."""
        return self.entry.summary.retransmitted[1]

    @property
    def missed_bytes(self):
        """Bytes that were acknowledged and never captured."""
        return self.entry.missed

    @property
    def rtt_ns(self):
        """Round trip of the handshake, from SYN to ACK; None if it was not seen whole, or parts of it twice."""
        return self.entry.rtt_ns or None

    @property
    def partial(self):
        """The capture began in the middle of it."""
        return self.entry.summary.flags & SUMMARY_PARTIAL != 0

    def __repr__(self):
        orig = f"[{self.orig_addr}]" if ":" in self.orig_addr else self.orig_addr
        resp = f"[{self.resp_addr}]" if ":" in self.resp_addr else self.resp_addr
        return (
            f"<Connection {orig}:{self.orig_port} > {resp}:{self.resp_port} {self.orig_state.name} "
            f"{self.resp_state.name} {self.conn_state} {self.history or '-'} {self.end}>"
        )


cdef str _field_text(const Entry *entry, int field):
    cdef char text[WIDEST]
    cdef char *end = write_field(text, field, entry)
    return text[:end - text].decode("ascii")


cdef class Tracker:
    """An observer with a journal, and the loop that feeds it. `track` is the front door; this is its engine.

    profile: a Profile. max_connections: rows; when all are in use, the oldest closing ones make room.
    """

    def __cinit__(self):
        self.segments = <Segment *>PyMem_Calloc(SEGMENTS, sizeof(Segment))
        self.verdicts = <Verdict *>PyMem_Calloc(SEGMENTS, sizeof(Verdict))
        if self.segments == NULL or self.verdicts == NULL:
            raise MemoryError("no memory for a batch of segments")

    def __init__(self, profile, *, max_connections, seed=None, trace=0):
        if self.table is not None:
            raise TypeError("a Tracker is made once")
        self.table = Table(
            min(16384, max_connections), max_capacity=max_connections, profile=profile, seat="observer", seed=seed,
            on_full="evict", trace=trace,
        )
        journal_open(&self.journal, self.table.observer, profile)

    def __dealloc__(self):
        journal_close(&self.journal)
        PyMem_Free(self.segments)
        PyMem_Free(self.verdicts)

    def feed(self, CaptureReader reader not None, Py_ssize_t segments, Py_ssize_t entries):
        """Read on until about so many segments were applied, or so many entries wait. False: the capture has no more.

        The GIL is released. A stream that has to be waited for gives its turn back after each piece.
        """
        cdef Py_ssize_t n, done = 0
        cdef Observer *o = self.table.observer
        cdef bint more = True
        _enter(self)
        try:
            reader_look(reader)
            with nogil:
                while done < segments and self.journal.n_entries < <size_t>entries and not self.journal.failed:
                    n = read_segments(reader, self.segments, NULL, SEGMENTS)
                    if n == 0:
                        more = False
                        break
                    observe_batch(o, self.segments, n, self.verdicts)
                    done += n
                    if n < SEGMENTS:
                        break
        finally:
            self.busy = False
        _check(self)
        return more

    def feed_interim(
        self, CaptureReader reader not None, Py_ssize_t segments, Py_ssize_t entries, int64_t every_ns
    ):
        """The same, with an entry of each long connection at every mark, `every_ns` of the capture's time apart."""
        cdef Py_ssize_t n, done = 0
        cdef Observer *o = self.table.observer
        cdef bint more = True
        if every_ns < 1:
            raise ValueError(f"every_ns is {every_ns}: it must be at least 1")
        _enter(self)
        try:
            reader_look(reader)
            self.interim.every_ns = every_ns
            with nogil:
                while done < segments and self.journal.n_entries < <size_t>entries and not self.journal.failed:
                    if self.held == 0:
                        n = read_segments(reader, self.segments, NULL, SEGMENTS)
                        if n == 0:
                            more = False
                            break
                        self.held, self.held_at = n, 0
                    n = interim_apply(
                        &self.interim, &self.journal, o, self.segments + self.held_at, self.held, self.verdicts, entries
                    )
                    done += n
                    self.held -= n
                    self.held_at += n
                    if self.held == 0 and self.held_at < SEGMENTS:
                        break
        finally:
            self.busy = False
        _check(self)
        return more

    def keep(self, str where):
        """Let only entries through that this filter (`where.compile_filter`) lets pass; "" lets all pass."""
        program = b""
        if where:
            from fasttcp.observe.where import compile_filter    # not at the top: 5 ms that few need

            program = compile_filter(where)
        _enter(self)
        self.program = program
        self.ops = <const Op *><const char *>self.program
        self.n_ops = <size_t>len(program) // sizeof(Op)
        self.busy = False

    def apply(self, SegmentBatch batch not None):
        """Apply the segments of a batch, as they might come from elsewhere than a capture."""
        _apply(self, batch, NULL)

    def apply_keyed(self, KeyedBatch batch not None):
        """The same for a batch that was made for this tracker's table."""
        if batch.table is not self.table:
            raise ValueError("the batch has keys of another table")
        _apply(self, batch.segments, batch.keys)

    def finish(self):
        """Make an entry of every connection that still lives. They stay in the table as they are."""
        cdef Observer *o = self.table.observer
        _enter(self)
        try:
            with nogil:
                if o.engine.table.started:          # what is due by now has ended, however far behind the timers are
                    observer_advance(o, o.engine.table.now_ns, <size_t>-1)
                journal_flush(&self.journal, self.table.observer)
        finally:
            self.busy = False
        _check(self)

    @property
    def waiting(self):
        """Entries that nobody has taken yet, of those that pass the filter."""
        _enter(self)
        _sift(self)
        self.busy = False
        return self.journal.n_entries - self.taken

    def take(self):
        """The entries that wait, as a list of `Connection`."""
        cdef list taken = []
        cdef Connection connection
        cdef size_t i
        _enter(self)
        _sift(self)
        for i in range(self.taken, self.journal.n_entries):
            connection = Connection.__new__(Connection)
            memcpy(&connection.entry, &self.journal.entries[i], sizeof(Entry))
            self.journal.entries[i].long_history = NULL     # it belongs to the Connection now
            taken.append(connection)
        _empty(self)
        self.busy = False
        return taken

    def discard(self):
        """Let go of the entries that wait; they stay in the counts."""
        _enter(self)
        _empty(self)
        self.busy = False

    def write(self, str form, fields=None):
        """The entries that wait as lines of a log (`logs.FORMATS`), bytes."""
        cdef Layout layout
        layout_open(&layout, form, fields)
        _enter(self)
        try:
            _sift(self)
            return lines_of(self.journal.entries + self.taken, self.journal.n_entries - self.taken, &layout)
        finally:
            _empty(self)
            self.busy = False

    def detach(self):
        """The entries that wait, as a `Sheaf` that may be written elsewhere while this tracker goes on."""
        cdef Sheaf sheaf = Sheaf.__new__(Sheaf)
        cdef Entry *fresh
        _enter(self)
        try:
            _sift(self)
            if self.journal.n_entries == 0:
                return sheaf
            fresh = <Entry *>malloc(self.journal.entries_room * sizeof(Entry))
            if fresh == NULL:
                raise MemoryError(f"no memory for {self.journal.entries_room} entries")
            sheaf.entries = self.journal.entries
            sheaf.first = self.taken
            sheaf.count = self.journal.n_entries
            self.journal.entries = fresh
            self.journal.n_entries = self.taken = self.sifted = 0
        finally:
            self.busy = False
        return sheaf

    def tallies(self):
        """What was counted so far: the table's tallies, and of the entries made "gap_bytes", missed in them."""
        counted = self.table.tallies()
        counted["gap_bytes"] = self.journal.missed
        return counted

    def states(self):
        """How many halves of the connections that became entries had come to each state: {State: int}."""
        return {state: self.journal.halves[state] for state in State}

    def ends(self):
        """How many connections ended in each way: {word: int}."""
        return {word: self.journal.ends[i] for i, word in enumerate(_ENDS)}

    def wrong_checksums(self):
        """Hosts that sent wrong TCP checksums: [(address, wrong, right)], at most 16, counted at their ends."""
        return [
            (format_address(self.journal.hosts[i].addr), self.journal.hosts[i].wrong, self.journal.hosts[i].right)
            for i in range(self.journal.n_hosts)
        ]


cdef class Sheaf:
    """Entries that have left their tracker, made by `Tracker.detach`; they go when it goes."""

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.first, self.count):
            entry_free(&self.entries[i])
        free(self.entries)

    def __len__(self):
        return self.count - self.first

    def write(self, str form, fields=None):
        """They as lines of a log (`logs.FORMATS`), bytes. The GIL is released."""
        cdef Layout layout
        layout_open(&layout, form, fields)
        return lines_of(self.entries + self.first, self.count - self.first, &layout)


cdef bytes lines_of(const Entry *entries, size_t n, const Layout *layout):
    cdef Text text
    cdef size_t i
    text.data = NULL
    text.size = text.room = 0
    text.failed = False
    with nogil:
        for i in range(n):
            put_entry(&text, layout, &entries[i])
    try:
        if text.failed:
            raise MemoryError(f"no memory for a log of {text.room} bytes")
        return text.data[:text.size] if text.size else b""
    finally:
        text_free(&text)


cdef int _enter(Tracker self) except -1:
    if self.table is None:
        raise TypeError("this Tracker was not made by its constructor")
    if self.busy:
        raise WrongThread("another thread is inside this Tracker")
    self.busy = True
    return 0


cdef int _apply(Tracker self, SegmentBatch batch, Key *keys) except -1:
    cdef Py_ssize_t at = 0, n
    _enter(self)
    try:
        with nogil:
            while at < batch.count:
                n = min(<Py_ssize_t>SEGMENTS, batch.count - at)
                if keys == NULL:
                    observe_batch(self.table.observer, batch.records + at, n, self.verdicts)
                else:
                    observe_keyed(self.table.observer, batch.records + at, keys + at, n, self.verdicts)
                at += n
    finally:
        self.busy = False
    _check(self)
    return 0


cdef int _check(Tracker self) except -1:
    if self.journal.failed:
        raise MemoryError(f"no memory for the journal of {len(self.table)} connections")
    return 0


# ---- entries that wait -----------------------------------------------------------------------------------------------

cdef void _sift(Tracker self) noexcept nogil:
    """Let go of the new entries that the filter does not let pass."""
    cdef Journal *j = &self.journal
    if self.n_ops:
        j.n_entries = self.sifted + sift(self.ops, self.n_ops, j.entries + self.sifted, j.n_entries - self.sifted)
    self.passed += j.n_entries - self.sifted
    self.sifted = j.n_entries


cdef void _empty(Tracker self) noexcept nogil:
    cdef size_t i
    for i in range(self.taken, self.journal.n_entries):
        entry_free(&self.journal.entries[i])
    self.journal.n_entries = self.taken = self.sifted = 0


cdef const Entry *tracker_entries(Tracker self, size_t *n) except? NULL:
    _enter(self)
    _sift(self)
    self.busy = False
    n[0] = self.journal.n_entries - self.taken
    return self.journal.entries + self.taken if self.journal.entries != NULL else NULL


cdef int tracker_drop(Tracker self, size_t n) except -1:
    cdef size_t i
    _enter(self)
    for i in range(self.taken, self.taken + n):
        entry_free(&self.journal.entries[i])
    self.taken += n
    if self.taken == self.journal.n_entries:
        _empty(self)
    self.busy = False
    return 0
