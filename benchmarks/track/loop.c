// The floor: libpcap reads every packet of a file and its headers are decoded, nothing else. One line of JSON.
//
// Ethernet, IPv4 and IPv6 without extensions, TCP; every field that tracking needs is read. No checksum is verified, nothing
// is looked up and nothing is kept but sums, which hold the compiler to its work.

#include <inttypes.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint16_t be16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static uint32_t be32(const uint8_t *p) { return (uint32_t)be16(p) << 16 | be16(p + 2); }

static uint64_t word(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, 8);
    return w;
}

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    char message[PCAP_ERRBUF_SIZE];
    struct pcap_pkthdr *header;
    const uint8_t *frame;
    uint64_t packets = 0, segments = 0, payload = 0, sum = 0;
    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    pcap_t *capture = argc == 2 ? pcap_open_offline_with_tstamp_precision(argv[1], PCAP_TSTAMP_PRECISION_NANO, message) : NULL;
    int more;

    if (capture == NULL || pcap_datalink(capture) != DLT_EN10MB) {
        fprintf(stderr, "usage: loop CAPTURE (Ethernet): %s\n", argc == 2 ? message : "");
        return 1;
    }
    while ((more = pcap_next_ex(capture, &header, &frame)) == 1) {
        const uint8_t *ip = frame + 14, *tcp;
        uint32_t captured = header->caplen, length, offset;
        packets++;
        if (captured < 14 + 20 + 20)
            continue;
        if (be16(frame + 12) == 0x0800 && ip[0] >> 4 == 4 && ip[9] == 6) {
            length = be16(ip + 2);
            tcp = ip + (ip[0] & 15) * 4;
            sum += be32(ip + 12) ^ be32(ip + 16);
        } else if (be16(frame + 12) == 0x86DD && ip[6] == 6 && captured >= 14 + 40 + 20) {
            length = 40 + be16(ip + 4);
            tcp = ip + 40;
            sum += word(ip + 8) ^ word(ip + 16) ^ word(ip + 24) ^ word(ip + 32);
        } else {
            continue;
        }
        if (tcp + 20 > frame + captured)
            continue;
        offset = (tcp[12] >> 4) * 4;
        segments++;
        payload += length - (uint32_t)(tcp - ip) - offset;
        sum += (uint64_t)be32(tcp + 4) + be32(tcp + 8) + be16(tcp) + be16(tcp + 2) + tcp[13] + be16(tcp + 14);
        sum += (uint64_t)header->ts.tv_sec * 1000000000u + (uint64_t)header->ts.tv_usec;
    }
    pcap_close(capture);
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, ", now(CLOCK_MONOTONIC) - began, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    printf("\"packets\": %" PRIu64 ", \"segments\": %" PRIu64 ", ", packets, segments);
    printf("\"payload\": %" PRIu64 ", \"sum\": %" PRIu64 "}\n", payload, sum);
    return more == PCAP_ERROR_BREAK ? 0 : 1;
}
