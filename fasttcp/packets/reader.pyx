"""CaptureReader: segments out of a capture file, a batch at a time, with the GIL released.

This file drives the walker (capture.pyx) and the decoder (decode.pyx) over a window of the file. A mapped file is its
own window, looked at 4 MiB at a time; a stream is read into a buffer of 1 MiB, which grows only for a longer record
(16 MiB at most). Memory is bounded by that and by the fragment table, whatever the file holds.

No state of TCP, no clock: times are the capture's own.
"""

import mmap

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove, memset

from fasttcp.core.layout cimport Segment
from fasttcp.core.prefetch cimport prefetch_read
from fasttcp.core.segments cimport SegmentBatch
from fasttcp.packets.bytes cimport le32
from fasttcp.packets.capture cimport (
    FORMAT_PCAP, HEAD_BYTES, RECORD_HEADER, STEP_FAULT, STEP_MORE, STEP_PACKET, Frame, Walker, begin, finish, next_frame,
    offset_of,
)
from fasttcp.packets.decode cimport AHEAD, PLAIN_HEADERS, decode, decode_plain, start_decoder, stop_decoder
from fasttcp.packets.fragments cimport Fragments
from fasttcp.packets.layers cimport IS_SEGMENT, LINK_UNKNOWN, N_VERDICTS, Decoder
from fasttcp.packets.link cimport LINKTYPE_ETHERNET, link_is_known

from fasttcp.core.segments import SegmentBatch as Batch
from fasttcp.errors import CaptureError, SegmentError, WrongThread
from fasttcp.packets import linktypes
from fasttcp.packets.damage import FAULT_TEXTS, Damage
from fasttcp.packets.source import Unreadable, open_source
from fasttcp.packets.verdicts import VERDICTS

__all__ = ["CaptureReader"]

cdef enum:
    WINDOW = 4 << 20            # bytes of a mapped file between two looks at whether it is still that long
    PREFETCH = 2048             # bytes
    NEAR = 256                  # bytes of a record that the hardware's prefetcher keeps up with
    BUFFER = 1 << 20            # bytes of a stream held at once; in the second-level cache of most machines

_MAGICS = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\xcd\x34",
           b"\x34\xcd\xb2\xa1", b"\x0a\x0d\x0d\x0a")

if len(VERDICTS) != N_VERDICTS:
    raise ImportError("verdicts.py and layers.pxd do not fit")


# Records with payload that nobody reads (checksums ignored) are jumps of a thousand bytes or so, each to a place known
# only when the one before was read: too far for the hardware's prefetcher, and a cache miss each. Asking for all lines
# some distance ahead, needed or not, is twice as fast. Longer records are worth one miss.
cdef inline void _run_ahead(const uint8_t* p, uint32_t captured) noexcept nogil:
    cdef uint32_t at = 0
    while at < captured:
        prefetch_read(p + PREFETCH + at)
        at += 64


cdef inline Py_ssize_t _fill_plain(Feed* feed, Segment* out, Py_ssize_t room) noexcept nogil:
    """Decodes the records that come next as long as they are plain, which is what most captures consist of: pcap of
    this byte order, in the window with some bytes behind them, of a likely length, and decode_plain knows what it is."""
    cdef Walker* w = &feed.walker
    cdef Decoder* d = &feed.decoder
    cdef Segment* s = out
    cdef Segment* full = out + room
    cdef const uint8_t* p = w.p
    cdef const uint8_t* frame
    cdef const uint8_t* next
    cdef uint64_t last = <uint64_t>(w.end - AHEAD)          # as the next header is shorter, it can be read too
    cdef bint validate = d.validate
    cdef uint32_t captured
    cdef uint32_t longest = min(w.largest, w.snaplen) - PLAIN_HEADERS
    cdef uint32_t common = longest if validate else min(longest, <uint32_t>(NEAR - PLAIN_HEADERS))
    cdef int64_t fraction_ns = w.fraction_ns
    if w.end - p < RECORD_HEADER + AHEAD:
        return 0
    while s != full:
        captured = le32(p + 8)
        frame = p + RECORD_HEADER
        next = frame + captured
        if captured - PLAIN_HEADERS > common:               # or below PLAIN_HEADERS
            if captured - PLAIN_HEADERS > longest:
                break
            if captured < PREFETCH:
                _run_ahead(frame, captured)
        if <uint64_t>next > last:
            break
        prefetch_read(p + PREFETCH)
        prefetch_read(p + PREFETCH + 64)
        if not decode_plain(
                d, frame, captured, le32(p + 12), <int64_t>le32(p) * 1_000_000_000 + le32(p + 4) * fraction_ns, s,
                validate):
            break
        p = next
        s += 1
    w.p = p
    w.packets += s - out
    d.counts[IS_SEGMENT] += s - out
    return s - out


cdef inline Py_ssize_t _fill(Feed* feed, Segment* out, Place* places, Py_ssize_t room) noexcept nogil:
    """Decodes frames of the window until `room` segments are there or the window has no more; feed.step says which."""
    cdef Walker* w = &feed.walker
    cdef Decoder* d = &feed.decoder
    cdef Frame f = feed.frame
    cdef Py_ssize_t n = 0
    cdef int verdict
    cdef bint plain = (
        w.format == FORMAT_PCAP and not w.big and w.record_header == RECORD_HEADER and w.link == LINKTYPE_ETHERNET
        and places == NULL and w.snaplen >= PLAIN_HEADERS and not w.swapped and not w.maybe_swapped
    )
    feed.step = STEP_PACKET
    while n < room:
        if not d.resume:
            if plain:
                n += _fill_plain(feed, out + n, room - n)
                if n == room:
                    break
            feed.step = next_frame(w, &f)
            if feed.step != STEP_PACKET:
                break
            if not d.validate and NEAR < f.captured < PREFETCH:
                _run_ahead(f.data, f.captured)
        verdict = decode(
            d, f.link, f.data, f.captured, f.wire, f.time_ns, w.end - f.data >= <ptrdiff_t>f.captured + AHEAD, out + n)
        if verdict == IS_SEGMENT:
            if places != NULL:
                places[n].offset = f.offset
                places[n].packet = w.packets
            n += 1
        elif verdict == LINK_UNKNOWN and d.counts[LINK_UNKNOWN] == 1:
            feed.unknown_link = f.link
            feed.unknown_offset = f.offset
    feed.frame = f
    return n


cdef Py_ssize_t read_segments(CaptureReader reader, Segment* out, Place* places, Py_ssize_t room) except -1 nogil:
    """Fills up to `room` segments, and as many `places` unless that is NULL. 0: the end, or with follow none yet.

    A stream that has to be waited for is not waited for once there is at least one segment.
    """
    cdef Py_ssize_t n = 0
    cdef bint more
    while not reader.ended:
        n += _fill(&reader.feed, out + n, places + n if places != NULL else NULL, room - n)
        if reader.feed.step == STEP_PACKET or (n and not reader.mapped and reader.feed.step == STEP_MORE):
            break
        with gil:
            more = reader.feed.step == STEP_MORE and _move_on(reader)
            if not more:
                _end(reader)
        if not more:
            break
    return n


cdef int reader_look(CaptureReader reader) except -1:
    """A mapped file that has become shorter is read to its new end: to touch what is gone would end the process."""
    cdef Walker* w = &reader.feed.walker
    cdef Decoder* d = &reader.feed.decoder
    cdef uint64_t left
    if not reader.mapped or reader.ended:
        return 0
    left = reader.source.still_there(reader.mapped)
    if left < reader.mapped:
        _damage(reader, "truncated", "the file became shorter while it was read", left)
        reader.mapped = left
        w.end = w.base + min(left, <uint64_t>(w.end - w.base))
        w.p = min(w.p, w.end)
        if d.resume and reader.feed.frame.data + reader.feed.frame.captured > w.end:
            d.resume = 0                                    # the rest of the frame at hand is gone with it
        reader.ended = left == 0
    return 0


cdef bint _move_on(CaptureReader reader) except -1:
    """Brings at least one more byte into the window. False: there is none (or, when following, none yet)."""
    cdef Walker* w = &reader.feed.walker
    cdef uint64_t at = offset_of(w)
    cdef uint64_t end
    if not reader.mapped:
        return _read_on(reader, max(w.need, <uint64_t>1)) > 0
    reader_look(reader)
    end = <uint64_t>(w.end - w.base)
    if end >= reader.mapped:
        return False
    _release(reader, at)
    w.end = w.base + min(reader.mapped, at + max(w.need, <uint64_t>WINDOW))
    return True


cdef int _release(CaptureReader reader, uint64_t at) except -1:
    """Hands the pages that were read back to the system, so that a mapped file does not count as memory in use."""
    cdef uint64_t until = at // mmap.PAGESIZE * mmap.PAGESIZE
    if until > reader.released and hasattr(mmap, "MADV_DONTNEED") and isinstance(reader.source.memory, mmap.mmap):
        reader.source.memory.madvise(mmap.MADV_DONTNEED, reader.released, until - reader.released)
        reader.released = until
    return 0


cdef Py_ssize_t _read_on(CaptureReader reader, uint64_t need) except -1:
    """Moves what is left to the front of the buffer and reads behind it."""
    cdef Walker* w = &reader.feed.walker
    cdef size_t left = <size_t>(w.end - w.p)
    cdef uint8_t[::1] buffer = reader.window
    cdef uint64_t at = offset_of(w)
    cdef Py_ssize_t got = 0
    cdef object _former = reader.window         # must live until its rest is copied
    if need > <uint64_t>buffer.shape[0]:
        reader.window = bytearray(need + BUFFER)
        buffer = reader.window
    if left:
        memmove(&buffer[0], w.p, left)
    w.base = w.p = &buffer[0]
    w.end = w.base + left
    w.base_offset = at
    try:
        got = reader.source.read_into(memoryview(reader.window)[left:])
    except Unreadable as broken:
        _damage(reader, broken.kind, str(broken), at + left)
        return 0
    w.end += got
    return got


cdef int _damage(CaptureReader reader, str kind, str message, uint64_t offset) except -1:
    reader.damage = Damage(kind, message, reader.source.name, offset, reader.feed.walker.packets)
    return 0


cdef int _end(CaptureReader reader) except -1:
    """No more bytes, or none that make sense: says what is wrong, if anything is."""
    cdef Walker* w = &reader.feed.walker
    cdef uint64_t left = <uint64_t>(w.end - w.p)
    if reader.follow and reader.feed.step == STEP_MORE and reader.damage is None:
        return 0
    reader.ended = True
    if reader.damage is not None:
        return 0
    if reader.feed.step == STEP_FAULT:
        _damage(reader, "corrupt", FAULT_TEXTS[w.fault].format(w.fault_value), w.record_offset)
    elif w.trailer:
        _damage(reader, "truncated", f"the file ends inside a block of {w.trailer} bytes", w.record_offset)
    elif left:
        message = f"the file ends after {left} of at least {w.need} bytes of a record"
        _damage(reader, "truncated", message, w.record_offset)
    cdef uint64_t unknown = reader.feed.decoder.counts[LINK_UNKNOWN]
    if unknown and unknown == w.packets:
        raise CaptureError(
            f"link type {linktypes.name(reader.feed.unknown_link)} is not one that fasttcp reads",
            reader.source.name, reader.feed.unknown_offset)
    return 0


cdef int _open(CaptureReader reader) except -1:
    """Looks at the head of the file and makes the walker ready."""
    cdef Walker* w = &reader.feed.walker
    cdef const uint8_t[::1] memory
    cdef const uint8_t* base
    cdef const uint8_t* end
    cdef bytes head
    if reader.source.memory is not None:
        memory = reader.source.memory
        reader.window = memory
        reader.mapped = memory.shape[0]
        if reader.mapped:
            w.base = w.p = &memory[0]
            w.end = w.base + min(reader.mapped, <uint64_t>WINDOW)
    else:
        reader.window = bytearray(BUFFER)
        while w.end - w.p < HEAD_BYTES and _read_on(reader, HEAD_BYTES) > 0:
            pass
    base = w.p
    end = w.end
    head = base[:min(<Py_ssize_t>(end - base), <Py_ssize_t>HEAD_BYTES)] if end > base else b""
    if reader.damage is not None:
        raise CaptureError(reader.damage.message, reader.source.name, reader.damage.offset)
    if len(head) < HEAD_BYTES or not begin(w, base):
        raise CaptureError(_not_a_capture(head), reader.source.name, 0)
    w.base = w.p = base
    w.end = end
    if w.format == FORMAT_PCAP:
        if not link_is_known(w.link):
            raise CaptureError(
                f"link type {linktypes.name(w.link)} is not one that fasttcp reads", reader.source.name, 20)
        w.p += HEAD_BYTES
    return 0


cdef str _not_a_capture(bytes head):
    if not head:
        return "the file is empty"
    if head[:4] in _MAGICS and len(head) < HEAD_BYTES:
        return f"the file ends inside its header, after {len(head)} bytes"
    if all(32 <= octet < 127 or octet in (9, 10, 13) for octet in head):
        return "this is text, not a pcap or pcapng capture"
    return f"neither pcap nor pcapng: the file begins with {head[:4].hex(' ')}"


cdef class CaptureReader:
    """Reads TCP segments from a capture.

    Parameters
    ----------
    source : str, os.PathLike, bytes-like or binary file object
        A path, "-" for standard input, the bytes themselves, or an open file, which is read from where it stands and
        not closed. pcap and pcapng of every kind; compressed with gzip, xz or zstd (told by the bytes, not by the
        name).
    checksums : {"validate", "ignore"}
        "validate": IPv4 headers with a wrong checksum are dropped, TCP segments with one are marked INFO_BAD_CHECKSUM.
        A packet that was not captured whole cannot be checked and passes.
    tunnels : bool
        Look into IP in IP, GRE, VXLAN, Geneve, GTP-U, Teredo and AYIYA, four deep at most.
    follow : bool
        The file still grows: at its present end `read_batch` returns 0 and may be called again.

    Attributes
    ----------
    damage : Damage or None
        Set when the capture turned out to be truncated or corrupt; what was good before that place has been read.

    Raises
    ------
    OSError
        As from `open`.
    CaptureError
        It is no capture, its link type is unknown (for pcapng: raised at the end, when no packet had a known one), or a
        zstd file meets a Python without zstd.

    Notes
    -----
    One thread at a time. Cost: about 15 ns for a plain packet without checksums, in the page cache.
    """

    def __cinit__(self):
        self.mapped = self.released = 0
        self.ended = self.busy = self.follow = False

    def __init__(self, source, *, checksums="validate", tunnels=True, follow=False):
        if checksums not in ("validate", "ignore"):
            raise ValueError(f"checksums: expected 'validate' or 'ignore', got {checksums!r}")
        if self.source is not None:
            raise TypeError("a CaptureReader is opened once")
        start_decoder(&self.feed.decoder, checksums == "validate", bool(tunnels))
        self.follow = bool(follow)
        self.source = open_source(source, mapped=not follow)
        try:
            _open(self)
        except BaseException:
            self.close()
            raise

    def __dealloc__(self):
        stop_decoder(&self.feed.decoder)
        finish(&self.feed.walker)

    def read_batch(self, SegmentBatch batch not None, positions=None):
        """Refills a batch from its start with the next segments and returns their number; 0 at the end.

        Parameters
        ----------
        batch : SegmentBatch
            Its former contents are overwritten. A stream may fill less than its capacity; only 0 means the end.
        positions : writable buffer of 16 bytes for each record of the batch's capacity, optional
            Receives for each segment two uint64: the byte offset of its record in the (decompressed) file, and the
            packet's number, from 1. For example `numpy.empty((batch.capacity, 2), "u8")`.

        Raises
        ------
        CaptureError
            No packet of the capture had a known link type.
        SegmentError
            `positions` is too small. BufferError: the batch or `positions` cannot be written to.
        WrongThread
            Another thread is inside this reader.

        The GIL is released.
        """
        cdef Py_buffer view
        cdef Place* places = NULL
        cdef Py_ssize_t n = 0
        if self.busy:
            raise WrongThread("another thread is reading from this CaptureReader")
        if self.source is None:
            raise ValueError("this CaptureReader is closed")
        if not batch.writable:
            raise BufferError("this batch stands on a read-only buffer")
        if positions is not None:
            PyObject_GetBuffer(positions, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
            places = <Place*>view.buf
        try:
            if positions is not None and (
                    view.len < batch.capacity * <Py_ssize_t>sizeof(Place) or <size_t>view.buf % sizeof(uint64_t)):
                raise SegmentError(
                    f"positions: {batch.capacity} segments need {batch.capacity * sizeof(Place)} aligned bytes, "
                    f"got {view.len}")
            batch.count = 0
            self.busy = True
            reader_look(self)
            with nogil:
                n = read_segments(self, batch.records, places, batch.capacity)
            batch.count = n
        finally:
            self.busy = False
            if positions is not None:
                PyBuffer_Release(&view)
        return n

    def __iter__(self):
        """The segments one by one, as `Segment`; convenient, and some hundred times slower than batches."""
        batch = Batch(256)
        while self.read_batch(batch):
            yield from batch

    def counters(self):
        """What the packets so far were: a dict with "packets", the number of frames read, every name in VERDICTS, and

        * "bad_checksum", "bad_header": segments that are marked so,
        * "tunnelled": segments that came out of a tunnel,
        * "reassembled", "reassembly_failed", "reassembly_pending": datagrams put together, given up, and not complete.

        A frame is counted once, under what it turned out to be (an 802.11 A-MSDU once for each of its subframes).
        """
        cdef Decoder* d = &self.feed.decoder
        counted = {"packets": self.feed.walker.packets}
        counted.update((name, d.counts[i]) for i, name in enumerate(VERDICTS))
        counted.update(
            bad_checksum=d.bad_checksum, bad_header=d.bad_header, tunnelled=d.tunnelled,
            reassembled=d.fragments.reassembled, reassembly_failed=d.fragments.abandoned,
            reassembly_pending=d.fragments.held,
        )
        return counted

    @property
    def name(self):
        """The file's name for messages; "-" for standard input."""
        return self.source.name if self.source is not None else None

    @property
    def format(self):
        """"pcap" or "pcapng"."""
        return "pcap" if self.feed.walker.format == FORMAT_PCAP else "pcapng"

    @property
    def size(self):
        """Bytes of the capture, or None for a stream and for a compressed file."""
        return self.source.size if self.source is not None else None

    @property
    def offset(self):
        """Bytes of the (decompressed) capture that were read so far."""
        return offset_of(&self.feed.walker)

    @property
    def at_end(self):
        """Whether there is nothing more to read; never true while following, unless the file is damaged."""
        return self.ended

    def take_fragments(self, CaptureReader before not None):
        """Fragments that wait for the rest go on waiting here: this capture is the continuation of another, which is
        closed. Called before the first segment is read. Returns the number of datagrams they belong to.
        """
        cdef Fragments* mine = &self.feed.decoder.fragments
        cdef Fragments* former = &before.feed.decoder.fragments
        if self.busy or before.busy:
            raise WrongThread("another thread is reading from this CaptureReader")
        if before is self or before.source is not None or mine.slots != NULL:
            raise ValueError("fragments are taken from a closed CaptureReader, before the first of one's own")
        mine[0] = former[0]
        memset(former, 0, sizeof(Fragments))
        former.reassembled = mine.reassembled           # what was counted stays with who counted it
        former.abandoned = mine.abandoned
        mine.reassembled = mine.abandoned = 0
        return mine.held

    def close(self):
        """Closes the file, if the reader opened it. Counters and `damage` stay; to read further raises ValueError."""
        if self.busy:
            raise WrongThread("another thread is reading from this CaptureReader")
        self.ended = True
        source, self.source, self.window = self.source, None, None      # the view on the mapping first
        self.feed.walker.p = self.feed.walker.end = self.feed.walker.base = NULL
        if source is not None:
            source.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
