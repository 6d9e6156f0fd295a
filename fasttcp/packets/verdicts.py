"""What a frame can turn out to be: keys of `CaptureReader.counters()`, and what each means in a summary."""

__all__ = ["VERDICTS"]

# In the order of the verdicts in layers.pxd.
VERDICTS = {
    "segments": "TCP segments",
    "not_ip": "frames that carry no IP",
    "not_tcp": "IP datagrams that carry no TCP",
    "link_unknown": "frames of interfaces whose link type is not known",
    "link_truncated": "frames that the capture cuts short inside a link header",
    "link_malformed": "frames whose link header contradicts itself",
    "encrypted": "frames or datagrams that are encrypted below TCP",
    "ip_truncated": "datagrams that the capture cuts short inside the IP header",
    "ip_malformed": "datagrams with an impossible IP header",
    "ip_length": "datagrams that claim more bytes than were on the wire",
    "ip_zero_length": "datagrams of length 0, as segmentation offload leaves them (read when checksums are ignored)",
    "ip_checksum": "datagrams with a wrong IPv4 header checksum",
    "fragment_held": "fragments of datagrams that were put together, or still wait for the rest",
    "fragment_lost": "fragments that could not be used",
    "tcp_truncated": "segments with less than a TCP header",
    "tunnel_malformed": "datagrams with an impossible tunnel header",
    "tunnel_checksum": "tunnel datagrams with a wrong UDP checksum",
    "tunnel_depth": "datagrams with too many tunnels inside one another",
}
