# uring.h for cimport.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "uring.h" nogil:
    enum:
        URING_MOST                      # packets of one call

    ctypedef struct UringPacket:
        const uint8_t *at
        uint32_t n
        int32_t done                    # bytes written, or -errno

    ctypedef struct Uring:
        bint there                      # it is open

    int uring_open(Uring *u, int file) noexcept             # 0, or an errno
    uint64_t uring_write(Uring *u, UringPacket *packet, uint32_t n) noexcept     # in this order; how many system calls
    void uring_close(Uring *u) noexcept                     # also of one that was never opened, if it is all zeros
