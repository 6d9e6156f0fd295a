"""Batches of TCP segments: the record through which packets, drivers and tests hand segments to a table.

A batch is one piece of memory: `capacity` records of 80 bytes (layout.pxd, `Segment`), of which the first `len(batch)`
hold segments. It never moves while a view of it is held. It knows nothing of files, of links or of TCP's rules; a
record with a silly flag or port combination is a legal record.

Costs: append 1 us (Python), a view or a clear O(1), a C filler 2 ns a record. One thread at a time.
"""

from operator import index
from typing import NamedTuple

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint16_t, uint32_t
from libc.string cimport memset

from fasttcp.core cimport layout
from fasttcp.core.address cimport format_address, parse_address, parse_number
from fasttcp.core.layout cimport Segment as SegmentRecord

from fasttcp.errors import SegmentError

__all__ = [
    "ACK", "CWR", "ECE", "FIN", "INFO_BAD_CHECKSUM", "INFO_BAD_HEADER", "INFO_CUT", "INFO_IPV6", "OPT_MSS", "OPT_SACK_PERMITTED",
    "OPT_TIMESTAMPS", "OPT_WSCALE", "PSH", "RST", "SEGMENT_BYTES", "SEGMENT_DTYPE", "SYN", "URG", "Segment",
    "SegmentBatch", "flag_names",
]

FIN = layout.FIN
SYN = layout.SYN
RST = layout.RST
PSH = layout.PSH
ACK = layout.ACK
URG = layout.URG
ECE = layout.ECE
CWR = layout.CWR
OPT_MSS = layout.OPT_MSS
OPT_WSCALE = layout.OPT_WSCALE
OPT_SACK_PERMITTED = layout.OPT_SACK_PERMITTED
OPT_TIMESTAMPS = layout.OPT_TIMESTAMPS
INFO_IPV6 = layout.INFO_IPV6
INFO_BAD_CHECKSUM = layout.INFO_BAD_CHECKSUM
INFO_BAD_HEADER = layout.INFO_BAD_HEADER
INFO_CUT = layout.INFO_CUT

SEGMENT_BYTES = sizeof(SegmentRecord)

# name, numpy format, PEP 3118 format. Written once: the dtype, the exported format and the order of Segment come from
# it.
_FIELDS = (
    ("time_ns", "i8", "q"),
    ("src", "(16,)u1", "(16)B"),
    ("dst", "(16,)u1", "(16)B"),
    ("sport", "u2", "H"),
    ("dport", "u2", "H"),
    ("seq", "u4", "I"),
    ("ack", "u4", "I"),
    ("payload", "u4", "I"),
    ("tsval", "u4", "I"),
    ("tsecr", "u4", "I"),
    ("window", "u2", "H"),
    ("flags", "u2", "H"),
    ("mss", "u2", "H"),
    ("wscale", "u1", "B"),
    ("options", "u1", "B"),
    ("ip_bytes", "u4", "I"),
    ("info", "u4", "I"),
)
_BYTES = {"q": 8, "(16)B": 16, "H": 2, "I": 4, "B": 1}
_OFFSETS = [sum(_BYTES[code] for _, _, code in _FIELDS[:i]) for i in range(len(_FIELDS))]

SEGMENT_DTYPE = {
    "names": [name for name, _, _ in _FIELDS],
    "formats": [form for _, form, _ in _FIELDS],
    "offsets": _OFFSETS,
    "itemsize": SEGMENT_BYTES,
}

# Every field lies on its natural boundary, so "=" (standard sizes, no padding) describes the C struct exactly.
cdef bytes _FORMAT = ("T{=" + "".join(f"{code}:{name}:" for name, _, code in _FIELDS) + "}").encode()

_FLAG_NAMES = (
    ("SYN", SYN), ("FIN", FIN), ("RST", RST), ("PSH", PSH), ("ACK", ACK), ("URG", URG), ("ECE", ECE), ("CWR", CWR),
)
_FLAG_BITS = dict(_FLAG_NAMES)


def flag_names(flags):
    """The flags as text, e.g. "SYN|ACK"; "-" for none. Bits beyond the eight of RFC 9293 section 3.1 stand in hex."""
    names = [name for name, bit in _FLAG_NAMES if flags & bit]
    if flags & ~0xFF:
        names.append(hex(flags & ~0xFF))
    return "|".join(names) or "-"


class Segment(NamedTuple):
    """One TCP segment, copied out of a batch. Options that the segment does not carry are None.

    `time_ns` nanoseconds; `src`, `dst` addresses as text; `seq`, `ack` modulo 2^32; `window` as in the header,
    unscaled; `payload` bytes of data after the TCP header, as on the wire; `ip_bytes` length of the IP datagram.
    """

    time_ns: int
    src: str
    sport: int
    dst: str
    dport: int
    flags: int
    seq: int
    ack: int
    window: int
    payload: int
    mss: int | None
    wscale: int | None
    sack_permitted: bool
    tsval: int | None
    tsecr: int | None
    ip_bytes: int
    info: int

    def __repr__(self):
        ends = f"{_host(self.src)}:{self.sport} > {_host(self.dst)}:{self.dport}"
        parts = [ends, flag_names(self.flags), f"seq={self.seq}"]
        if self.flags & ACK:
            parts.append(f"ack={self.ack}")
        parts += [f"win={self.window}", f"len={self.payload}"]
        carried = (("mss", self.mss), ("wscale", self.wscale), ("tsval", self.tsval), ("tsecr", self.tsecr))
        parts += [f"{name}={value}" for name, value in carried if value is not None]
        if self.sack_permitted:
            parts.append("sackOK")
        if self.info & INFO_BAD_CHECKSUM:
            parts.append("bad checksum")
        if self.info & INFO_BAD_HEADER:
            parts.append("bad header")
        return f"<Segment {self.time_ns} ns {' '.join(parts)}>"


cdef str _host(str address):
    return f"[{address}]" if ":" in address else address


cdef uint16_t _flags(value) except? 0xFFFF:
    if isinstance(value, str):
        bits = 0
        for word in value.replace("|", " ").replace(",", " ").split():
            if word.upper() not in _FLAG_BITS:
                raise SegmentError(f"flags: {word!r} is none of {', '.join(_FLAG_BITS)}")
            bits |= _FLAG_BITS[word.upper()]
        return bits
    return parse_number("flags", value, 0, 0xFFF)


cdef _segment(const SegmentRecord* s):
    cdef uint32_t options = s.options
    return Segment(
        s.time_ns, format_address(s.src), s.sport, format_address(s.dst), s.dport, s.flags, s.seq, s.ack, s.window,
        s.payload,
        s.mss if options & layout.OPT_MSS else None,
        s.wscale if options & layout.OPT_WSCALE else None,
        options & layout.OPT_SACK_PERMITTED != 0,
        s.tsval if options & layout.OPT_TIMESTAMPS else None,
        s.tsecr if options & layout.OPT_TIMESTAMPS else None,
        s.ip_bytes, s.info,
    )


cdef class SegmentBatch:
    """A fixed number of segment records in one piece of memory, to be filled and read again and again.

    Parameters
    ----------
    capacity : int or buffer
        How many records to make room for (at least 1); the batch is then empty. Or any C-contiguous object with the
        buffer protocol whose bytes are whole 80-byte records, such as a numpy array of dtype
        `numpy.dtype(SEGMENT_DTYPE)`: the batch then stands on that memory, without a copy, and is full.

    Notes
    -----
    `numpy.asarray(batch)` is a structured array over the batch's own memory, of `len(batch)` records at the time of the
    call; refilling the batch shows through it. `reserve` is the only call that moves memory, and refuses while a view
    is held.

    Raises
    ------
    SegmentError
        The capacity is out of range, or the buffer is not made of whole records.
    """

    def __cinit__(self, capacity=1024):
        self.records = NULL
        self.count = self.capacity = self.exports = 0
        self.writable = True
        self._is_lent = False
        self._strides[0] = sizeof(SegmentRecord)
        try:
            wanted = index(capacity)
        except TypeError:               # not a number (a numpy array has __index__ too, and refuses here)
            _stand_on(self, capacity)
            return
        self.capacity = parse_number("capacity", wanted, 1, 1 << 40)
        self.records = <SegmentRecord*>PyMem_Calloc(self.capacity, sizeof(SegmentRecord))
        if self.records == NULL:
            self.capacity = 0
            raise MemoryError(f"no memory for {wanted} segments")

    def __dealloc__(self):
        if self._is_lent:
            PyBuffer_Release(&self._lent)
        else:
            PyMem_Free(self.records)

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        cdef Py_ssize_t i = index(place)
        if i < 0:
            i += self.count
        if not 0 <= i < self.count:
            raise IndexError(f"segment {place} of a batch of {self.count}")
        return _segment(&self.records[i])

    def __iter__(self):
        cdef Py_ssize_t i = 0
        while i < self.count:
            yield _segment(&self.records[i])
            i += 1

    def __repr__(self):
        return f"<SegmentBatch {self.count} of {self.capacity}>"

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        if flags & PyBUF_WRITABLE and not self.writable:
            raise BufferError("this batch stands on a read-only buffer")
        # A view shows the records that were there when it was made; two views of different lengths may live side by
        # side, so the shape cannot stand in the batch alone. Py_buffer.internal belongs to us: it owns this view's own
        # shape.
        cdef Py_ssize_t* shape = <Py_ssize_t*>PyMem_Calloc(1, sizeof(Py_ssize_t))
        if shape == NULL:
            raise MemoryError()
        shape[0] = self.count
        buffer.buf = self.records
        buffer.obj = self
        buffer.len = self.count * <Py_ssize_t>sizeof(SegmentRecord)
        buffer.itemsize = sizeof(SegmentRecord)
        buffer.readonly = not self.writable
        buffer.ndim = 1
        buffer.format = <char*>_FORMAT if flags & PyBUF_FORMAT else NULL
        buffer.shape = shape if flags & PyBUF_ND else NULL
        buffer.strides = self._strides if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = shape
        self.exports += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        PyMem_Free(buffer.internal)
        self.exports -= 1

    def append(
        self, *, src, dst, sport, dport, flags=0, seq=0, ack=0, window=0, payload=0, time_ns=0, mss=None, wscale=None,
        sack_permitted=False, tsval=None, tsecr=None, ip_bytes=None, info=0,
    ):
        """Adds one segment at the end.

        Parameters
        ----------
        src, dst : str, bytes of length 4 or 16, or ipaddress.IPv4Address / IPv6Address
            Both of one version.
        sport, dport : int
            0 to 65535.
        flags : int or str
            Bits as in the header, or names: "SYN|ACK".
        seq, ack : int
            0 to 2^32 - 1; `ack` counts only when ACK is among the flags.
        window : int
            0 to 65535, unscaled.
        payload : int
            Bytes of data, 0 to 2^32 - 1.
        time_ns : int
            Nanoseconds on the caller's clock, 64 bits, signed.
        mss, wscale, tsval, tsecr : int or None; sack_permitted : bool
            The options that the segment carries; `tsval` and `tsecr` come together, one alone makes the other 0.
        ip_bytes : int or None
            Length of the IP datagram; None: headers (options included) and payload.
        info : int
            INFO_... bits; INFO_IPV6 is set from the addresses.

        Raises
        ------
        SegmentError
            A value outside its range; the message names the field. Nothing was added.
        IndexError
            The batch is full.
        """
        cdef SegmentRecord s
        _must_be_writable(self)
        if self.count >= self.capacity:
            raise IndexError(f"the batch is full: {self.capacity} segments")
        memset(&s, 0, sizeof(s))
        s.time_ns = parse_number("time_ns", time_ns, INT64_MIN, INT64_MAX)
        cdef int version = parse_address("src", src, s.src)
        if parse_address("dst", dst, s.dst) != version:
            raise SegmentError(f"dst: {dst!r} and src {src!r} are not of one IP version")
        s.sport = parse_number("sport", sport, 0, 0xFFFF)
        s.dport = parse_number("dport", dport, 0, 0xFFFF)
        s.flags = _flags(flags)
        s.seq = parse_number("seq", seq, 0, 0xFFFFFFFF)
        s.ack = parse_number("ack", ack, 0, 0xFFFFFFFF)
        s.window = parse_number("window", window, 0, 0xFFFF)
        s.payload = parse_number("payload", payload, 0, 0xFFFFFFFF)
        s.info = parse_number("info", info, 0, 0xFFFFFFFF)
        if version == 6:
            s.info |= layout.INFO_IPV6
        cdef uint32_t header = 20
        if mss is not None:
            s.mss = parse_number("mss", mss, 0, 0xFFFF)
            s.options |= layout.OPT_MSS
            header += 4
        if wscale is not None:
            s.wscale = parse_number("wscale", wscale, 0, 0xFF)
            s.options |= layout.OPT_WSCALE
            header += 4
        if sack_permitted:
            s.options |= layout.OPT_SACK_PERMITTED
            header += 4
        if tsval is not None or tsecr is not None:
            s.tsval = parse_number("tsval", 0 if tsval is None else tsval, 0, 0xFFFFFFFF)
            s.tsecr = parse_number("tsecr", 0 if tsecr is None else tsecr, 0, 0xFFFFFFFF)
            s.options |= layout.OPT_TIMESTAMPS
            header += 12
        cdef int64_t datagram = (20 if version == 4 else 40) + header + <int64_t>s.payload
        if ip_bytes is None:
            s.ip_bytes = min(datagram, 0xFFFFFFFF)
        else:
            s.ip_bytes = parse_number("ip_bytes", ip_bytes, 0, 0xFFFFFFFF)
        self.records[self.count] = s
        self.count += 1

    def clear(self):
        """Empties the batch; O(1). The records stay as they are until they are overwritten, and views show them."""
        _must_be_writable(self)
        self.count = 0

    def reserve(self, capacity):
        """Makes room for at least `capacity` segments; those that are there stay.

        Raises BufferError while a view of the batch is held, or when it stands on another object's buffer; MemoryError
        if the memory is not there. The batch is then as it was.
        """
        cdef Py_ssize_t wanted = parse_number("capacity", capacity, 1, 1 << 40)
        if wanted <= self.capacity:
            return
        if self._is_lent:
            raise BufferError("this batch stands on another object's buffer and cannot grow")
        if self.exports:
            raise BufferError(f"{self.exports} views of this batch are held; its memory cannot move")
        cdef SegmentRecord* moved = <SegmentRecord*>PyMem_Realloc(self.records, wanted * sizeof(SegmentRecord))
        if moved == NULL:
            raise MemoryError(f"no memory for {capacity} segments")
        memset(moved + self.capacity, 0, (wanted - self.capacity) * sizeof(SegmentRecord))
        self.records = moved
        self.capacity = wanted


cdef int _stand_on(SegmentBatch self, source) except -1:
    try:
        PyObject_GetBuffer(source, &self._lent, PyBUF_SIMPLE | PyBUF_WRITABLE)
    except TypeError:
        raise SegmentError(f"capacity: expected an int or a buffer of segments, got {type(source).__name__}") from None
    except (BufferError, ValueError):
        self.writable = False       # refused as writable; asked again as read-only
    if not self.writable:
        try:
            PyObject_GetBuffer(source, &self._lent, PyBUF_SIMPLE)
        except (BufferError, ValueError) as refusal:
            raise SegmentError(f"the buffer is not contiguous ({refusal})") from None
    self._is_lent = True
    if self._lent.itemsize not in (1, <Py_ssize_t>sizeof(SegmentRecord)) or self._lent.len % sizeof(SegmentRecord):
        raise SegmentError(
            f"a segment has {sizeof(SegmentRecord)} bytes; "
            f"got {self._lent.len} bytes in items of {self._lent.itemsize}")
    if <size_t>self._lent.buf % 8:
        raise SegmentError("the buffer does not begin on an 8-byte boundary")
    self.records = <SegmentRecord*>self._lent.buf
    self.capacity = self.count = self._lent.len // <Py_ssize_t>sizeof(SegmentRecord)
    return 0


cdef int _must_be_writable(SegmentBatch self) except -1:
    if not self.writable:
        raise BufferError("this batch stands on a read-only buffer")
    return 0


# ---- what callers hand in -------------------------------------------------------------------------------------------

cdef size_t segments_shown(object source, Py_buffer *view) except? 0:
    """Fill in the view of a buffer of segments and return how many there are; SegmentError otherwise."""
    try:
        PyObject_GetBuffer(source, view, PyBUF_FORMAT | PyBUF_ND)
    except TypeError:
        raise SegmentError(
            f"{type(source).__name__} is no batch of segments: give a SegmentBatch or a buffer of "
            f"{sizeof(SegmentRecord)}-byte records"
        ) from None
    except (BufferError, ValueError) as refusal:
        raise SegmentError(f"no contiguous buffer of segments: {refusal}") from None
    if view.len % sizeof(SegmentRecord) != 0 or (view.itemsize != sizeof(SegmentRecord) and view.itemsize != 1):
        message = (
            f"a buffer of {view.len} bytes in items of {view.itemsize}: segments are records of {sizeof(SegmentRecord)} bytes"
        )
    elif <size_t>view.buf % 8 != 0 and view.len != 0:
        message = "the buffer of segments does not begin on an 8-byte boundary"
    else:
        return view.len // sizeof(SegmentRecord)
    PyBuffer_Release(view)
    raise SegmentError(message)
