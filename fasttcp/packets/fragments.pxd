# IP reassembly in bounded memory; see fragments.pyx.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef enum:
    MAX_DATAGRAMS = 1024            # datagrams in the making at one time
    MAX_HELD_BYTES = 16 << 20       # bytes of memory for all of them
    MAX_DATAGRAM = 65535            # RFC 791: the longest payload and header that IP can describe


cdef enum:
    PIECE_HELD
    PIECE_COMPLETES
    PIECE_REFUSED


cdef struct Partial:
    uint8_t key[40]                 # version, identification, addresses
    int64_t began_ns                # time of the first piece
    uint8_t* data
    uint8_t* seen                   # a bit for each byte at data that came
    uint32_t room                   # bytes at data, a multiple of 8
    uint32_t have                   # bytes that came, each counted once
    uint32_t length                 # bytes of the whole; 0: the last piece is not here yet
    uint32_t reach                  # end of the farthest piece
    uint32_t header                 # bytes of IP header before the payload, from the piece that came first
    uint32_t protocol               # next header, from the same; IPv6: from the one at the beginning, once that is here
    int32_t hash_next               # chain of its bucket, -1 at the end; of the free list when not in use
    int32_t older                   # list by age
    int32_t newer


cdef struct Fragments:
    Partial* slots                  # (MAX_DATAGRAMS,), allocated with the first fragment
    int32_t* buckets                # (MAX_DATAGRAMS,)
    int32_t free
    int32_t oldest
    int32_t newest
    uint32_t held                   # datagrams in the making
    uint64_t held_bytes
    uint8_t* whole                  # the last reassembled payload, lent out until the next completes
    uint64_t reassembled
    uint64_t abandoned              # datagrams given up: too old, pushed out, or contradictory


cdef struct Piece:
    const uint8_t* src              # 4 or 16 bytes each
    const uint8_t* dst
    uint32_t version
    uint32_t identification
    uint32_t protocol
    uint32_t offset                 # bytes, a multiple of 8
    bint more
    uint32_t header                 # bytes of IP header (without the fragment header)
    const uint8_t* data
    uint32_t length
    int64_t time_ns


cdef struct Whole:
    const uint8_t* data             # valid until the next piece that completes
    uint32_t length
    uint32_t header
    uint32_t protocol


cdef int add_piece(Fragments* f, const Piece* piece, Whole* whole) noexcept nogil
cdef void free_fragments(Fragments* f) noexcept nogil
