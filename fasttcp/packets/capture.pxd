# The records of a capture file, one after the other, out of bytes in memory; see capture.pyx.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fasttcp.packets.bytes cimport be32, le32


cdef enum:
    FORMAT_PCAP = 1
    FORMAT_PCAPNG = 2
    HEAD_BYTES = 24                 # enough of the file to tell its format: the pcap file header
    RECORD_HEADER = 16              # bytes, of pcap
    USUAL_RECORD = 262144           # libpcap's MAXIMUM_SNAPLEN: no tool captures more of a packet unless told so
    LARGEST_RECORD = 16 << 20       # what a snapshot length in the file may raise that to; bounds a stream's memory
    MAX_INTERFACES = 65536          # of one section


cdef enum Step:
    STEP_PACKET
    STEP_MORE                       # `need` bytes must be at p, or the file ends here
    STEP_FAULT


# What is wrong with a file; texts in damage.py.
cdef enum Fault:
    FAULT_NONE
    FAULT_RECORD_LENGTH             # value: bytes that the record claims
    FAULT_BLOCK_LENGTH              # value: bytes that the block claims
    FAULT_BLOCK_TRAILER             # value: the second length of a block, which differs from the first
    FAULT_BYTE_ORDER                # value: the section header's byte-order magic
    FAULT_VERSION                   # value: the section's major version
    FAULT_INTERFACE                 # value: an interface that was never described
    FAULT_INTERFACES                # more than MAX_INTERFACES
    FAULT_PACKET_LENGTH             # value: captured bytes that do not fit into their block
    FAULT_MEMORY


cdef struct Interface:
    uint32_t link
    uint32_t snaplen                # 0: no limit
    uint64_t multiplier             # nanoseconds in a unit of its clock, if that is a whole number
    uint64_t last_stamp             # then: the last one that an int64 of nanoseconds holds
    uint64_t divisor                # else: units of its clock in a nanosecond, if that is one,
    uint32_t shift                  # else: 2^shift units in a second
    int64_t  offset_ns              # added to every timestamp


cdef struct Frame:
    const uint8_t* data
    uint32_t captured
    uint32_t wire                   # never below captured
    uint32_t link
    int64_t  time_ns
    uint64_t offset                 # of the record in the file


cdef struct Walker:
    const uint8_t* base             # the window: bytes of the file in memory
    const uint8_t* p                # the first that was not read
    const uint8_t* end
    uint64_t base_offset            # where in the file the window begins
    uint64_t need                   # STEP_MORE
    Fault fault                     # STEP_FAULT
    uint64_t fault_value
    uint64_t record_offset          # where the record or block at hand begins
    uint64_t packets
    int64_t last_ns
    uint32_t format
    bint big                        # byte order
    # pcap
    uint32_t record_header          # RECORD_HEADER, or 24 in the variant of A. Kuznetzov
    uint32_t fraction_ns            # nanoseconds in a unit of the fraction: 1000 or 1
    uint32_t link
    uint32_t largest                # bytes of a record
    uint32_t snaplen                # bytes of it that are looked at
    bint swapped                    # before version 2.3 the two lengths stood the other way round, ...
    bint maybe_swapped              # ... in 2.3 either way
    # pcapng
    Interface* interfaces
    uint32_t n_interfaces
    uint32_t room
    uint64_t skip                   # bytes still to pass over, of a block that is not looked into
    uint32_t trailer                # the length that must stand behind them; 0: none is due


cdef bint begin(Walker* w, const uint8_t* head) noexcept nogil
cdef void finish(Walker* w) noexcept nogil
cdef Step next_block(Walker* w, Frame* f) noexcept nogil


cdef inline uint64_t offset_of(const Walker* w) noexcept nogil:
    return w.base_offset + <uint64_t>(w.p - w.base)


cdef inline Step fault(Walker* w, Fault which, uint64_t value) noexcept nogil:
    w.fault = which
    w.fault_value = value
    return STEP_FAULT


cdef inline Step next_record(Walker* w, Frame* f) noexcept nogil:
    """The next record of a pcap file."""
    cdef const uint8_t* p = w.p
    cdef size_t left = <size_t>(w.end - p)
    cdef uint32_t seconds, fraction, captured, wire, looked
    w.record_offset = offset_of(w)
    if left < w.record_header:
        w.need = w.record_header
        return STEP_MORE
    if w.big:
        seconds, fraction, captured, wire = be32(p), be32(p + 4), be32(p + 8), be32(p + 12)
    else:
        seconds, fraction, captured, wire = le32(p), le32(p + 4), le32(p + 8), le32(p + 12)
    if w.swapped or (w.maybe_swapped and captured > wire):
        captured, wire = wire, captured
    if captured > w.largest:
        return fault(w, FAULT_RECORD_LENGTH, captured)
    if left < w.record_header + captured:
        w.need = w.record_header + captured
        return STEP_MORE
    f.data = p + w.record_header
    # As libpcap does with records longer than the file says they can be, so that all tools see the same.
    looked = captured if captured < w.snaplen else w.snaplen
    f.captured = looked
    f.wire = wire if wire > looked else looked
    f.link = w.link
    f.time_ns = <int64_t>seconds * 1_000_000_000 + <int64_t>fraction * w.fraction_ns
    f.offset = w.record_offset
    w.p = f.data + captured
    w.packets += 1
    return STEP_PACKET


cdef inline Step next_frame(Walker* w, Frame* f) noexcept nogil:
    if w.format == FORMAT_PCAP:
        return next_record(w, f)
    return next_block(w, f)
