# Helper threads for work that needs no GIL: the same function once for each part, all at the same time. See crew.pyx.

ctypedef void (*work_t)(void *context, int part) noexcept nogil

cdef struct Post:                   # what one helper waits for; on the heap, freed by the helper
    void   *go                      # PyThread_type_lock, released when there is work
    void   *done                    # released when it is done
    work_t  work                    # NULL: go home
    void   *context
    int     part

cdef class Crew:
    cdef int size                   # parts of a piece of work, the caller's own included
    cdef Post **posts               # (size - 1,)
    cdef list threads

cdef Crew crew_hire(int size)
cdef int crew_ready(Crew crew) except -1                                    # with the GIL, before each crew_run
cdef void crew_run(Crew crew, work_t work, void *context) noexcept nogil    # returns when all parts are done
