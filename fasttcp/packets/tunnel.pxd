# Tunnel headers off; see tunnel.pyx.

from libc.stdint cimport uint32_t

from fasttcp.packets.layers cimport Datagram, Decoder


cdef enum:
    PROTOCOL_IPIP = 4
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    PROTOCOL_6IN4 = 41
    PROTOCOL_GRE = 47

# Moves g.payload past the tunnel's header and returns the kind of what is inside (layers.pxd), or STOP | verdict.
cdef uint32_t open_tunnel(Decoder* d, Datagram* g) noexcept nogil
