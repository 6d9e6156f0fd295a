"""The connection log: Zeek's conn.log, JSON lines, CSV, or a table to read; one line an entry, without Python objects.

The fields stand in one list, FIELDS: Zeek's conn.log in Zeek's order (9.1, scripts/base/protocols/conn/main.zeek), then ours.
What Zeek would need its parsers or a site's configuration for (service, local_orig, local_resp, tunnel_parents) is unset.

What must not stand here: how a value came about. Cost: about 0.5 us a line.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from fasttcp.observe.community cimport put_community_id
from fasttcp.observe.page cimport Entry
from fasttcp.observe.text cimport (
    Text, put_address, put_base62, put_bytes, put_char, put_number, put_seconds, reserve,
)

from difflib import get_close_matches

from fasttcp.observe.journal import CONN_STATES, ENDS
from fasttcp.spec import State

__all__ = ["DEFAULT_FIELDS", "FIELDS", "FORMATS", "head"]

FORMATS = ("table", "zeek", "json", "csv")

#: name: (type as in Zeek's #types line, meaning)
FIELDS = {
    "ts": ("time", "time of the first packet"),
    "uid": ("string", "a name of this connection, the same in every run over the same packets"),
    "id.orig_h": ("addr", "the originator's address"),
    "id.orig_p": ("port", "the originator's port"),
    "id.resp_h": ("addr", "the responder's address"),
    "id.resp_p": ("port", "the responder's port"),
    "proto": ("enum", "tcp"),
    "service": ("string", "always unset: no application is parsed"),
    "duration": ("interval", "from the first packet to the last one before both sides had closed; unset if 0"),
    "orig_bytes": ("count", "bytes that the originator sent, by sequence numbers; unset without a duration"),
    "resp_bytes": ("count", "bytes that the responder sent, by sequence numbers; unset without a duration"),
    "conn_state": ("string", "Zeek's word for how it went"),
    "local_orig": ("bool", "always unset: no local networks are configured"),
    "local_resp": ("bool", "always unset: no local networks are configured"),
    "missed_bytes": ("count", "bytes that were acknowledged and never captured"),
    "history": ("string", "what was seen, in its order; upper case: from the originator"),
    "orig_pkts": ("count", "packets of the originator"),
    "orig_ip_bytes": ("count", "bytes of its IP datagrams, headers and all"),
    "resp_pkts": ("count", "packets of the responder"),
    "resp_ip_bytes": ("count", "bytes of its IP datagrams, headers and all"),
    "tunnel_parents": ("set[string]", "always unset: tunnels are looked into, not logged"),
    "ip_proto": ("count", "6"),
    "community_id": ("string", "Community ID version 1"),
    "orig_state": ("string", "the originator's state (RFC 9293)"),
    "resp_state": ("string", "the responder's state"),
    "rtt": ("interval", "round trip of the handshake, if it was seen whole and nothing of it twice"),
    "orig_rexmit": ("count", "segments of the originator that brought nothing new"),
    "resp_rexmit": ("count", "segments of the responder that brought nothing new"),
    "end": ("string", "how it ended: " + ", ".join(ENDS)),
    "originator": ("string", "address and port of the originator"),
    "responder": ("string", "address and port of the responder"),
}

_ZEEK = list(FIELDS)[:22]
_OURS = ["orig_state", "resp_state", "rtt", "orig_rexmit", "resp_rexmit", "end"]
_UNSET = ["service", "local_orig", "local_resp", "tunnel_parents"]

#: format: the fields that it has when none are chosen
DEFAULT_FIELDS = {
    "table": [
        "originator", "responder", "orig_state", "resp_state", "orig_pkts", "resp_pkts", "orig_bytes", "resp_bytes",
        "duration", "conn_state", "history", "end",
    ],
    "zeek": _ZEEK + _OURS,
    "json": [name for name in _ZEEK + ["community_id"] + _OURS if name not in _UNSET],
    "csv": [name for name in _ZEEK + ["community_id"] + _OURS if name not in _UNSET],
}

# Columns of the table; what is longer pushes the rest of its line to the right. Numbers stand at the right.
_WIDTHS = {
    "ts": 17, "uid": 18, "id.orig_h": 15, "id.resp_h": 15, "originator": 21, "responder": 21, "orig_state": 11,
    "resp_state": 11, "duration": 12, "history": 12, "end": 8, "conn_state": 6, "community_id": 30, "rtt": 9, "proto": 5,
}

cdef enum:                      # in the order of FIELDS
    F_TS
    F_UID
    F_ORIG_H
    F_ORIG_P
    F_RESP_H
    F_RESP_P
    F_PROTO
    F_SERVICE
    F_DURATION
    F_ORIG_BYTES
    F_RESP_BYTES
    F_CONN_STATE
    F_LOCAL_ORIG
    F_LOCAL_RESP
    F_MISSED
    F_HISTORY
    F_ORIG_PKTS
    F_ORIG_IP_BYTES
    F_RESP_PKTS
    F_RESP_IP_BYTES
    F_TUNNEL
    F_IP_PROTO
    F_COMMUNITY
    F_ORIG_STATE
    F_RESP_STATE
    F_RTT
    F_ORIG_REXMIT
    F_RESP_REXMIT
    F_END
    F_ORIGINATOR
    F_RESPONDER
    N_FIELDS

cdef struct Word:
    char     text[24]
    size_t   size

cdef Word[16] STATE_WORDS
cdef Word[16] CONN_STATE_WORDS
cdef Word[8] END_WORDS
cdef Word[32] KEYS              # names as JSON keys, with quotes and colon, for N_FIELDS of them
cdef uint8_t[32] QUOTED         # whether JSON puts the value in quotes
cdef int[32] WIDTHS             # columns of the table; below 0: text stands at the right


cdef int _keep(Word *word, str text) except -1:
    cdef bytes encoded = text.encode()
    assert len(encoded) <= sizeof(word.text), text
    memcpy(word.text, <const char *>encoded, len(encoded))
    word.size = len(encoded)
    return 0


def _compile():
    """The names above as C arrays."""
    for i, state in enumerate(State):
        _keep(&STATE_WORDS[i], state.name)
    for i, word in enumerate(CONN_STATES):
        _keep(&CONN_STATE_WORDS[i], word)
    for i, word in enumerate(ENDS):
        _keep(&END_WORDS[i], word)
    assert len(FIELDS) == N_FIELDS
    for i, (name, (kind, _)) in enumerate(FIELDS.items()):
        _keep(&KEYS[i], f'"{name}":')
        QUOTED[i] = kind in ("string", "addr", "enum")
        numeric = kind in ("count", "port", "interval", "time")
        WIDTHS[i] = max(_WIDTHS.get(name, 10), len(name)) * (-1 if numeric else 1)


_compile()


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """A bijection of 64 bits in which every bit counts (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> 33)) * <uint64_t>0xFF51AFD7ED558CCD
    x = (x ^ (x >> 33)) * <uint64_t>0xC4CEB9FE1A85EC53
    return x ^ (x >> 33)


cdef void put_uid(Text *t, const Entry *e) noexcept nogil:
    """Like Zeek's: C and 17 digits of base 62, here from what the connection is instead of from chance."""
    cdef uint64_t words[4]
    cdef uint64_t a, b
    cdef int i
    memcpy(words, e.summary.addr, 32)
    a = mixed(<uint64_t>e.summary.first_ns ^ 0x636F6E6E) ^ e.number
    b = mixed((<uint64_t>e.summary.port[0] << 32 | e.summary.port[1]) + <uint64_t>0x9E3779B97F4A7C15)
    for i in range(4):
        a = mixed(a ^ words[i])
        b = mixed(b + a)
    put_char(t, c"C")
    put_base62(t, a, 9)
    put_base62(t, b, 8)


cdef void put_end(Text *t, const Entry *e, int i) noexcept nogil:
    cdef bint wide = e.summary.addr[i][10] != 0xFF or e.summary.addr[i][0] != 0
    if wide:
        put_char(t, c"[")
    put_address(t, e.summary.addr[i])
    if wide:
        put_char(t, c"]")
    put_char(t, c":")
    put_number(t, e.summary.port[i])


cdef inline bint put_word(Text *t, const Word *word) noexcept nogil:
    put_bytes(t, word.text, word.size)
    return True


cdef bint put_value(Text *t, int field, const Entry *e) noexcept nogil:
    """The value of a field; False, and nothing, if it is unset."""
    cdef int64_t duration = e.last_ns - e.summary.first_ns
    if field == F_TS:
        put_seconds(t, e.summary.first_ns)
    elif field == F_UID:
        put_uid(t, e)
    elif field == F_ORIG_H:
        put_address(t, e.summary.addr[0])
    elif field == F_ORIG_P:
        put_number(t, e.summary.port[0])
    elif field == F_RESP_H:
        put_address(t, e.summary.addr[1])
    elif field == F_RESP_P:
        put_number(t, e.summary.port[1])
    elif field == F_PROTO:
        put_bytes(t, b"tcp", 3)
    elif field == F_DURATION:
        if duration <= 0:
            return False
        put_seconds(t, duration)
    elif field == F_ORIG_BYTES or field == F_RESP_BYTES:
        if duration <= 0:
            return False
        put_number(t, e.size[field - F_ORIG_BYTES])
    elif field == F_CONN_STATE:
        return put_word(t, &CONN_STATE_WORDS[e.conn_state])
    elif field == F_MISSED:
        put_number(t, e.missed)
    elif field == F_HISTORY:
        if e.letters == 0:
            return False
        if e.long_history != NULL:
            put_bytes(t, e.long_history, e.letters)
        else:
            put_bytes(t, e.history, e.letters)
    elif field == F_ORIG_PKTS:
        put_number(t, e.summary.packets[0])
    elif field == F_RESP_PKTS:
        put_number(t, e.summary.packets[1])
    elif field == F_ORIG_IP_BYTES:
        put_number(t, e.ip_bytes[0])
    elif field == F_RESP_IP_BYTES:
        put_number(t, e.ip_bytes[1])
    elif field == F_IP_PROTO:
        put_char(t, c"6")
    elif field == F_COMMUNITY:
        put_community_id(t, e.summary.addr[0], e.summary.port[0], e.summary.addr[1], e.summary.port[1], 0)
    elif field == F_ORIG_STATE:
        return put_word(t, &STATE_WORDS[e.summary.state[0]])
    elif field == F_RESP_STATE:
        return put_word(t, &STATE_WORDS[e.summary.state[1]])
    elif field == F_RTT:
        if e.rtt_ns <= 0:
            return False
        put_seconds(t, e.rtt_ns)
    elif field == F_ORIG_REXMIT:
        put_number(t, e.summary.retransmitted[0])
    elif field == F_RESP_REXMIT:
        put_number(t, e.summary.retransmitted[1])
    elif field == F_END:
        return put_word(t, &END_WORDS[e.end])
    elif field == F_ORIGINATOR:
        put_end(t, e, 0)
    elif field == F_RESPONDER:
        put_end(t, e, 1)
    else:
        return False
    return True


cdef void pad(Text *t, size_t begun, int width, bint last) noexcept nogil:
    """Fill up the column that began at `begun`; text with a width below 0 moves to its right edge."""
    cdef size_t have = t.size - begun
    cdef size_t want = <size_t>(-width if width < 0 else width)
    if have >= want or (last and width > 0) or not reserve(t, want):
        return
    if width < 0:
        memmove(t.data + begun + want - have, t.data + begun, have)
        memset(t.data + begun, c" ", want - have)
    else:
        memset(t.data + t.size, c" ", want - have)
    t.size = begun + want


cdef void put_entry(Text *t, const Layout *layout, const Entry *e) noexcept nogil:
    """One line, with its end."""
    cdef size_t begun
    cdef int i, field
    cdef bint first = True
    if layout.format == FORMAT_JSON:
        put_char(t, c"{")
    for i in range(layout.n):
        field = layout.field[i]
        begun = t.size
        if layout.format == FORMAT_JSON:
            if not first:
                put_char(t, c",")
            put_word(t, &KEYS[field])
            if QUOTED[field]:
                put_char(t, c'"')
            if not put_value(t, field, e):
                t.size = begun
                continue
            if QUOTED[field]:
                put_char(t, c'"')
            first = False
            continue
        if i:
            put_char(t, c"\t" if layout.format == FORMAT_ZEEK else c"," if layout.format == FORMAT_CSV else c" ")
        begun = t.size
        if not put_value(t, field, e) and layout.format != FORMAT_CSV:
            put_char(t, c"-")
        if layout.format == FORMAT_TABLE:
            pad(t, begun, WIDTHS[field], i == layout.n - 1)
    if layout.format == FORMAT_JSON:
        put_char(t, c"}")
    put_char(t, c"\n")


cdef int layout_open(Layout *layout, str form, fields) except -1:
    """Raises ValueError for a format or a field that there is not; None stands for the format's own fields."""
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}; there are {', '.join(FORMATS)}")
    names = DEFAULT_FIELDS[form] if fields is None else list(fields)
    known = list(FIELDS)
    if not names:
        raise ValueError("no field is chosen")
    if len(names) > MAX_FIELDS:
        raise ValueError(f"{len(names)} fields are chosen; at most {MAX_FIELDS} can be")
    layout.format = FORMATS.index(form)
    layout.n = len(names)
    for i, name in enumerate(names):
        if name not in FIELDS:
            near = get_close_matches(str(name), known, n=3)
            raise ValueError(f"there is no field {name!r}; " + (f"nearest: {', '.join(near)}" if near else f"there are {', '.join(known)}"))
        layout.field[i] = known.index(name)
    return 0


def head(form, fields=None):
    """The lines that stand before the first connection, as text; Zeek's header for "zeek"."""
    names = DEFAULT_FIELDS[form] if fields is None else list(fields)
    if form == "zeek":
        lines = [
            "#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-", "#path\tconn",
            "\t".join(["#fields", *names]), "\t".join(["#types", *(FIELDS[name][0] for name in names)]),
        ]
        return "\n".join(lines) + "\n"
    if form == "csv":
        return ",".join(names) + "\n"
    if form == "table":
        known = list(FIELDS)
        cells = []
        for name in names:
            width = WIDTHS[known.index(name)]
            cells.append(name.rjust(-width) if width < 0 else name.ljust(width))
        return " ".join(cells).rstrip() + "\n"
    return ""
