# Addresses as text without Python: 16 bytes in, at most 39 characters out.

from libc.stdint cimport uint8_t

cdef int address_text(const uint8_t *packed, char *out) noexcept nogil      # how many characters, no zero behind them
