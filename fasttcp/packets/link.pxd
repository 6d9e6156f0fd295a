# Link layers down to an IP header; see link.pyx.

from libc.stdint cimport uint32_t

from fasttcp.packets.layers cimport Cursor, Decoder


cdef enum:
    LINKTYPE_NULL = 0
    LINKTYPE_ETHERNET = 1
    LINKTYPE_PPP = 9
    LINKTYPE_FDDI = 10
    LINKTYPE_RAW_12 = 12            # what some systems wrote for 101
    LINKTYPE_RAW_14 = 14
    LINKTYPE_PPP_HDLC = 50
    LINKTYPE_PPP_ETHER = 51
    LINKTYPE_RAW = 101
    LINKTYPE_C_HDLC = 104
    LINKTYPE_IEEE802_11 = 105
    LINKTYPE_LOOP = 108
    LINKTYPE_LINUX_SLL = 113
    LINKTYPE_IEEE802_11_PRISM = 119
    LINKTYPE_IEEE802_11_RADIOTAP = 127
    LINKTYPE_IEEE802_11_AVS = 163
    LINKTYPE_PPI = 192
    LINKTYPE_IPV4 = 228
    LINKTYPE_IPV6 = 229
    LINKTYPE_NFLOG = 239
    LINKTYPE_LINUX_SLL2 = 276


cdef bint link_is_known(uint32_t linktype) noexcept nogil

# Moves `c` to an IP header and returns 0, or returns the verdict.
cdef int find_ip(Decoder* d, uint32_t kind, Cursor* c) noexcept nogil
