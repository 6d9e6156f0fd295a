# A Profile of fasttcp/profiles.py as the compiled endpoint reads it: the same names, times in nanoseconds.
#
# Must not live here: defaults, ranges, meanings. They stand in profiles.py; this is a copy in C of one profile's
# values.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fasttcp.core.layout cimport ns_t

cdef enum:
    NO_LIMIT = 0xFFFFFFFF       # of a count: the profile says None

cdef enum:                      # time_wait_syn_reopens
    REOPEN_NEVER = 0
    REOPEN_SEQ = 1
    REOPEN_SEQ_OR_TIMESTAMP = 2

cdef struct Policy:
    # closing
    ns_t     time_wait_ns               # 2MSL
    ns_t     tcp_fin_timeout_ns         # 0: for ever
    ns_t     tcp_tw_reuse_delay_ns
    uint32_t tcp_max_tw_buckets         # NO_LIMIT: none
    uint32_t tcp_max_orphans
    uint8_t  tcp_tw_reuse               # 0, 1, 2
    uint8_t  tcp_tw_recycle
    uint8_t  tcp_rfc1337
    uint8_t  time_wait_syn_reopens      # REOPEN_...
    # retransmission
    uint32_t rto_initial_us
    uint32_t rto_min_us
    uint32_t rto_max_us
    ns_t     syn_retry_after_bad_ack_ns  # 0: none
    uint8_t  tcp_syn_retries
    uint8_t  tcp_syn_linear_timeouts
    uint8_t  tcp_synack_retries
    uint8_t  tcp_retries2
    uint8_t  orphan_retries
    uint8_t  retries_are_time
    uint8_t  rto_min_bounds_variance
    # keepalive
    uint8_t  so_keepalive
    uint8_t  tcp_keepalive_probes
    ns_t     tcp_keepalive_time_ns
    ns_t     tcp_keepalive_intvl_ns
    # listening
    uint32_t tcp_max_syn_backlog
    uint32_t somaxconn
    uint8_t  tcp_syncookies             # 0, 1, 2
    uint8_t  tcp_abort_on_overflow
    # options and windows
    uint8_t  tcp_timestamps             # 0, 1, 2
    uint8_t  tcp_window_scaling
    uint8_t  tcp_sack
    uint8_t  rcv_wscale
    uint32_t rcv_wnd
    ns_t     timestamp_tick_ns
    ns_t     paws_idle_ns
    uint16_t mss_default[2]             # [0] IPv4, [1] IPv6
    uint16_t advmss[2]
    # segments that do not fit
    uint8_t  rfc5961
    uint8_t  rst_after_fin_at_rcv_nxt_minus_1
    ns_t     tcp_invalid_ratelimit_ns
    uint32_t tcp_challenge_ack_limit    # a second; NO_LIMIT: none
    # ports and sequence numbers
    uint16_t port_first
    uint16_t port_last
    uint8_t  any_reserved
    uint8_t  even_first                 # port_choice
    uint64_t reserved[1024]             # one bit a port
    ns_t     iss_tick_ns

# (0, or the error of a profile that lacks a name)
cdef int policy_compile(Policy *p, object profile) except -1


cdef inline bint port_reserved(const Policy *p, uint16_t port) noexcept nogil:
    return p.any_reserved and (p.reserved[port >> 6] >> (port & 63)) & 1
