"""How a table is opened: a seed and a profile become an engine of either seat, whole or not at all.

What must stand here: what each argument of a table and each parameter of a profile becomes in an engine. What must not: a call
on a table that is open.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from fasttcp.core.address cimport whole
from fasttcp.core.endings cimport endlog_endpoint
from fasttcp.core.endpoint cimport endpoint_fini, endpoint_init
from fasttcp.core.layout cimport INFO_BAD_CHECKSUM, INFO_BAD_HEADER, Observed
from fasttcp.core.seat cimport Engine
from fasttcp.core.store cimport SEAT_ENDPOINT, SEAT_OBSERVER, STORE_EVICT, store_close, store_open, store_set_horizon
from fasttcp.core.summary cimport EndLog, endlog_observed
from fasttcp.core.tap cimport Observer
from fasttcp.core.tcb cimport Endpoint, EndpointCold
from fasttcp.core.trace cimport trace_close, trace_open
from fasttcp.core.wheel cimport TIMEOUT_TICKS

import os

from fasttcp.core.silence import silence_ns
from fasttcp.errors import ProfileError

__all__: list[str] = []


cdef bytes secret_from(seed):
    """32 secret bytes: from the system, or from the seed by BLAKE2 so that neighbouring seeds have nothing in
    common."""
    if seed is None:
        return os.urandom(32)
    import hashlib      # not at the top: 3 ms that only a seed and the endpoint seat need

    return hashlib.blake2b(str(whole("seed", seed, -(1 << 63), (1 << 64) - 1)).encode(), digest_size=32).digest()


cdef dict layout_from(capacity, max_capacity, profile, on_full, tick_ns, trace, accept_all, read_all, output_limit, int flags):
    """What an engine is to be like, every argument checked."""
    if on_full not in ("raise", "evict"):
        raise ValueError(f"on_full is {on_full!r}; it can be 'raise' or 'evict'")
    capacity = whole("capacity", capacity, 1, 1 << 31)
    return {
        "capacity": capacity,
        "max_capacity": whole("max_capacity", max_capacity, capacity, 1 << 31),
        "tick_ns": whole("tick_ns", tick_ns, 1, 10**12),
        "trace": whole("trace", trace, 0, 1 << 32),
        "evict": on_full == "evict",
        "horizon_ns": profile.time_wait_ns,
        "accept_all": bool(accept_all),
        "read_all": bool(read_all),
        "output_limit": whole("output_limit", output_limit, 1, 1 << 40),
        "flags": flags,
    }


cdef list _ticks(times, tick_ns):
    """Time-outs in whole ticks, rounded up: never early."""
    ticks = [-(-ns // tick_ns) for ns in times]
    if max(ticks) > TIMEOUT_TICKS:
        raise ProfileError(
            f"a time-out of {max(times)} ns is {max(ticks)} ticks of {tick_ns} ns: the wheel reaches {TIMEOUT_TICKS}; "
            "use a larger tick_ns"
        )
    return ticks


cdef int open_store(Engine *engine, int seat, dict layout, const char *secret) except -1:
    """The parts that both seats stand on, with checked sizes; on failure nothing is left behind."""
    cdef uint64_t words[4]
    memcpy(words, secret, 32)
    try:
        store_open(
            &engine.table, seat, layout["capacity"], layout["max_capacity"],
            sizeof(Observed) if seat == SEAT_OBSERVER else sizeof(EndpointCold), layout["tick_ns"], words,
            layout["flags"] | (STORE_EVICT if layout["evict"] else 0),
        )
        store_set_horizon(&engine.table, layout["horizon_ns"])
        trace_open(&engine.trace, layout["trace"])
    except BaseException:
        store_close(&engine.table)
        raise
    return 0


cdef Observer *open_observer(profile, dict layout, bytes secret, EndLog *ended) except NULL:
    cdef Observer *observer
    cdef int i
    ticks = _ticks(silence_ns(profile), layout["tick_ns"])
    observer = <Observer *>calloc(1, sizeof(Observer))
    if observer == NULL:
        raise MemoryError("no memory for a table")
    try:
        open_store(&observer.engine, SEAT_OBSERVER, layout, secret)
    except BaseException:
        free(observer)
        raise
    observer.evict = layout["evict"]
    observer.pick_up = 1 if profile.nf_conntrack_tcp_loose else 0
    observer.any_rst = not profile.observer_rst_in_window
    observer.any_isn = profile.observer_reuse == "isn"
    observer.void_info = INFO_BAD_HEADER | (0 if profile.ignore_checksums else INFO_BAD_CHECKSUM)
    observer.twin_ns = profile.observer_duplicate_window_ns or 0
    for i in range(256):
        observer.timeout[i] = ticks[i]
    if ended != NULL:
        observer.watch.context = ended
        observer.watch.ended = endlog_observed
    return observer


cdef Endpoint *open_endpoint(profile, dict layout, bytes secret, EndLog *ended) except NULL:
    cdef Endpoint *endpoint
    cdef uint64_t words[2]
    import hashlib

    # What goes on the wire must tell nothing of the index's secret.
    cdef bytes other = hashlib.blake2b(secret, digest_size=16, person=b"endpoint").digest()
    memcpy(words, <const char *>other, 16)
    _ticks((
        profile.time_wait_ns, profile.tcp_fin_timeout_ns or 0, profile.rto_max_ns, profile.tcp_keepalive_time_ns,
        profile.tcp_keepalive_intvl_ns,
    ), layout["tick_ns"])
    endpoint = <Endpoint *>calloc(1, sizeof(Endpoint))
    if endpoint == NULL:
        raise MemoryError("no memory for a table")
    try:
        endpoint_init(endpoint, profile, words, layout["output_limit"])
        open_store(&endpoint.engine, SEAT_ENDPOINT, layout, secret)
    except BaseException:
        endpoint_fini(endpoint)
        free(endpoint)
        raise
    endpoint.evict = layout["evict"]
    endpoint.auto_accept = layout["accept_all"]
    endpoint.auto_read = layout["read_all"]
    if ended != NULL:
        endpoint.watch.context = ended
        endpoint.watch.ended = endlog_endpoint
    return endpoint


cdef void close_engine(Observer *observer, Endpoint *endpoint) noexcept:
    """Free whichever of the two was opened."""
    cdef Engine *engine = &observer.engine if observer != NULL else &endpoint.engine if endpoint != NULL else NULL
    if engine != NULL:
        trace_close(&engine.trace)
        store_close(&engine.table)
    if endpoint != NULL:
        endpoint_fini(endpoint)
    free(observer)
    free(endpoint)
