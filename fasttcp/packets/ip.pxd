# IP headers off; see ip.pyx.

from libc.stdint cimport int64_t

from fasttcp.packets.layers cimport Cursor, Datagram, Decoder

# `c` stands at an IP header. 0: `g` says what it carries; else the verdict.
cdef int read_ip(Decoder* d, const Cursor* c, int64_t time_ns, Datagram* g) noexcept nogil
