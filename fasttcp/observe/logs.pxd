# Lines of a log out of entries; see logs.pyx.

from libc.stdint cimport uint8_t

from fasttcp.observe.page cimport Entry
from fasttcp.observe.text cimport Text

cdef enum:
    MAX_FIELDS = 64

cdef enum:                      # in the order of FORMATS
    FORMAT_TABLE
    FORMAT_ZEEK
    FORMAT_JSON
    FORMAT_CSV

cdef enum:                      # in the order of FIELDS
    F_TS
    F_UID
    F_ORIG_H
    F_ORIG_P
    F_RESP_H
    F_RESP_P
    F_PROTO
    F_SERVICE
    F_DURATION
    F_ORIG_BYTES
    F_RESP_BYTES
    F_CONN_STATE
    F_LOCAL_ORIG
    F_LOCAL_RESP
    F_MISSED
    F_HISTORY
    F_ORIG_PKTS
    F_ORIG_IP_BYTES
    F_RESP_PKTS
    F_RESP_IP_BYTES
    F_TUNNEL
    F_IP_PROTO
    F_COMMUNITY
    F_ORIG_STATE
    F_RESP_STATE
    F_RTT
    F_ORIG_REXMIT
    F_RESP_REXMIT
    F_END
    F_ORIGINATOR
    F_RESPONDER
    N_FIELDS

cdef enum:                      # how a value is found and written
    K_UNSET
    K_COUNT                     # a number of 64 bits that stands in the entry
    K_COUNT_32
    K_PORT
    K_SIZE                      # unset without a duration
    K_TIME
    K_ADDRESS
    K_WORD                      # a number of 8 bits, an index into words
    K_OTHER

cdef struct Layout:
    int      format
    int      n
    int      histories          # how many of the fields are histories, which have no bound of their own
    uint8_t  field[64]
    bint     is_zeek            # Zeek's log with the fields that it has when none are chosen

cdef void put_entry(Text *t, const Layout *layout, const Entry *e) noexcept nogil
cdef int layout_open(Layout *layout, str form, fields) except -1
cdef char *write_field(char *p, int field, const Entry *e) noexcept nogil
cdef int field_kind(int field) noexcept
cdef size_t field_place(int field) noexcept
