# Connections as Arrow columns; see columns.pyx.

from fasttcp.observe.tracker cimport Tracker

cdef class EntryStream:
    cdef Tracker tracker
    cdef object steps           # an iterator: each step may make entries
    cdef list fields
    cdef bint taken
