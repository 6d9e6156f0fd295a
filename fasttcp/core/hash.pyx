"""The keyed hash of a connection's name.

What must stand here: how addresses and ports become a key, and the key a number. What must not: buckets, rows in
memory, any source of randomness (the secret is passed in).

    IPv4   x = address << 16 | port of side 0, y the same of side 1           48 bits each
    IPv6   the two addresses, 32 bytes, are hashed to 64 bits first; their halves then stand for the two addresses

    hash = stir( (a * x + b * y + c mod 2^128) >> 64 )                        a, b, c: 128 secret bits each

The part before `stir` is multiply-shift for vectors (Dietzfelbinger, "Universal hashing and k-wise independent random
variables via integer arithmetic without primes", STACS 1996; Thorup, "High speed hashing for integers and strings",
2015): strongly universal, that is, over the choice of a, b, c any two different keys get independent, uniform 64-bit
values. `stir` is a bijection, so the same is true of whatever bits the index takes from it. Whoever chooses keys without
having seen hashes can therefore do no better than chance; `stir` also breaks up what is left of arithmetic progressions
(addresses and ports count upwards), which the products alone would keep.

The 16 secret words are drawn from a secret of 256 bits by ChaCha20 (RFC 8439), so that what is proved for random a, b,
c holds here as far as nobody can tell ChaCha20 from chance.

Cost: four multiplications and a fifth for `stir`, about 1.5 ns; IPv6 eight more. A product of two sums, one
multiplication less, takes more instructions: its sums carry. The order of the sides is found without a branch for IPv4.

The order of the sides is that of the addresses as numbers, then ports: it depends neither on the secret nor on the
machine.
"""


cdef inline uint32_t _rotate(uint32_t x, int n) noexcept nogil:
    return x << n | x >> (32 - n)


cdef inline void _quarter(uint32_t *s, int a, int b, int c, int d) noexcept nogil:
    s[a] += s[b]
    s[d] = _rotate(s[d] ^ s[a], 16)
    s[c] += s[d]
    s[b] = _rotate(s[b] ^ s[c], 12)
    s[a] += s[b]
    s[d] = _rotate(s[d] ^ s[a], 8)
    s[c] += s[d]
    s[b] = _rotate(s[b] ^ s[c], 7)


cdef void chacha_block(uint32_t *out, const uint32_t *state) noexcept nogil:
    """The ChaCha20 block function: RFC 8439 section 2.3."""
    cdef int i, _
    for i in range(16):
        out[i] = state[i]
    for _ in range(10):
        _quarter(out, 0, 4, 8, 12)
        _quarter(out, 1, 5, 9, 13)
        _quarter(out, 2, 6, 10, 14)
        _quarter(out, 3, 7, 11, 15)
        _quarter(out, 0, 5, 10, 15)
        _quarter(out, 1, 6, 11, 12)
        _quarter(out, 2, 7, 8, 13)
        _quarter(out, 3, 4, 9, 14)
    for i in range(16):
        out[i] += state[i]


cdef void hash_expand(HashKey *h, const uint64_t *secret) noexcept nogil:
    """The multipliers that belong to a secret of four words: ChaCha20 blocks 0 and 1 under it, with a nonce of zero."""
    cdef uint32_t state[16]
    cdef uint32_t stream[32]
    cdef uint64_t word[16]
    cdef int i
    state[0] = 0x61707865       # "expand 32-byte k", RFC 8439 section 2.3
    state[1] = 0x3320646E
    state[2] = 0x79622D32
    state[3] = 0x6B206574
    for i in range(4):
        state[4 + 2 * i] = <uint32_t>secret[i]
        state[5 + 2 * i] = <uint32_t>(secret[i] >> 32)
    for i in range(12, 16):
        state[i] = 0
    chacha_block(stream, state)
    state[12] = 1
    chacha_block(stream + 16, state)
    for i in range(16):
        word[i] = <uint64_t>stream[2 * i + 1] << 32 | stream[2 * i]
    for i in range(2):
        h.ends[i].lo = word[2 * i]
        h.ends[i].hi = word[2 * i + 1]
    h.plus.lo = word[4]
    h.plus.hi = word[5]
    for i in range(4):
        h.wide[i].lo = word[6 + 2 * i]
        h.wide[i].hi = word[7 + 2 * i]
    h.wide_plus.lo = word[14]
    h.wide_plus.hi = word[15]
