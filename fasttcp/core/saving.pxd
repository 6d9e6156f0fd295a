# An engine of either seat as sections of a saved table, and back. See saving.pyx.

from fasttcp.core.seat cimport Engine
from fasttcp.core.snapshot cimport SnapshotReader
from fasttcp.core.summary cimport EndLog
from fasttcp.core.tcb cimport Endpoint

cdef dict saved_head(const Engine *engine, const EndLog *ended)
cdef int check_head(dict head) except -1
cdef int save_engine(const Engine *engine, const EndLog *ended, write) except -1
cdef int load_engine(Engine *engine, EndLog *ended, bint keep_ended, SnapshotReader reader) except -1

cdef dict saved_endpoint_head(const Endpoint *e)
cdef int save_output(const Endpoint *e, write) except -1
cdef int load_endpoint(Endpoint *e, SnapshotReader reader) except -1
