"""Helper threads that wait without the GIL.

What must stand here: handing out work and waiting for it. What must not: what the work is.

A helper is a Python thread, so that the interpreter knows of it, which spends its life in one call that holds no GIL: it waits
on a lock, does its part, releases another lock, waits again; nothing else of Python is touched. To wake a thread that sleeps
takes up to 50 us on a virtual machine, and more where the machine below has given the idle processor to somebody else. So
whoever waits looks for some 150 us first whether it is his turn: from one step of a batch to the next, and from one call to
the next of a program that does little between them, it takes no longer.

The caller does part 0 itself. One caller at a time.

A child process that was forked has no helpers: crew_ready hires new ones there.
"""

from libc.stdlib cimport calloc, free

import threading

from fasttcp.core.prefetch cimport spin_pause

__all__: list[str] = []

cdef extern from "pythread.h" nogil:
    void *PyThread_allocate_lock()
    void PyThread_free_lock(void *lock)
    int PyThread_acquire_lock(void *lock, int wait)
    void PyThread_release_lock(void *lock)


cdef enum:
    LOOKS = 5000        # at a lock, some 30 ns each, before a thread goes to sleep


cdef inline void wait_for(void *lock) noexcept nogil:
    """Acquire a lock that another thread releases."""
    cdef int _
    for _ in range(LOOKS):
        if PyThread_acquire_lock(lock, 0):
            return
        spin_pause()
    PyThread_acquire_lock(lock, 1)


cdef class _Station:
    """Carries a post into its thread."""

    cdef Post *post

    def stay(self):
        cdef Post *post = self.post
        with nogil:
            serve(post)


cdef void serve(Post *post) noexcept nogil:
    """The life of a helper; the post is freed at its end."""
    while True:
        wait_for(post.go)
        if post.work == NULL:
            break
        post.work(post.context, post.part)
        PyThread_release_lock(post.done)
    PyThread_release_lock(post.go)
    PyThread_release_lock(post.done)
    PyThread_free_lock(post.go)
    PyThread_free_lock(post.done)
    free(post)


cdef Post *post_new(int part) noexcept:
    """A post with both locks taken, or NULL."""
    cdef Post *post = <Post *>calloc(1, sizeof(Post))
    if post == NULL:
        return NULL
    post.part = part
    post.go = PyThread_allocate_lock()
    post.done = PyThread_allocate_lock()
    if post.go == NULL or post.done == NULL:
        if post.go != NULL:
            PyThread_free_lock(post.go)
        if post.done != NULL:
            PyThread_free_lock(post.done)
        free(post)
        return NULL
    PyThread_acquire_lock(post.go, 1)
    PyThread_acquire_lock(post.done, 1)
    return post


cdef class Crew:
    """`size` parts of a piece of work, done by size - 1 helpers and the caller."""

    def __cinit__(self):
        self.posts = NULL
        self.threads = []

    def __dealloc__(self):
        dismiss(self)
        free(self.posts)


cdef void dismiss(Crew crew) noexcept:
    """Send the helpers home; each frees its post on the way."""
    cdef int i
    for i in range(crew.size - 1 if crew.posts != NULL else 0):
        if crew.posts[i] != NULL:
            crew.posts[i].work = NULL
            PyThread_release_lock(crew.posts[i].go)
            crew.posts[i] = NULL


cdef Crew crew_hire(int size):
    cdef Crew crew = Crew()
    crew.size = size
    crew.posts = <Post **>calloc(size, sizeof(Post *))
    if crew.posts == NULL:
        raise MemoryError(f"no memory for a crew of {size}")
    hire(crew)
    return crew


cdef int hire(Crew crew) except -1:
    """Those that are missing."""
    cdef _Station station
    cdef Post *post
    cdef int i
    for i in range(len(crew.threads), crew.size - 1):
        post = post_new(i + 1)
        if post == NULL:
            raise MemoryError("no memory for a lock")
        station = _Station()
        station.post = post
        thread = threading.Thread(target=station.stay, name=f"fasttcp shard {i + 1}", daemon=True)
        try:
            thread.start()
        except BaseException:
            PyThread_release_lock(post.go)
            PyThread_release_lock(post.done)
            PyThread_free_lock(post.go)
            PyThread_free_lock(post.done)
            free(post)
            raise
        crew.posts[i] = post
        crew.threads.append(thread)
    return 0


cdef int crew_ready(Crew crew) except -1:
    """Make sure that every helper is there: in a forked child they are not, and their posts are left where they lie."""
    if not all([thread.is_alive() for thread in crew.threads]):
        crew.threads.clear()
    return hire(crew)


cdef void crew_run(Crew crew, work_t work, void *context) noexcept nogil:
    cdef int i
    for i in range(crew.size - 1):
        crew.posts[i].work = work
        crew.posts[i].context = context
        PyThread_release_lock(crew.posts[i].go)
    work(context, 0)
    for i in range(crew.size - 1):
        wait_for(crew.posts[i].done)
