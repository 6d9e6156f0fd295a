"""The connection log: Zeek's conn.log, JSON lines, CSV, or a table to read; one line an entry, without Python objects.

The fields stand in one list, FIELDS: Zeek's conn.log in Zeek's order (9.1, scripts/base/protocols/conn/main.zeek), then
ours. What Zeek would need its parsers or a site's configuration for (service, local_orig, local_resp, tunnel_parents)
is unset.

What must not stand here: how a value came about. Cost: 0.1 us a line of Zeek's log, 0.3 us of the others.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from fasttcp.core.prefetch cimport load64, net64
from fasttcp.core.summary cimport SUMMARY_IPV6, Summary
from fasttcp.observe.community cimport write_community_id
from fasttcp.observe.page cimport Entry
from fasttcp.observe.text cimport (
    WIDEST, Text, text_room, write_address, write_base62, write_bytes, write_char, write_number, write_seconds,
)

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
    "resp_state": 11, "duration": 12, "history": 12, "end": 8, "conn_state": 6, "community_id": 30, "rtt": 9,
    "proto": 5,
}

cdef struct Word:
    char     text[24]
    size_t   size

cdef Word[16] STATE_WORDS
cdef Word[16] CONN_STATE_WORDS
cdef Word[8] END_WORDS
cdef Word[32] KEYS              # names as JSON keys, with quotes and colon, for N_FIELDS of them
cdef uint8_t[32] KINDS
cdef size_t[32] PLACES          # offsets in the entry
cdef Word *WORDS[32]
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


cdef int _place(int field, int kind, size_t offset, Word *words) except -1:
    KINDS[field] = kind
    PLACES[field] = offset
    WORDS[field] = words
    return 0


def _find():
    """Where in an entry the values stand."""
    cdef const Entry *e = NULL
    cdef int field
    for field in range(N_FIELDS):
        _place(field, K_OTHER, 0, NULL)
    for field in (F_SERVICE, F_LOCAL_ORIG, F_LOCAL_RESP, F_TUNNEL):
        _place(field, K_UNSET, 0, NULL)
    _place(F_TS, K_TIME, <size_t>&e.summary.first_ns, NULL)
    _place(F_ORIG_H, K_ADDRESS, <size_t>&e.summary.addr[0], NULL)
    _place(F_RESP_H, K_ADDRESS, <size_t>&e.summary.addr[1], NULL)
    _place(F_ORIG_P, K_PORT, <size_t>&e.summary.port[0], NULL)
    _place(F_RESP_P, K_PORT, <size_t>&e.summary.port[1], NULL)
    _place(F_ORIG_BYTES, K_SIZE, <size_t>&e.size[0], NULL)
    _place(F_RESP_BYTES, K_SIZE, <size_t>&e.size[1], NULL)
    _place(F_CONN_STATE, K_WORD, <size_t>&e.conn_state, CONN_STATE_WORDS)
    _place(F_MISSED, K_COUNT, <size_t>&e.missed, NULL)
    _place(F_ORIG_PKTS, K_COUNT, <size_t>&e.summary.packets[0], NULL)
    _place(F_RESP_PKTS, K_COUNT, <size_t>&e.summary.packets[1], NULL)
    _place(F_ORIG_IP_BYTES, K_COUNT, <size_t>&e.ip_bytes[0], NULL)
    _place(F_RESP_IP_BYTES, K_COUNT, <size_t>&e.ip_bytes[1], NULL)
    _place(F_ORIG_STATE, K_WORD, <size_t>&e.summary.state[0], STATE_WORDS)
    _place(F_RESP_STATE, K_WORD, <size_t>&e.summary.state[1], STATE_WORDS)
    _place(F_ORIG_REXMIT, K_COUNT_32, <size_t>&e.summary.retransmitted[0], NULL)
    _place(F_RESP_REXMIT, K_COUNT_32, <size_t>&e.summary.retransmitted[1], NULL)
    _place(F_END, K_WORD, <size_t>&e.end, END_WORDS)


_compile()
_find()


cdef inline uint64_t mixed(uint64_t x) noexcept nogil:
    """A bijection of 64 bits in which every bit counts (the finalizer of MurmurHash3)."""
    x = (x ^ (x >> 33)) * <uint64_t>0xFF51AFD7ED558CCD
    x = (x ^ (x >> 33)) * <uint64_t>0xC4CEB9FE1A85EC53
    return x ^ (x >> 33)


cdef char *write_uid(char *p, const Entry *e) noexcept nogil:
    """Like Zeek's: C and 17 digits of base 62, here from the 4-tuple and the first packet's time instead of from chance.

    It names a connection before and after it was turned round, in an interim row and in its last one. Two connections on
    one 4-tuple that begin in the same nanosecond share it.
    """
    cdef uint64_t words[4]
    cdef uint64_t a, b
    cdef int i, first
    a = net64(load64(e.summary.addr[0]))
    b = net64(load64(e.summary.addr[1]))
    if a == b:
        a = net64(load64(e.summary.addr[0] + 8))
        b = net64(load64(e.summary.addr[1] + 8))
        if a == b:
            a = e.summary.port[0]
            b = e.summary.port[1]
    first = a > b
    memcpy(words, e.summary.addr[first], 16)
    memcpy(words + 2, e.summary.addr[1 - first], 16)
    a = mixed(<uint64_t>e.summary.first_ns ^ 0x636F6E6E)
    b = mixed((<uint64_t>e.summary.port[first] << 32 | e.summary.port[1 - first]) + <uint64_t>0x9E3779B97F4A7C15)
    for i in range(4):
        a = mixed(a ^ words[i])
        b = mixed(b + a)
    p[0] = c"C"
    return write_base62(write_base62(p + 1, a, 9), b, 8)


cdef char *write_end(char *p, const Entry *e, int i) noexcept nogil:
    cdef bint wide = e.summary.flags & SUMMARY_IPV6 != 0
    if wide:
        p = write_char(p, c"[")
    p = write_address(p, e.summary.addr[i])
    if wide:
        p = write_char(p, c"]")
    return write_number(write_char(p, c":"), e.summary.port[i])


cdef inline char *write_word(char *p, const Word *word) noexcept nogil:
    memcpy(p, word.text, sizeof(word.text))
    return p + word.size


cdef inline int64_t micros(int64_t ns) noexcept nogil:
    """The microsecond that a time lies in: what Zeek gets of one in nanoseconds. It counts a duration from there."""
    return ns // 1000 if ns >= 0 else -1 - (-1 - ns) // 1000


cdef inline int64_t lasting_us(const Entry *e) noexcept nogil:
    return micros(e.last_ns) - micros(e.summary.first_ns)


cdef inline char *write_value(char *p, int field, const Entry *e) noexcept nogil:
    """The value of a field at p; if it is unset, nothing."""
    cdef const char *at = <const char *>e + PLACES[field]
    cdef int kind = KINDS[field]
    if kind == K_COUNT:
        p = write_number(p, (<const uint64_t *>at)[0])
    elif kind == K_COUNT_32:
        p = write_number(p, (<const uint32_t *>at)[0])
    elif kind == K_PORT:
        p = write_number(p, (<const uint16_t *>at)[0])
    elif kind == K_UNSET:
        pass
    elif kind == K_WORD:
        p = write_word(p, &WORDS[field][(<const uint8_t *>at)[0]])
    elif kind == K_ADDRESS:
        p = write_address(p, <const uint8_t *>at)
    elif kind == K_SIZE:
        if lasting_us(e) > 0:
            p = write_number(p, (<const uint64_t *>at)[0])
    elif kind == K_TIME:
        p = write_seconds(p, micros((<const int64_t *>at)[0]))
    else:
        p = write_other(p, field, e)
    return p


cdef inline char *write_history(char *p, const Entry *e) noexcept nogil:
    if e.long_history != NULL:
        return write_bytes(p, e.long_history, e.letters)
    memcpy(p, e.history, sizeof(e.history))
    return p + e.letters


cdef inline char *write_rtt(char *p, const Entry *e) noexcept nogil:
    return write_seconds(p, (e.rtt_ns + 500) // 1000) if e.rtt_ns > 0 else p


cdef char *write_other(char *p, int field, const Entry *e) noexcept nogil:
    """What is not simply there in the entry."""
    if field == F_UID:
        return write_uid(p, e)
    if field == F_PROTO:
        return write_bytes(p, b"tcp", 3)
    if field == F_IP_PROTO:
        return write_char(p, c"6")
    if field == F_DURATION:
        return write_seconds(p, lasting_us(e)) if lasting_us(e) > 0 else p
    if field == F_RTT:
        return write_rtt(p, e)
    if field == F_HISTORY:
        return write_history(p, e)
    if field == F_COMMUNITY:
        return write_community_id(p, e.summary.addr[0], e.summary.port[0], e.summary.addr[1], e.summary.port[1], 0)
    return write_end(p, e, 0 if field == F_ORIGINATOR else 1)


cdef char *write_json(char *p, const Layout *layout, const Entry *e) noexcept nogil:
    """An object; fields that are unset are left out, as Zeek does."""
    cdef char *begun
    cdef char *value
    cdef int i, field
    p = write_char(p, c"{")
    for i in range(layout.n):
        field = layout.field[i]
        begun = p
        p = write_word(p, &KEYS[field])
        if QUOTED[field]:
            p = write_char(p, c'"')
        value = p
        p = write_value(p, field, e)
        if p == value:
            p = begun
            continue
        if QUOTED[field]:
            p = write_char(p, c'"')
        p = write_char(p, c",")
    if (p - 1)[0] == c",":
        p -= 1
    return write_char(p, c"}")


cdef char *pad(char *begun, char *end, int width) noexcept nogil:
    """Fill up a column; with a width below 0 its text moves to the right edge."""
    cdef ptrdiff_t missing = (-width if width < 0 else width) - (end - begun)
    if missing <= 0:
        return end
    if width < 0:
        memmove(begun + missing, begun, <size_t>(end - begun))
        memset(begun, c" ", <size_t>missing)
    else:
        memset(end, c" ", <size_t>missing)
    return end + missing


cdef char *write_separated(char *p, const Layout *layout, const Entry *e) noexcept nogil:
    """Zeek's log or CSV."""
    cdef char *value
    cdef int i
    cdef bint zeek = layout.format == FORMAT_ZEEK
    cdef char separator = c"\t" if zeek else c","
    for i in range(layout.n):
        value = p
        p = write_value(p, layout.field[i], e)
        if p == value and zeek:
            p = write_char(p, c"-")
        p = write_char(p, separator)
    return p - 1


cdef inline char *tab(char *p) noexcept nogil:
    return write_char(p, c"\t")


cdef inline char *tab_or_unset(char *p, const char *value) noexcept nogil:
    return tab(write_char(p, c"-") if p == value else p)


cdef char *write_zeek(char *p, const Entry *e) noexcept nogil:
    """DEFAULT_FIELDS["zeek"] one by one: the same as write_separated, which must ask for every field what it is."""
    cdef const Summary *s = &e.summary
    cdef int64_t first_us = micros(s.first_ns), lasts_us = micros(e.last_ns) - first_us
    cdef char *value
    p = tab(write_seconds(p, first_us))
    p = tab(write_uid(p, e))
    p = tab(write_address(p, s.addr[0]))
    p = tab(write_number(p, s.port[0]))
    p = tab(write_address(p, s.addr[1]))
    p = tab(write_number(p, s.port[1]))
    p = write_bytes(p, b"tcp\t-\t", 6)
    if lasts_us > 0:
        p = tab(write_seconds(p, lasts_us))
        p = tab(write_number(p, e.size[0]))
        p = tab(write_number(p, e.size[1]))
    else:
        p = write_bytes(p, b"-\t-\t-\t", 6)
    p = tab(write_word(p, &CONN_STATE_WORDS[e.conn_state]))
    p = write_bytes(p, b"-\t-\t", 4)
    p = tab(write_number(p, e.missed))
    value = p
    p = tab_or_unset(write_history(p, e), value)
    p = tab(write_number(p, s.packets[0]))
    p = tab(write_number(p, e.ip_bytes[0]))
    p = tab(write_number(p, s.packets[1]))
    p = tab(write_number(p, e.ip_bytes[1]))
    p = write_bytes(p, b"-\t6\t", 4)
    p = tab(write_word(p, &STATE_WORDS[s.state[0]]))
    p = tab(write_word(p, &STATE_WORDS[s.state[1]]))
    value = p
    p = tab_or_unset(write_rtt(p, e), value)
    p = tab(write_number(p, s.retransmitted[0]))
    p = tab(write_number(p, s.retransmitted[1]))
    return write_word(p, &END_WORDS[e.end])


cdef char *write_table(char *p, const Layout *layout, const Entry *e) noexcept nogil:
    cdef char *value
    cdef int i, field
    for i in range(layout.n):
        field = layout.field[i]
        if i:
            p = write_char(p, c" ")
        value = p
        p = write_value(p, field, e)
        if p == value:
            p = write_char(p, c"-")
        if i != layout.n - 1 or WIDTHS[field] < 0:
            p = pad(value, p, WIDTHS[field])
    return p


cdef void put_entry(Text *t, const Layout *layout, const Entry *e) noexcept nogil:
    """One line, with its end."""
    cdef char *p
    cdef size_t history = e.letters + sizeof(e.history)     # the same field may be chosen many times
    if not text_room(t, <size_t>(layout.n + 1) * (WIDEST + sizeof(Word)) + <size_t>layout.histories * history):
        return
    p = t.data + t.size
    if layout.format == FORMAT_JSON:
        p = write_json(p, layout, e)
    elif layout.format == FORMAT_TABLE:
        p = write_table(p, layout, e)
    elif layout.is_zeek:
        p = write_zeek(p, e)
    else:
        p = write_separated(p, layout, e)
    p[0] = c"\n"
    t.size = <size_t>(p + 1 - t.data)


cdef char *write_field(char *p, int field, const Entry *e) noexcept nogil:
    """The value of a field at p, at most WIDEST bytes or a history; if it is unset, nothing."""
    return write_value(p, field, e)


cdef int field_kind(int field) noexcept:
    return KINDS[field]


cdef size_t field_place(int field) noexcept:
    return PLACES[field]


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
    layout.is_zeek = form == "zeek" and names == DEFAULT_FIELDS["zeek"]
    layout.histories = names.count("history")
    for i, name in enumerate(names):
        if name not in FIELDS:
            from difflib import get_close_matches

            near = get_close_matches(str(name), known, n=3)
            others = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(known)}"
            raise ValueError(f"there is no field {name!r}; {others}")
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
