/* Ways to hand IP packets to the kernel and take its answers, one workload for all: SYNs to a port where nobody listens, each of
   which the kernel answers by a RST. The path is that of a real segment (route, TCP look-up, an answer made and routed back)
   without the cost of any socket, so the difference between two ways is that of the ways.

       wire METHOD BATCH SECONDS [INTERFACE]      one line: packets out, packets in, system calls, CPU ns, wall ns

   It runs inside a network that wire.py has made. rw: one read and one write a packet. uring: one io_uring_enter for a batch of
   writes and reads. uring-fixed: with a registered file. uring-out: the writes alone, plain reads. sqpoll: with a kernel thread
   that polls. napi: rw on a device with IFF_NAPI. packet2, packet3: AF_PACKET rings on one end of a veth pair, TPACKET_V2 and V3
   for what comes in. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

#define MOST 256
#define ROOM 2048
#define VNET ((int)sizeof(struct virtio_net_hdr))

static uint64_t sent, got, calls;
static uint8_t frame[MOST][128], room[MOST][ROOM];
static int length; /* of a packet with what stands before it */

static uint16_t sum(const uint8_t *p, int n, uint32_t s) {
    for (int i = 0; i < n; i += 2) s += p[i] << 8 | p[i + 1];
    while (s >> 16) s = (s & 0xFFFF) + (s >> 16);
    return ~s & 0xFFFF;
}

/* SYNs from 198.19.0.1, another port each, to 198.18.0.1 port 9, with `head` bytes before the IP header. */
static void make(int head, int ethernet) {
    for (int i = 0; i < MOST; i++) {
        uint8_t *ip = frame[i] + head, *tcp = ip + 20, pseudo[32] = {0};
        memset(frame[i], 0, sizeof frame[i]);
        if (ethernet) {
            memcpy(ip - 14, "\2\0\0\0\0\2\2\0\0\0\0\1\10\0", 14);
        }
        memcpy(ip, "\x45\0\0\x28\0\0\x40\0\x40\6\0\0\xc6\x13\0\1\xc6\x12\0\1", 20);
        uint16_t c = sum(ip, 20, 0);
        ip[10] = c >> 8, ip[11] = c;
        uint16_t port = 1024 + i;
        tcp[0] = port >> 8, tcp[1] = port, tcp[3] = 9, tcp[7] = i, tcp[12] = 0x50, tcp[13] = 2, tcp[14] = 0xFF;
        memcpy(pseudo, ip + 12, 8), pseudo[9] = 6, pseudo[11] = 20, memcpy(pseudo + 12, tcp, 20);
        c = sum(pseudo, 32, 0);
        tcp[16] = c >> 8, tcp[17] = c;
    }
    length = head + 40;
}

static int tun(int more) {
    struct ifreq r = {0};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0) die("/dev/net/tun");
    strcpy(r.ifr_name, "w0");
    r.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | more;
    if (ioctl(fd, TUNSETIFF, &r)) die("TUNSETIFF");
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) die("TUNSETOFFLOAD");
    if (system("ip link set w0 up txqueuelen 16384 && ip address add 198.18.0.1/32 dev w0 && ip route add 198.19.0.0/16 dev w0")) exit(1);
    make(VNET, 0);
    return fd;
}

static void drain(int fd) {
    for (;;) {
        calls++;
        if (read(fd, room[0], ROOM) <= 0) break;
        got++;
    }
}

static void turn_rw(int fd, int batch) {
    for (int i = 0; i < batch; i++) {
        calls++;
        if (write(fd, frame[i], length) > 0) sent++;
    }
    drain(fd);
}

/* ---- io_uring, by its system calls ---- */
static unsigned *sq_head, *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqe;
static struct io_uring_cqe *cqe;
static int ring, polled, fixed, out_only;

static void uring(int fd, int with_polling, int registered) {
    struct io_uring_params p = {0};
    polled = with_polling, fixed = registered;
    p.flags = polled ? IORING_SETUP_SQPOLL : IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    p.sq_thread_idle = 1000;
    ring = syscall(__NR_io_uring_setup, 2 * MOST, &p);
    if (ring < 0) die("io_uring_setup");
    uint8_t *sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    uint8_t *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof *cqe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
    sqe = mmap(0, p.sq_entries * sizeof *sqe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || (void *)sqe == MAP_FAILED) die("mmap of an io_uring");
    sq_head = (void *)(sq + p.sq_off.head), sq_tail = (void *)(sq + p.sq_off.tail), sq_mask = (void *)(sq + p.sq_off.ring_mask);
    sq_array = (void *)(sq + p.sq_off.array), sq_flags = (void *)(sq + p.sq_off.flags);
    cq_head = (void *)(cq + p.cq_off.head), cq_tail = (void *)(cq + p.cq_off.tail), cq_mask = (void *)(cq + p.cq_off.ring_mask);
    cqe = (void *)(cq + p.cq_off.cqes);
    if (fixed && syscall(__NR_io_uring_register, ring, IORING_REGISTER_FILES, &fd, 1)) die("IORING_REGISTER_FILES");
}

static void put(int fd, int op, void *at, int n) {
    unsigned tail = *sq_tail, i = tail & *sq_mask;
    struct io_uring_sqe *s = &sqe[i];
    memset(s, 0, sizeof *s);
    s->opcode = op, s->fd = fixed ? 0 : fd, s->flags = fixed ? IOSQE_FIXED_FILE : 0;
    s->addr = (uint64_t)at, s->len = n, s->off = -1, s->user_data = op;
    sq_array[i] = i;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
}

static void turn_uring(int fd, int batch) {
    int n = 2 * batch, done = 0;
    for (int i = 0; i < batch; i++) put(fd, IORING_OP_WRITE, frame[i], length);
    if (out_only) n = batch;
    else
        for (int i = 0; i < batch; i++) put(fd, IORING_OP_READ, room[i], ROOM);
    if (!polled || __atomic_load_n(sq_flags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP) {
        calls++;
        if (syscall(__NR_io_uring_enter, ring, polled ? 0 : n, polled ? 0 : n, polled ? IORING_ENTER_SQ_WAKEUP : IORING_ENTER_GETEVENTS, 0, 0) < 0)
            die("io_uring_enter");
    }
    int64_t patience = now(CLOCK_MONOTONIC) + 1000000000;
    while (done < n) {
        unsigned head = *cq_head;
        while (head != __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) {
            struct io_uring_cqe *c = &cqe[head & *cq_mask];
            if (c->res > 0) *(c->user_data == IORING_OP_WRITE ? &sent : &got) += 1;
            head++, done++;
        }
        __atomic_store_n(cq_head, head, __ATOMIC_RELEASE);
        if (done < n && now(CLOCK_MONOTONIC) > patience) {
            errno = ETIME;
            die("io_uring: an answer that is missing for a second");
        }
    }
    if (out_only) drain(fd);
}

/* ---- AF_PACKET rings ---- */
#define FRAME 2048
#define BLOCK (1 << 16)
#define BLOCKS 64
static uint8_t *rx, *tx;
static unsigned rx_at, tx_at;
static int rx_fd, tx_fd, version;

static int packet_socket(int v, int ring, const char *interface) {
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_protocol = htons(ring == PACKET_TX_RING ? 0 : ETH_P_IP)};
    struct tpacket_req3 r = {.tp_block_size = BLOCK, .tp_block_nr = BLOCKS, .tp_frame_size = FRAME, .tp_frame_nr = BLOCK / FRAME * BLOCKS};
    int one = 1, fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0) die("AF_PACKET");
    if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &v, sizeof v)) die("PACKET_VERSION");
    if (ring == PACKET_TX_RING) setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
    else setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one);
    r.tp_retire_blk_tov = v == TPACKET_V3 ? 1 : 0; /* ms: the least there is */
    if (setsockopt(fd, SOL_PACKET, ring, &r, v == TPACKET_V3 ? sizeof r : sizeof(struct tpacket_req))) die("a ring");
    uint8_t *at = mmap(0, BLOCK * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED) die("mmap of a ring");
    *(ring == PACKET_TX_RING ? &tx : &rx) = at;
    to.sll_ifindex = if_nametoindex(interface);
    if (bind(fd, (void *)&to, sizeof to)) die("bind");
    return fd;
}

static void turn_packet(int batch) {
    uint64_t wanted = got + batch;
    for (int i = 0; i < batch; i++) {
        struct tpacket2_hdr *h = (void *)(tx + tx_at * FRAME);
        if (__atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) != TP_STATUS_AVAILABLE) break;
        memcpy((uint8_t *)h + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), frame[i], length);
        h->tp_len = length;
        __atomic_store_n(&h->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
        tx_at = (tx_at + 1) % (BLOCK / FRAME * BLOCKS);
        sent++;
    }
    calls++;
    if (send(tx_fd, 0, 0, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS) die("send");
    int64_t patience = now(CLOCK_MONOTONIC) + 20000000;
    while (got < wanted) {
        if (version == 2) {
            struct tpacket2_hdr *h = (void *)(rx + rx_at * FRAME);
            if (!(__atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) goto wait;
            got++;
            __atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
            rx_at = (rx_at + 1) % (BLOCK / FRAME * BLOCKS);
        } else {
            struct tpacket_block_desc *b = (void *)(rx + rx_at * BLOCK);
            if (!(__atomic_load_n(&b->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) goto wait;
            got += b->hdr.bh1.num_pkts;
            __atomic_store_n(&b->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
            rx_at = (rx_at + 1) % BLOCKS;
        }
        continue;
    wait:;
        struct pollfd p = {rx_fd, POLLIN, 0};
        calls++;
        if (poll(&p, 1, 20) <= 0 && now(CLOCK_MONOTONIC) > patience) break;
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *method = argv[1];
    int batch = atoi(argv[2]), fd = -1, packet = !strncmp(method, "packet", 6);
    int64_t end, begin, cpu;
    if (batch < 1 || batch > MOST) return 2;
    if (packet) {
        version = method[6] - '0';
        rx_fd = packet_socket(version == 3 ? TPACKET_V3 : TPACKET_V2, PACKET_RX_RING, argv[4]);
        tx_fd = packet_socket(TPACKET_V2, PACKET_TX_RING, argv[4]);
        make(14, 1);
    } else {
        fd = tun(!strcmp(method, "napi") ? IFF_NAPI : 0);
        if (!strncmp(method, "uring", 5) || !strcmp(method, "sqpoll")) {
            out_only = !strcmp(method, "uring-out");
            uring(fd, !strcmp(method, "sqpoll"), strcmp(method, "uring") != 0 && !out_only);
        }
    }
    begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), end = begin + (int64_t)(atof(argv[3]) * 1e9);
    while (now(CLOCK_MONOTONIC) < end) {
        if (packet) turn_packet(batch);
        else if (ring) turn_uring(fd, batch);
        else turn_rw(fd, batch);
    }
    printf("%lu %lu %lu %ld %ld\n", sent, got, calls, now(CLOCK_PROCESS_CPUTIME_ID) - cpu, now(CLOCK_MONOTONIC) - begin);
    return 0;
}
