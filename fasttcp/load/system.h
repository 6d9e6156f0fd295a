/* What the load tester asks of Linux, each call in a thin wrapper: it compiles everywhere, and answers ENOSYS elsewhere.
   No decision is made here. */
#ifndef FASTTCP_LOAD_SYSTEM_H
#define FASTTCP_LOAD_SYSTEM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__linux__)

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <regex.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline int64_t sys_clock_ns(int clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static inline int64_t sys_now_ns(void) { return sys_clock_ns(CLOCK_MONOTONIC); }
static inline int64_t sys_cpu_ns(void) { return sys_clock_ns(CLOCK_THREAD_CPUTIME_ID); }

static inline int64_t sys_read(int fd, void *into, size_t n) { return read(fd, into, n); }
static inline int64_t sys_write(int fd, const void *from, size_t n) { return write(fd, from, n); }

/* Until fd can be read or `ns` have passed. poll's milliseconds would be too coarse for a rate. */
static inline int sys_wait(int fd, int64_t ns) {
    struct pollfd p;
    struct timespec t;
    p.fd = fd;
    p.events = POLLIN;
    p.revents = 0;
    t.tv_sec = (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    return ppoll(&p, 1, &t, NULL);
}

static inline void *sys_regex_new(const char *pattern) {
    regex_t *compiled = (regex_t *)malloc(sizeof(regex_t));
    if (compiled != NULL && regcomp(compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        free(compiled);
        compiled = NULL;
    }
    return compiled;
}
static inline int sys_regex_match(const void *compiled, const char *text) {
    return regexec((const regex_t *)compiled, text, 0, NULL, 0) == 0;
}
static inline void sys_regex_free(void *compiled) {
    if (compiled != NULL) {
        regfree((regex_t *)compiled);
        free(compiled);
    }
}

static inline int sys_epoll_new(void) { return epoll_create1(EPOLL_CLOEXEC); }
/* Level-triggered, for reading. `what` comes back from sys_epoll_wait. */
static inline int sys_epoll_add(int epoll, int fd, uint32_t what) {
    struct epoll_event e;
    e.events = EPOLLIN;
    e.data.u64 = what;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}
static inline int sys_epoll_del(int epoll, int fd) { return epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); }
static inline int sys_epoll_wait(int epoll, uint32_t *what, int n, int ms) {
    struct epoll_event e[256];
    int i, many = epoll_wait(epoll, e, n < 256 ? n : 256, ms);
    for (i = 0; i < many; i++) what[i] = (uint32_t)e[i].data.u64;
    return many;
}
static inline int sys_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
static inline int64_t sys_recv(int fd, void *into, size_t n) { return recv(fd, into, n, 0); }
static inline int64_t sys_send(int fd, const void *from, size_t n) { return send(fd, from, n, MSG_NOSIGNAL); }
static inline void sys_linger_reset(int fd) {
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}
static inline int sys_close(int fd) { return close(fd); }
static inline int sys_have_linux(void) { return 1; }

#else

static inline int sys_missing(void) { errno = ENOSYS; return -1; }
static inline int64_t sys_now_ns(void) { return 0; }
static inline int64_t sys_cpu_ns(void) { return 0; }
static inline int64_t sys_read(int fd, void *into, size_t n) { (void)fd; (void)into; (void)n; return sys_missing(); }
static inline int64_t sys_write(int fd, const void *from, size_t n) { (void)fd; (void)from; (void)n; return sys_missing(); }
static inline int sys_wait(int fd, int64_t ns) { (void)fd; (void)ns; return sys_missing(); }
static inline void *sys_regex_new(const char *pattern) { (void)pattern; return NULL; }
static inline int sys_regex_match(const void *compiled, const char *text) { (void)compiled; (void)text; return 0; }
static inline void sys_regex_free(void *compiled) { (void)compiled; }
static inline int sys_epoll_new(void) { return sys_missing(); }
static inline int sys_epoll_add(int epoll, int fd, uint32_t what) { (void)epoll; (void)fd; (void)what; return sys_missing(); }
static inline int sys_epoll_del(int epoll, int fd) { (void)epoll; (void)fd; return sys_missing(); }
static inline int sys_epoll_wait(int epoll, uint32_t *what, int n, int ms) {
    (void)epoll; (void)what; (void)n; (void)ms;
    return sys_missing();
}
static inline int sys_accept(int fd) { (void)fd; return sys_missing(); }
static inline int64_t sys_recv(int fd, void *into, size_t n) { (void)fd; (void)into; (void)n; return sys_missing(); }
static inline int64_t sys_send(int fd, const void *from, size_t n) { (void)fd; (void)from; (void)n; return sys_missing(); }
static inline void sys_linger_reset(int fd) { (void)fd; }
static inline int sys_close(int fd) { (void)fd; return sys_missing(); }
static inline int sys_have_linux(void) { return 0; }

#endif
#endif
