# system.h for cimport.

from libc.stdint cimport int64_t, uint32_t

cdef extern from "system.h" nogil:
    int64_t sys_now_ns() noexcept                           # CLOCK_MONOTONIC
    int64_t sys_cpu_ns() noexcept                           # of this thread
    int64_t sys_read(int fd, void *into, size_t n) noexcept
    int64_t sys_write(int fd, const void *source, size_t n) noexcept
    int sys_wait(int fd, int64_t ns) noexcept               # 1: readable; 0: time is up; -1: a signal, or errno
    void *sys_regex_new(const char *pattern) noexcept       # POSIX extended; NULL: it is none
    bint sys_regex_match(const void *compiled, const char *text) noexcept
    void sys_regex_free(void *compiled) noexcept
    int sys_epoll_new() noexcept
    int sys_epoll_add(int epoll, int fd, uint32_t what) noexcept
    int sys_epoll_del(int epoll, int fd) noexcept
    int sys_epoll_wait(int epoll, uint32_t *what, int n, int ms) noexcept
    int sys_accept(int fd) noexcept
    int64_t sys_recv(int fd, void *into, size_t n) noexcept
    int64_t sys_send(int fd, const void *source, size_t n) noexcept
    void sys_linger_reset(int fd) noexcept
    int sys_close(int fd) noexcept
    bint sys_have_linux() noexcept
