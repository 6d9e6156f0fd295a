"""A plain server on the kernel's own sockets: what the load tester tests when it is given no target.

One process, one epoll, without the GIL; several processes share a port (SO_REUSEPORT). It answers each request, which
ends with a blank line, by the same bytes; or answers nothing. It decides nothing about the load.

A connection's only state is how much of the blank line it has seen: one byte, by file descriptor.
"""

from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free

from fasttcp.core.address cimport whole
from fasttcp.load.system cimport (
    sys_accept, sys_close, sys_epoll_add, sys_epoll_del, sys_epoll_new, sys_epoll_wait, sys_recv, sys_send,
)

__all__ = ["serve_sockets"]

cdef enum:
    EVENTS = 256
    READ = 65536


cdef uint8_t _blank_line(uint8_t seen, const uint8_t *p, int64_t n) noexcept nogil:
    """How much of CR LF CR LF the stream ends with, after n more bytes; 4: a whole one was in them."""
    cdef int64_t i
    for i in range(n):
        if p[i] == 13:
            seen = 3 if seen == 2 else 1
        elif p[i] == 10:
            if seen == 3:
                return 4
            seen = 2 if seen == 1 else 0
        else:
            seen = 0
    return seen


cdef int _serve(
    const uint32_t *listeners, int many, uint32_t parent, const uint8_t *answer, size_t length, bint close, bint echo,
    uint8_t *seen, uint32_t files, uint8_t *buffer
) noexcept nogil:
    cdef int epoll = sys_epoll_new()
    cdef uint32_t ready[EVENTS]
    cdef int n, i, k, _i, fd, made
    cdef int64_t got
    if epoll < 0 or sys_epoll_add(epoll, parent, parent) != 0:
        return errno
    for i in range(many):
        if sys_epoll_add(epoll, listeners[i], listeners[i]) != 0:
            return errno
    while True:
        n = sys_epoll_wait(epoll, ready, EVENTS, -1)
        if n < 0 and errno != EINTR:
            return errno
        for i in range(n):
            fd = <int>ready[i]
            if fd == <int>parent:
                return 0                    # whoever started us is gone, or wants an end
            made = -1
            for k in range(many):
                if <int>listeners[k] == fd:
                    made = k
            if made >= 0:
                for _i in range(EVENTS):    # others wait too
                    made = sys_accept(fd)
                    if made < 0:
                        if errno == EMFILE or errno == ENFILE:
                            sys_epoll_del(epoll, fd)    # the rest stay in the backlog
                        break
                    if <uint32_t>made >= files or sys_epoll_add(epoll, made, made) != 0:
                        sys_close(made)
                        continue
                    seen[made] = 0
                continue
            got = sys_recv(fd, buffer, READ)
            if got < 0 and (errno == EAGAIN or errno == EINTR):
                continue
            if got <= 0:
                sys_close(fd)
                continue
            if echo:
                if sys_send(fd, buffer, got) != got:
                    sys_close(fd)
                continue
            if length == 0 and not close:
                continue                    # a sink
            seen[fd] = _blank_line(seen[fd], buffer, got)
            if seen[fd] == 4:
                seen[fd] = 0
                if sys_send(fd, answer, length) != <int64_t>length or close:
                    sys_close(fd)


def serve_sockets(listeners, parent, answer=b"", *, close=False, echo=False, files=1 << 20):
    """Serve connections to these listening sockets (file numbers, non-blocking) until `parent` can be read.

    answer: the bytes sent for each request that ends with a blank line; empty: what comes is thrown away. close: after
    the answer the connection is closed. echo: what comes goes back. files: the largest file number, at most 2^24.
    Raises OSError. The GIL is released.
    """
    cdef bytes text = bytes(answer)
    cdef uint32_t limit = whole("files", files, 16, 1 << 24)
    cdef uint32_t fds[64]
    cdef uint32_t until = whole("parent", parent, 0, 1 << 30)
    cdef bint closes = bool(close), echoes = bool(echo)
    cdef const uint8_t *p = text
    cdef size_t length = len(text)
    cdef uint8_t *seen
    cdef uint8_t *buffer
    cdef int i, many = whole("number of listeners", len(listeners), 1, 64), code
    for i in range(many):
        fds[i] = whole("listener", listeners[i], 0, 1 << 30)
    seen = <uint8_t *>calloc(limit, 1)
    buffer = <uint8_t *>calloc(READ, 1)
    if seen == NULL or buffer == NULL:
        free(seen)
        free(buffer)
        raise MemoryError("no memory for a server")
    with nogil:
        code = _serve(fds, many, until, p, length, closes, echoes, seen, limit, buffer)
    free(seen)
    free(buffer)
    if code != 0:
        raise OSError(code, "the server's epoll failed")
