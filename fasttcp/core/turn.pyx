"""The thread rule of a table: one caller at a time, first come, first served.

What must stand here: who may go in, and waiting. What must not: what they do there.

While the GIL is held a call is whole anyway. Only calls that let go of it, a batch or a long scan, take the turn;
others wait until it is free. A turn is handed over to the one who has waited longest, never thrown up in the air: a
thread that sends batch after batch cannot keep a second one out.

Invariants: whoever has taken the turn gives it back before it returns, and nothing that can fail stands between;
there are waiters only while the turn is taken.

Cost: one branch where nobody else is inside; else a lock of the system.

A process that forks while another thread is inside a table must not use that table in the child: nobody would ever
give the turn back, and the rows may be half written.
"""

from fasttcp.errors import StateError

cdef extern from "pythread.h" nogil:
    void *PyThread_allocate_lock()
    void PyThread_free_lock(void *lock)
    int PyThread_acquire_lock(void *lock, int wait)
    void PyThread_release_lock(void *lock)


cdef int turn_queue(Turn *turn) except -1:
    """Wait, without the GIL, until the turn is handed to this thread. StateError when it has the turn already."""
    cdef Waiter me
    me.thread = PyThread_get_thread_ident()
    me.next = NULL
    if turn.owner == me.thread:     # a signal handler or a finalizer, in the middle of a call of its own thread
        raise StateError("this table is in the middle of another call of the same thread")
    me.lock = PyThread_allocate_lock()
    if me.lock == NULL:
        raise MemoryError("no memory for a lock to wait on")
    PyThread_acquire_lock(me.lock, 1)
    if turn.first == NULL:
        turn.first = &me
    else:
        turn.last.next = &me
    turn.last = &me
    with nogil:
        PyThread_acquire_lock(me.lock, 1)
    PyThread_release_lock(me.lock)
    PyThread_free_lock(me.lock)
    return 0


cdef void turn_give(Turn *turn) noexcept:
    """Hand the turn to the one who has waited longest, or leave the table empty."""
    cdef Waiter *next = turn.first
    if next == NULL:
        turn.taken = False
        return
    turn.first = next.next
    turn.owner = next.thread
    PyThread_release_lock(next.lock)        # from here on `next` may be gone
