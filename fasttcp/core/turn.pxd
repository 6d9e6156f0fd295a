# Who is in a table: one caller at a time, the others in the order in which they came. See turn.pyx.
#
# Every function is called with the GIL held; the members change under the GIL only.

cdef struct Waiter:                 # on the stack of the thread that waits
    void *lock                      # PyThread_type_lock, held until the turn is handed over
    unsigned long thread
    Waiter *next

cdef struct Turn:
    bint taken                      # somebody is inside, perhaps without the GIL
    unsigned long owner             # who: PyThread_get_thread_ident()
    Waiter *first                   # NULL while nobody waits
    Waiter *last

cdef int turn_queue(Turn *turn) except -1
cdef void turn_give(Turn *turn) noexcept

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()


cdef inline int turn_take(Turn *turn) except -1:
    """Wait for the turn and keep it until turn_give: for calls that let go of the GIL."""
    if turn.taken:
        return turn_queue(turn)
    turn.taken = True
    turn.owner = PyThread_get_thread_ident()
    return 0


cdef inline int turn_wait(Turn *turn) except -1:
    """Wait until nobody is inside. It stays so until the caller lets go of the GIL: no Python code may run before the
    caller is through."""
    if turn.taken:
        turn_queue(turn)
        turn_give(turn)             # whoever is next cannot move without the GIL
    return 0
