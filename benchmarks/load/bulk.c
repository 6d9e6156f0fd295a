/* Data sent through a TUN device to a socket of the same kernel: segments of one MSS each, or 64 KiB at once for the kernel to
   cut up (VIRTIO_NET_HDR_GSO_TCPV4). No TCP machine: one connection, made by hand, that always sends into the whole window.

       bulk mss|gso SECONDS      one line: bytes acknowledged, packets out, packets in, CPU ns of this end, wall ns

   wire.py makes the network around it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

#define MSS 1460
#define SCALE 7

static int fd;
static uint8_t out[10 + 65536], in[70000];
static uint32_t una, nxt, rcv_nxt, window;
static uint64_t packets_out, packets_in;

static void sink(void) {
    static char buffer[1 << 20];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9)};
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 1)) die("listen");
    if (fork()) return;
    int end = accept(listener, 0, 0);
    while (read(end, buffer, sizeof buffer) > 0) {}
    exit(0);
}

static void emit(uint32_t seq, int flags, const uint8_t *options, int optlen, int n) {
    struct virtio_net_hdr *v = (void *)out;
    uint8_t *ip = out + sizeof *v, *tcp = ip + 20;
    uint32_t s = 0, total = 40 + optlen + n;
    memset(v, 0, sizeof *v);
    v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, v->csum_start = 20, v->csum_offset = 16;
    if (n > MSS) v->gso_type = VIRTIO_NET_HDR_GSO_TCPV4, v->gso_size = MSS, v->hdr_len = 40 + optlen;
    memcpy(ip, "\x45\0\0\0\0\0\x40\0\x40\6\0\0\xc6\x13\0\1\xc6\x12\0\1", 20);
    ip[2] = total >> 8, ip[3] = total;
    for (int i = 0; i < 20; i += 2) s += ip[i] << 8 | ip[i + 1];
    while (s >> 16) s = (s & 0xFFFF) + (s >> 16);
    ip[10] = ~s >> 8, ip[11] = ~s;
    uint32_t ack = htonl(rcv_nxt), be = htonl(seq);
    memcpy(tcp, "\x10\0\0\x09", 4), memcpy(tcp + 4, &be, 4), memcpy(tcp + 8, &ack, 4);
    tcp[12] = (20 + optlen) << 2, tcp[13] = flags, tcp[14] = 0xFF, tcp[15] = 0xFF, tcp[18] = tcp[19] = 0;
    memcpy(tcp + 20, options, optlen);
    s = 6 + total - 20;
    for (int i = 12; i < 20; i += 2) s += ip[i] << 8 | ip[i + 1];
    while (s >> 16) s = (s & 0xFFFF) + (s >> 16);
    tcp[16] = s >> 8, tcp[17] = s;
    while (write(fd, out, sizeof *v + total) < 0)
        if (errno != EINTR && errno != EAGAIN) die("write");
    packets_out++;
}

/* What has come: the newest acknowledgment and window. */
static int take(void) {
    int n = read(fd, in, sizeof in);
    if (n <= 10) return 0;
    uint8_t *tcp = in + 10 + 20;
    uint32_t ack, seq;
    memcpy(&ack, tcp + 8, 4), memcpy(&seq, tcp + 4, 4);
    if (tcp[13] & 4) errno = ECONNRESET, die("the connection");
    if (tcp[13] & 2) rcv_nxt = ntohl(seq) + 1, window = tcp[14] << 8 | tcp[15];
    else window = (tcp[14] << 8 | tcp[15]) << SCALE;
    una = ntohl(ack);
    packets_in++;
    return 1;
}

int main(int argc, char **argv) {
    struct ifreq r = {.ifr_name = "w0", .ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    if (argc < 3) return 2;
    uint32_t most = strcmp(argv[1], "gso") ? MSS : 44 * MSS;
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) || ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) die("/dev/net/tun");
    if (system("sysctl -qw net.ipv4.tcp_rmem='4096 6291456 33554432'; ip link set w0 up txqueuelen 16384 && "
               "ip address add 198.18.0.1/32 dev w0 && ip route add 198.19.0.0/16 dev w0")) exit(1);
    signal(SIGCHLD, SIG_IGN);
    sink();
    struct pollfd p = {fd, POLLIN, 0};
    emit(0, 2, (const uint8_t *)"\2\4\5\xb4\1\3\3\7", 8, 0);
    while (!rcv_nxt) poll(&p, 1, 100), take();
    nxt = 1;
    emit(nxt, 0x10, (const uint8_t *)"", 0, 0);
    window = 65535;
    uint64_t acked = 0;
    uint32_t last = una;
    int64_t begin = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), end = begin + (int64_t)(atof(argv[2]) * 1e9);
    while (now(CLOCK_MONOTONIC) < end) {
        while (una + window - nxt >= most && (int32_t)(una + window - nxt) > 0) {
            emit(nxt, 0x10, (const uint8_t *)"", 0, most);
            nxt += most;
        }
        if (!take()) poll(&p, 1, 20);
        while (take()) {}
        acked += una - last, last = una;
    }
    printf("%lu %lu %lu %ld %ld\n", acked, packets_out, packets_in, now(CLOCK_PROCESS_CPUTIME_ID) - cpu, now(CLOCK_MONOTONIC) - begin);
    fflush(stdout);
    close(fd);
    kill(0, SIGTERM);
    return 0;
}
