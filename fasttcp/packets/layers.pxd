# What the decoders of the single layers share: the bytes still to be read, and the verdict on a frame.
#
# A layer takes a Cursor, moves it past its own header and says what comes next as one number, the "kind":
#   0x0600 .. 0xFFFF    an EtherType (IEEE 802.3), IPv4 and IPv6 among them: there the link layers end
#   LINK | n            the link layer n of tcpdump.org's list (linktypes.py)
#   INNER | n           one of the encapsulations below that have no number there
#   STOP | verdict      this frame holds no segment
# Every layer consumes at least one byte, so a hostile frame costs at most its own length.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fasttcp.packets.fragments cimport Fragments


cdef enum:
    LINK = 0x10000000
    INNER = 0x20000000
    STOP = 0x40000000
    INNER_LLC = INNER | 1           # IEEE 802.2, after a length field
    INNER_SUBFRAME = INNER | 2      # one subframe of an 802.11 A-MSDU
    INNER_IP = INNER | 3            # an IP header, version by its first four bits


# Why a frame is no segment. Their names, in this order, are in verdicts.py.
cdef enum:  # the verdicts
    IS_SEGMENT              # it is one
    NOT_IP                  # ARP, LLDP, 802.11 management, ...
    NOT_TCP                 # UDP, ICMP (also when it quotes TCP), ...
    LINK_UNKNOWN            # an interface of a pcapng section whose link type is not known
    LINK_TRUNCATED          # the capture ends inside a link header
    LINK_MALFORMED          # a link header that contradicts itself
    ENCRYPTED               # 802.11 protected frame, ESP
    IP_TRUNCATED            # the capture ends inside the IP header
    IP_MALFORMED            # version, header length or extension headers are impossible
    IP_LENGTH               # the datagram claims more bytes than were on the wire
    IP_ZERO_LENGTH          # total length 0 (segmentation offload) while checksums are validated
    IP_CHECKSUM             # the IPv4 header checksum is wrong
    FRAGMENT_HELD           # a fragment that waits for the others
    FRAGMENT_LOST           # a fragment cut short by the capture, contradicting the others, or without memory
    TCP_TRUNCATED           # fewer than 20 bytes of TCP
    TUNNEL_MALFORMED        # a tunnel header that is cut short or impossible
    TUNNEL_CHECKSUM         # the UDP checksum around a tunnel is wrong
    TUNNEL_DEPTH            # more than MAX_TUNNELS tunnels inside one another
    N_VERDICTS


cdef enum:
    MAX_TUNNELS = 4         # Zeek's Tunnel::max_depth


# Invariant: captured <= wire.
cdef struct Cursor:
    const uint8_t* p
    uint32_t captured       # bytes at p that are there
    uint32_t wire           # bytes that were there on the wire


cdef struct Decoder:
    bint validate           # IPv4, TCP and tunnels' UDP checksums
    bint tunnels            # look into them
    const uint8_t* frame    # the frame at hand
    uint32_t frame_captured
    uint32_t resume         # where in it the next A-MSDU subframe begins; 0: none, the frame is done
    uint32_t resume_captured    # bytes of the rest of the A-MSDU
    uint32_t resume_depth       # tunnels around it
    uint32_t depth          # tunnels around the cursor
    bint in_gtp             # the innermost of them is GTP-U
    uint64_t counts[N_VERDICTS]
    uint64_t bad_checksum   # segments with INFO_BAD_CHECKSUM, and ...
    uint64_t bad_header     # ... INFO_BAD_HEADER
    uint64_t tunnelled      # segments that came out of a tunnel
    Fragments fragments


# What is left when IP is off.
cdef struct Datagram:
    const uint8_t* src      # 4 or 16 bytes
    const uint8_t* dst
    uint32_t version
    uint32_t protocol
    uint32_t ip_bytes       # Segment.ip_bytes
    Cursor payload          # wire: what IP says it carries, ...
    bint empty              # ... or if that is nothing, what was captured
    uint8_t addresses[32]   # where src and dst point when the datagram was reassembled


cdef inline void advance(Cursor* c, uint32_t n) noexcept nogil:
    c.p += n
    c.captured -= n
    c.wire -= n
