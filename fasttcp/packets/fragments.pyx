# Reassembly of IPv4 and IPv6 fragments (RFC 791 section 3.2, RFC 8200 section 4.5) in bounded memory.
#
# This file knows fragments, not packets: what comes in are pieces of a payload with a key, what goes out is the
# payload.
#
# Workload assumed: fragments are rare, most datagrams have two to five, and a hostile capture is made of nothing else.
# So: 1,024 datagrams at most, 16 MiB at most, a hash chain to find them, a list by age to give up the oldest. A piece
# costs its bytes plus one bit for each.
#
# What does not fit together is put together as Zeek does it (src/Frag.cc), so that both see the same datagram. Where
# pieces overlap, the bytes that came first stay (RFC 5722 would discard the datagram, which is the receiver's right,
# not the observer's). Of two lengths the larger counts; bytes behind a hole that came before the last piece do not. The
# header is that of the piece that came first, and the protocol is not part of the key. A datagram is given up 5 minutes
# after its first piece, by the capture's own clock, and when memory is short.
#
# Invariants: held <= MAX_DATAGRAMS; held_bytes is what is allocated at `data` and `seen` and never above
# MAX_HELD_BYTES; every slot is either in one bucket and in the age list, or in the free list.

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

cdef int64_t LIFETIME_NS = 300 * 1_000_000_000


cdef uint32_t _bucket(const uint8_t* key) noexcept nogil:
    """FNV-1a. Colliding keys only lengthen a chain, and a chain is at most MAX_DATAGRAMS long."""
    cdef uint32_t h = 2166136261
    cdef uint32_t i
    for i in range(40):
        h = (h ^ key[i]) * 16777619
    return (h ^ (h >> 15)) % MAX_DATAGRAMS


cdef bint _begin(Fragments* f) noexcept nogil:
    cdef int32_t i
    f.slots = <Partial*>calloc(MAX_DATAGRAMS, sizeof(Partial))
    f.buckets = <int32_t*>malloc(MAX_DATAGRAMS * sizeof(int32_t))
    if f.slots == NULL or f.buckets == NULL:
        free(f.slots)
        free(f.buckets)
        f.slots = NULL
        f.buckets = NULL
        return False
    for i in range(MAX_DATAGRAMS):
        f.buckets[i] = -1
        f.slots[i].hash_next = i + 1 if i + 1 < MAX_DATAGRAMS else -1
    f.free = 0
    f.oldest = f.newest = -1
    return True


cdef uint32_t _cost(uint32_t room) noexcept nogil:
    return room + room // 8


cdef void _unlink(Fragments* f, int32_t i) noexcept nogil:
    """Takes slot i out of its chain and the age list; its memory is given back unless the caller took it."""
    cdef Partial* slot = &f.slots[i]
    cdef int32_t* link = &f.buckets[_bucket(slot.key)]
    while link[0] != i:
        link = &f.slots[link[0]].hash_next
    link[0] = slot.hash_next
    if slot.older >= 0:
        f.slots[slot.older].newer = slot.newer
    else:
        f.oldest = slot.newer
    if slot.newer >= 0:
        f.slots[slot.newer].older = slot.older
    else:
        f.newest = slot.older
    f.held -= 1
    f.held_bytes -= _cost(slot.room)
    free(slot.data)
    free(slot.seen)
    memset(slot, 0, sizeof(Partial))
    slot.hash_next = f.free
    f.free = i


cdef void _abandon(Fragments* f, int32_t i) noexcept nogil:
    f.abandoned += 1
    _unlink(f, i)


cdef int32_t _find(Fragments* f, const uint8_t* key) noexcept nogil:
    cdef int32_t i = f.buckets[_bucket(key)]
    while i >= 0 and memcmp(f.slots[i].key, key, 40) != 0:
        i = f.slots[i].hash_next
    return i


cdef int32_t _insert(Fragments* f, const uint8_t* key, int64_t time_ns) noexcept nogil:
    if f.free < 0:
        _abandon(f, f.oldest)
    cdef int32_t i = f.free
    cdef Partial* slot = &f.slots[i]
    cdef uint32_t bucket = _bucket(key)
    f.free = slot.hash_next
    memset(slot, 0, sizeof(Partial))
    memcpy(slot.key, key, 40)
    slot.began_ns = time_ns
    slot.hash_next = f.buckets[bucket]
    f.buckets[bucket] = i
    slot.newer = -1
    slot.older = f.newest
    if f.newest >= 0:
        f.slots[f.newest].newer = i
    else:
        f.oldest = i
    f.newest = i
    f.held += 1
    return i


cdef bint _make_room(Fragments* f, int32_t i, uint32_t wanted) noexcept nogil:
    """Grows the memory of slot i, at the cost of older datagrams if need be."""
    cdef Partial* slot = &f.slots[i]
    cdef uint32_t room = slot.room if slot.room else 2048
    cdef uint8_t* data
    cdef uint8_t* seen
    while room < wanted:
        room *= 2
    if room == slot.room:
        return True
    while f.held_bytes - _cost(slot.room) + _cost(room) > MAX_HELD_BYTES:
        if f.oldest != i:
            _abandon(f, f.oldest)
        elif slot.newer >= 0:
            _abandon(f, slot.newer)
        else:
            return False        # alone and still too large: cannot be while MAX_HELD_BYTES > MAX_DATAGRAM
    data = <uint8_t*>realloc(slot.data, room)
    if data == NULL:
        return False
    slot.data = data
    seen = <uint8_t*>realloc(slot.seen, room // 8)
    if seen == NULL:
        return False
    slot.seen = seen
    memset(seen + slot.room // 8, 0, (room - slot.room) // 8)
    f.held_bytes += _cost(room) - _cost(slot.room)
    slot.room = room
    return True


cdef void _copy_new(Partial* slot, const Piece* piece) noexcept nogil:
    """Copies those bytes that have not come before. Every piece begins on a multiple of 8."""
    cdef uint32_t at = 0
    cdef uint32_t unit
    cdef uint32_t n
    cdef uint32_t wanted
    cdef uint32_t i
    while at < piece.length:
        unit = (piece.offset + at) >> 3
        n = min(8, piece.length - at)
        wanted = ((1 << n) - 1) & ~<uint32_t>slot.seen[unit]
        slot.seen[unit] |= <uint8_t>wanted
        if wanted == 0xFF:
            memcpy(slot.data + piece.offset + at, piece.data + at, 8)
            slot.have += 8
        else:
            for i in range(n):
                if wanted >> i & 1:
                    slot.data[piece.offset + at + i] = piece.data[at + i]
                    slot.have += 1
        at += 8


cdef uint32_t _without_hole(const Partial* slot) noexcept nogil:
    """Bytes from the beginning on that are all here."""
    cdef uint32_t unit = 0
    cdef uint32_t n
    if slot.have == slot.reach:
        return slot.reach
    while unit < slot.room // 8 and slot.seen[unit] == 0xFF:
        unit += 1
    n = unit * 8
    while n < slot.room and slot.seen[n >> 3] >> (n & 7) & 1:
        n += 1
    return n


cdef int add_piece(Fragments* f, const Piece* piece, Whole* whole) noexcept nogil:
    """Takes one piece. PIECE_COMPLETES: `whole` is the payload. PIECE_HELD: more to come. PIECE_REFUSED: useless."""
    cdef uint8_t key[40]
    cdef uint32_t width = 4 if piece.version == 4 else 16
    cdef uint32_t end = piece.offset + piece.length
    cdef uint32_t here
    cdef int32_t i
    cdef Partial* slot
    if end > MAX_DATAGRAM:
        return PIECE_REFUSED
    if f.slots == NULL and not _begin(f):
        return PIECE_REFUSED
    memset(key, 0, 40)
    key[0] = <uint8_t>piece.version
    memcpy(key + 4, &piece.identification, 4)
    memcpy(key + 8, piece.src, width)
    memcpy(key + 24, piece.dst, width)

    i = _find(f, key)
    if i >= 0 and piece.time_ns - f.slots[i].began_ns >= LIFETIME_NS:
        _abandon(f, i)
        i = -1
    if i < 0:
        i = _insert(f, key, piece.time_ns)
        f.slots[i].header = piece.header
        f.slots[i].protocol = piece.protocol
    slot = &f.slots[i]
    if piece.offset == 0 and piece.version == 6:
        slot.protocol = piece.protocol
    if not piece.more or slot.length:
        slot.length = max(slot.length, end)
    if piece.length == 0:
        return PIECE_HELD
    if not _make_room(f, i, end):
        _abandon(f, i)
        return PIECE_REFUSED
    slot.reach = max(slot.reach, end)
    _copy_new(slot, piece)
    if slot.length == 0 or slot.have < slot.length:
        return PIECE_HELD
    here = _without_hole(slot)
    if here < slot.length:
        return PIECE_HELD
    slot.length = here

    # `piece` may lie in the old whole (a fragmented tunnel of fragments), so that is let go only now.
    free(f.whole)
    f.whole = slot.data
    whole.data = slot.data
    whole.length = slot.length
    whole.header = slot.header
    whole.protocol = slot.protocol
    slot.data = NULL                    # _unlink must not free what is lent out
    _unlink(f, i)
    f.reassembled += 1
    return PIECE_COMPLETES


cdef void free_fragments(Fragments* f) noexcept nogil:
    cdef int32_t i
    if f.slots != NULL:
        for i in range(MAX_DATAGRAMS):
            free(f.slots[i].data)
            free(f.slots[i].seen)
    free(f.slots)
    free(f.buckets)
    free(f.whole)
    memset(f, 0, sizeof(Fragments))
