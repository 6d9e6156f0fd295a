# Capture files: pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), walked without copying.
#
# This file knows records, not packets, and memory, not files: whoever drives the walker keeps a window of the file in
# memory and slides it on when the walker asks for more. A window holds at least `need` bytes, or the file ends; a
# window never has to hold more than LARGEST_RECORD and a block header. Nothing here allocates but the list of
# interfaces.
#
# Every step consumes bytes, so a hostile file costs at most its length: a block has at least 12 bytes, a record 16.
#
#   pcap     header 24 bytes: magic (byte order, micro- or nanoseconds), version, -, -, snapshot length, link type
#            record 16 bytes: seconds, fraction, captured, on the wire; then the bytes
#            version 2.2 and older: the two lengths the other way round; 2.3: the smaller one is what was captured
#            magic a1b2cd34 (A. Kuznetzov's patched libpcap): records of 24 bytes, the rest as usual
#   pcapng   block: type, length, body, length again. Section header (own byte order), interface descriptions, packets
#            in enhanced, simple and (obsolete) packet blocks; all other blocks are passed over.

from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from fasttcp.packets.bytes cimport be32, get16, get32, le32

cdef enum:
    MAGIC_MICRO = 0xA1B2C3D4
    MAGIC_NANO = 0xA1B23C4D
    MAGIC_KUZNETZOV = 0xA1B2CD34
    BLOCK_SECTION = 0x0A0D0D0A      # reads the same in both byte orders
    BYTE_ORDER = 0x1A2B3C4D
    BLOCK_INTERFACE = 1
    BLOCK_PACKET = 2                # obsolete
    BLOCK_SIMPLE = 3
    BLOCK_ENHANCED = 6
    OPTION_END = 0
    OPTION_TSRESOL = 9
    OPTION_TSOFFSET = 14

cdef int64_t SECOND = 1_000_000_000


cdef bint begin(Walker* w, const uint8_t* head) noexcept nogil:
    """Tells the format from the first HEAD_BYTES of a file. False: it is neither pcap nor pcapng."""
    cdef uint32_t magic = be32(head)
    cdef uint32_t snaplen
    memset(w, 0, sizeof(Walker))
    if magic == BLOCK_SECTION:
        w.format = FORMAT_PCAPNG
        return be32(head + 8) == BYTE_ORDER or le32(head + 8) == BYTE_ORDER
    w.big = magic in (MAGIC_MICRO, MAGIC_NANO, MAGIC_KUZNETZOV)
    if not w.big:
        magic = le32(head)
    if magic not in (MAGIC_MICRO, MAGIC_NANO, MAGIC_KUZNETZOV):
        return False
    w.format = FORMAT_PCAP
    w.record_header = 24 if magic == MAGIC_KUZNETZOV else RECORD_HEADER
    w.fraction_ns = 1 if magic == MAGIC_NANO else 1000
    snaplen = get32(head + 16, w.big)
    w.link = get32(head + 20, w.big) & 0xFFFF      # above: length of the frame check sequence, not needed
    w.largest = min(max(snaplen, <uint32_t>USUAL_RECORD), <uint32_t>LARGEST_RECORD)
    w.snaplen = snaplen if 0 < snaplen <= <uint32_t>INT32_MAX else w.largest
    w.swapped = get16(head + 4, w.big) == 2 and get16(head + 6, w.big) < 3
    w.maybe_swapped = get16(head + 4, w.big) == 2 and get16(head + 6, w.big) == 3
    return True


cdef void finish(Walker* w) noexcept nogil:
    free(w.interfaces)
    w.interfaces = NULL
    w.n_interfaces = w.room = 0


cdef int64_t _add_clamped(int64_t a, int64_t b) noexcept nogil:
    if b > 0 and a > INT64_MAX - b:
        return INT64_MAX
    if b < 0 and a < INT64_MIN - b:
        return INT64_MIN
    return a + b


cdef int64_t _time(const Interface* i, uint64_t stamp) noexcept nogil:
    """Nanoseconds since 1970; a stamp beyond the years 1677 to 2262 is the nearest one that an int64 can hold."""
    cdef uint64_t seconds
    cdef uint64_t rest
    if i.multiplier:
        if stamp > i.last_stamp:
            return INT64_MAX
        return _add_clamped(<int64_t>(stamp * i.multiplier), i.offset_ns)
    if i.divisor:
        return _add_clamped(<int64_t>min(stamp // i.divisor, <uint64_t>INT64_MAX), i.offset_ns)
    if i.shift >= 64:
        seconds = 0
        rest = stamp >> (i.shift - 34) if i.shift < 98 else 0
    else:
        seconds = stamp >> i.shift
        rest = stamp & ((<uint64_t>1 << i.shift) - 1)
        if i.shift > 34:                    # so that the product fits into 64 bits
            rest >>= i.shift - 34
    if seconds > <uint64_t>(INT64_MAX // SECOND - 1):
        return INT64_MAX
    return _add_clamped(<int64_t>(seconds * SECOND + (rest * SECOND >> min(i.shift, <uint32_t>34))), i.offset_ns)


cdef void _set_resolution(Interface* i, uint32_t code) noexcept nogil:
    """if_tsresol: a power of ten, or of two if the highest bit is set."""
    cdef uint32_t power = code & 0x7F
    cdef uint32_t _k
    i.multiplier = 0
    i.divisor = 0
    i.shift = 0
    if code & 0x80 and power:
        i.shift = power
    elif code & 0x80:
        i.multiplier = SECOND
    elif power <= 9:
        i.multiplier = 1
        for _k in range(9 - power):
            i.multiplier *= 10
    elif power <= 28:
        i.divisor = 1
        for _k in range(power - 9):
            i.divisor *= 10
    else:
        i.shift = 127                       # 2^64 of such units are less than two nanoseconds
    if i.multiplier:
        i.last_stamp = <uint64_t>INT64_MAX // i.multiplier


cdef Step _interface(Walker* w, const uint8_t* p, uint32_t total) noexcept nogil:
    cdef Interface* i
    cdef Interface* moved
    cdef uint32_t at = 16
    cdef uint32_t code
    cdef uint32_t length
    cdef uint32_t room
    cdef uint64_t high, low
    cdef int64_t seconds
    if total < 20:
        return fault(w, FAULT_BLOCK_LENGTH, total)
    if w.n_interfaces == w.room:
        if w.room >= MAX_INTERFACES:
            return fault(w, FAULT_INTERFACES, w.n_interfaces)
        room = max(w.room * 2, <uint32_t>8)
        moved = <Interface*>realloc(w.interfaces, room * sizeof(Interface))
        if moved == NULL:
            return fault(w, FAULT_MEMORY, room)
        w.interfaces = moved
        w.room = room
    i = &w.interfaces[w.n_interfaces]
    w.n_interfaces += 1
    memset(i, 0, sizeof(Interface))
    i.link = get16(p + 8, w.big)
    i.snaplen = get32(p + 12, w.big)
    _set_resolution(i, 6)
    while at + 4 <= total - 4:
        code = get16(p + at, w.big)
        length = get16(p + at + 2, w.big)
        at += 4
        if code == OPTION_END or length > total - 4 - at:
            break                           # what follows a broken option is not known; the packets may still be good
        if code == OPTION_TSRESOL and length == 1:
            _set_resolution(i, p[at])
        elif code == OPTION_TSOFFSET and length == 8:
            high = get32(p + at + (0 if w.big else 4), w.big)
            low = get32(p + at + (4 if w.big else 0), w.big)
            seconds = <int64_t>(high << 32 | low)
            seconds = min(max(seconds, -(INT64_MAX // SECOND)), INT64_MAX // SECOND)
            i.offset_ns = seconds * SECOND
        at += (length + 3) & ~<uint32_t>3
    return STEP_PACKET


cdef Step _packet(Walker* w, const uint8_t* p, uint32_t total, uint32_t kind, Frame* f) noexcept nogil:
    cdef uint32_t header = 12 if kind == BLOCK_SIMPLE else 28
    cdef uint32_t number = 0
    cdef Interface* i
    if total < header + 4:
        return fault(w, FAULT_BLOCK_LENGTH, total)
    if kind == BLOCK_ENHANCED:
        number = get32(p + 8, w.big)
    elif kind == BLOCK_PACKET:
        number = get16(p + 8, w.big)
    if number >= w.n_interfaces:
        return fault(w, FAULT_INTERFACE, number)
    i = &w.interfaces[number]
    f.link = i.link
    f.data = p + header
    if kind == BLOCK_SIMPLE:                # no time of its own: that of the packet before
        f.wire = get32(p + 8, w.big)
        f.captured = min(f.wire, total - header - 4)
        if i.snaplen and f.captured > i.snaplen:
            f.captured = i.snaplen
        f.time_ns = w.last_ns
    else:
        f.captured = get32(p + 20, w.big)
        f.wire = get32(p + 24, w.big)
        if f.captured > total - header - 4:
            return fault(w, FAULT_PACKET_LENGTH, f.captured)
        if f.wire < f.captured:
            f.wire = f.captured
        f.time_ns = _time(i, <uint64_t>get32(p + 12, w.big) << 32 | get32(p + 16, w.big))
        w.last_ns = f.time_ns
    f.offset = w.record_offset
    w.packets += 1
    return STEP_PACKET


cdef Step _section(Walker* w, const uint8_t* p) noexcept nogil:
    """A section has its own byte order and its own interfaces. Its length is not used: blocks tell where they end."""
    if be32(p + 8) == BYTE_ORDER:
        w.big = True
    elif le32(p + 8) == BYTE_ORDER:
        w.big = False
    else:
        return fault(w, FAULT_BYTE_ORDER, be32(p + 8))
    if get16(p + 12, w.big) != 1:
        return fault(w, FAULT_VERSION, get16(p + 12, w.big))
    if get32(p + 4, w.big) < 28:
        return fault(w, FAULT_BLOCK_LENGTH, get32(p + 4, w.big))
    w.n_interfaces = 0
    return STEP_PACKET


cdef inline bint _next_enhanced(Walker* w, Frame* f) noexcept nogil:
    """On to the next packet if that is an enhanced block of a little-endian section, there whole and with nothing wrong:
    what most files consist of. False: nothing was done."""
    cdef const uint8_t* p = w.p
    cdef size_t left = <size_t>(w.end - p)
    cdef uint32_t total, captured, number
    if w.big or w.trailer or left < 32 or le32(p) != BLOCK_ENHANCED:
        return False
    total = le32(p + 4)
    number = le32(p + 8)
    captured = le32(p + 20)
    if total < 32 or total & 3 or total > LARGEST_RECORD or total > left or captured > total - 32 or (
            number >= w.n_interfaces or le32(p + total - 4) != total):
        return False
    w.record_offset = offset_of(w)
    w.last_ns = _time(&w.interfaces[number], <uint64_t>le32(p + 12) << 32 | le32(p + 16))
    w.packets += 1
    w.p += total
    f.data = p + 28
    f.captured = captured
    f.wire = max(le32(p + 24), captured)
    f.link = w.interfaces[number].link
    f.time_ns = w.last_ns
    f.offset = w.record_offset
    return True


cdef Step next_block(Walker* w, Frame* f) noexcept nogil:
    """On to the next packet of a pcapng file."""
    cdef const uint8_t* p
    cdef size_t left
    cdef uint32_t kind
    cdef uint32_t total
    cdef Step step
    if _next_enhanced(w, f):
        return STEP_PACKET
    while True:
        p = w.p
        left = <size_t>(w.end - p)
        if w.trailer:
            if w.skip:
                if left == 0:
                    w.need = 1
                    return STEP_MORE
                left = min(left, w.skip)
                w.skip -= left
                w.p += left
                continue
            if left < 4:
                w.need = 4
                return STEP_MORE
            if get32(p, w.big) != w.trailer:
                return fault(w, FAULT_BLOCK_TRAILER, get32(p, w.big))
            w.trailer = 0
            w.p += 4
            continue

        w.record_offset = offset_of(w)
        if left < 12:
            w.need = 12
            return STEP_MORE
        kind = get32(p, w.big)
        if kind == BLOCK_SECTION:
            if left < 28:
                w.need = 28
                return STEP_MORE
            step = _section(w, p)
            if step != STEP_PACKET:
                return step
        total = get32(p + 4, w.big)
        if total < 12 or total & 3:
            return fault(w, FAULT_BLOCK_LENGTH, total)
        if kind not in (BLOCK_INTERFACE, BLOCK_PACKET, BLOCK_SIMPLE, BLOCK_ENHANCED):
            w.trailer = total
            w.skip = total - 4
            continue
        if total > LARGEST_RECORD + 4096:
            return fault(w, FAULT_BLOCK_LENGTH, total)
        if left < total:
            w.need = total
            return STEP_MORE
        if get32(p + total - 4, w.big) != total:
            return fault(w, FAULT_BLOCK_TRAILER, get32(p + total - 4, w.big))
        step = _interface(w, p, total) if kind == BLOCK_INTERFACE else _packet(w, p, total, kind, f)
        if step == STEP_FAULT:
            return step
        w.p += total
        if kind != BLOCK_INTERFACE:
            return STEP_PACKET
