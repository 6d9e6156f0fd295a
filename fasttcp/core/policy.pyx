"""Copies a Profile into the C struct that the endpoint reads. It decides nothing."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset


cdef uint32_t _count(object value) except? 0xFFFFFFFF:
    return NO_LIMIT if value is None else value


cdef uint32_t _microseconds(object ns) except? 0:
    """Rounded up, so that a time that is not zero stays so; an hour, the longest the profile allows, fits."""
    return (ns + 999) // 1000


cdef int policy_compile(Policy *p, object profile) except -1:
    memset(p, 0, sizeof(Policy))
    p.time_wait_ns = profile.time_wait_ns
    p.tcp_fin_timeout_ns = profile.tcp_fin_timeout_ns or 0
    p.tcp_tw_reuse_delay_ns = profile.tcp_tw_reuse_delay_ns
    p.tcp_max_tw_buckets = _count(profile.tcp_max_tw_buckets)
    p.tcp_max_orphans = _count(profile.tcp_max_orphans)
    p.tcp_tw_reuse = profile.tcp_tw_reuse
    p.tcp_tw_recycle = profile.tcp_tw_recycle
    p.tcp_rfc1337 = profile.tcp_rfc1337
    p.time_wait_syn_reopens = ("never", "seq", "seq_or_timestamp").index(profile.time_wait_syn_reopens)
    p.rto_initial_us = _microseconds(profile.rto_initial_ns)
    p.rto_min_us = _microseconds(profile.rto_min_ns)
    p.rto_max_us = _microseconds(profile.rto_max_ns)
    p.syn_retry_after_bad_ack_ns = profile.syn_retry_after_bad_ack_ns or 0
    p.tcp_syn_retries = profile.tcp_syn_retries
    p.tcp_syn_linear_timeouts = profile.tcp_syn_linear_timeouts
    p.tcp_synack_retries = profile.tcp_synack_retries
    p.tcp_retries2 = profile.tcp_retries2
    p.orphan_retries = profile.orphan_retries
    p.retries_are_time = profile.retries_are_time
    p.rto_min_bounds_variance = profile.rto_min_bounds_variance
    p.so_keepalive = profile.so_keepalive
    p.tcp_keepalive_probes = profile.tcp_keepalive_probes
    p.tcp_keepalive_time_ns = profile.tcp_keepalive_time_ns
    p.tcp_keepalive_intvl_ns = profile.tcp_keepalive_intvl_ns
    p.tcp_max_syn_backlog = _count(profile.tcp_max_syn_backlog)
    p.somaxconn = _count(profile.somaxconn)
    p.tcp_syncookies = profile.tcp_syncookies
    p.tcp_abort_on_overflow = profile.tcp_abort_on_overflow
    p.tcp_timestamps = profile.tcp_timestamps
    p.tcp_window_scaling = profile.tcp_window_scaling
    p.tcp_sack = profile.tcp_sack
    p.rcv_wscale = profile.rcv_wscale
    p.rcv_wnd = profile.rcv_wnd
    p.timestamp_tick_ns = profile.timestamp_tick_ns
    p.paws_idle_ns = profile.paws_idle_ns
    p.mss_default[0] = profile.mss_default_v4
    p.mss_default[1] = profile.mss_default_v6
    p.advmss[0] = profile.advmss_v4
    p.advmss[1] = profile.advmss_v6
    p.rfc5961 = profile.rfc5961
    p.rst_after_fin_at_rcv_nxt_minus_1 = profile.rst_after_fin_at_rcv_nxt_minus_1
    p.tcp_invalid_ratelimit_ns = profile.tcp_invalid_ratelimit_ns
    p.tcp_challenge_ack_limit = _count(profile.tcp_challenge_ack_limit)
    p.port_first, p.port_last = profile.ip_local_port_range
    p.even_first = profile.port_choice == "even_first"
    for port in profile.ip_local_reserved_ports:
        p.any_reserved = 1
        p.reserved[port >> 6] |= <uint64_t>1 << (port & 63)
    p.iss_tick_ns = profile.iss_tick_ns
    return 0
