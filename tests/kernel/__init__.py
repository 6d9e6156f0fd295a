"""The Linux kernel as a test partner: network namespaces, a link with exact loss, captures, socket states.

Standard library only, and nothing of fasttcp: what these modules say of a packet or a socket is an independent account.
Ask `netns.why_not()` first; everything but `frames` and `pcap` needs Linux and root.
"""
