"""Where Linux and a `linux` endpoint of ours differ, on purpose or not yet.

REASONS are headings of docs/against-linux.md, which says why. A case that is listed here and no longer differs fails.
"""

REASONS = {
    "illegal": "SYN with FIN or RST, or no flag at all, outside a connection",
    "crossed": "SYN_RCVD after both sides opened",
    "half_open": "SYN_RCVD of a listener",
    "edge": "A segment that ends exactly at RCV.NXT",
    "closing_fin": "The FIN again, with the ACK of ours, in CLOSING",
    "after_fin": "Data that overlap the peer's own FIN",
    "time_wait": "TIME_WAIT",
    "reopened": "TIME_WAIT opened again by a SYN",
    "reset": "The RST of an ABORT",
    "twice": "CLOSE of what is closed already",
    "abort": "ABORT in TIME_WAIT",
    "syn_again": "The same SYN again",
    "syn_ack_cap": "rto_max and the SYN+ACKs of a listener",
    "orphan_cap": "An orphan whose time-out is at rto_max",
    "fin_alone": "A FIN behind data, sent again",
    "fin_time": "FIN_WAIT_2 after a long round trip",
    "one_more": "One more than the backlog",
    "syn_backlog": "tcp_max_syn_backlog",
    "cookie": "A SYN cookie one off",
    "dead": "A connection that is reset before accept",
    "bound": "A port that was bound, in TIME_WAIT",
    "delay": "From when tcp_tw_reuse_delay counts",
    "buckets": "tcp_max_tw_buckets and orphans in FIN_WAIT_2",
    "orphan": "An orphan in FIN_WAIT_2",
    "half": "A window smaller than a segment",
    "update": "The window update after a read",
    "blocks": "SACK blocks",
    "early": "CLOSE in SYN_RCVD",
}

DIFFERENCES = {
    **{("CLOSED", "any", probe): "illegal" for probe in ("no_flags", "no_flags_at_iss", "syn_fin", "syn_fin_at_0", "syn_ack_fin")},
    ("LISTEN", "any", "syn_ack_fin"): "illegal",
    **{("SYN_SENT", "any", probe): "illegal" for probe in ("syn_fin", "syn_fin_at_0", "syn_ack_fin", "syn_reset_with_ack")},
    ("SYN_SENT", "any", "syn"): "crossed",
    ("SYN_SENT", "any", "syn_with_data"): "crossed",
    ("SYN_RCVD", "active", "case_21_syn_ack_again"): "crossed",
    ("SYN_RCVD", "active", "case_22_ack_of_the_near_past"): "crossed",
    ("SYN_RCVD", "active", "case_37_fin_again"): "crossed",
    ("SYN_RCVD", "passive", "case_21_syn_in_the_window"): "half_open",
    ("SYN_RCVD", "passive", "case_21_syn_ack_again"): "half_open",
    ("SYN_RCVD", "passive", "syn_and_fin"): "half_open",
    **{("FIN_WAIT_1", role, "case_37_fin_again"): "edge" for role in ("active", "passive")},
    **{("CLOSING", role, "case_37_fin_again"): "closing_fin" for role in ("active", "passive")},
    **{("CLOSE_WAIT", role, "case_16_data_overlapping"): "after_fin" for role in ("active", "passive")},
    **{
        ("TIME_WAIT", role, probe): "time_wait"
        for role in ("active", "passive")
        for probe in (
            "case_15_no_ack_flag", "case_16_data_overlapping", "case_19_reset_in_the_window", "case_22_ack_of_the_future",
            "case_22_ack_of_the_far_past", "case_26_data_in_order", "case_26_fin_in_order", "case_26_data_and_fin",
            "case_26_data_beyond_a_hole", "case_26_fin_beyond_a_hole", "case_30_fin_without_our_last_ack", "no_flags",
            "fin_without_ack",
        )
    },
    ("TIME_WAIT", "passive", "case_22_ack_of_the_near_past"): "time_wait",
    ("TIME_WAIT", "passive", "case_21_syn_in_the_window"): "reopened",
}  # fmt: skip

# Scripts of scripts.py.
TIMED = {
    "a peer with SACK": "blocks",
    "case_07 crossed, never acknowledged": "crossed",
    "case_09 the syn again": "syn_again",
    "case_13 rto_max": "syn_ack_cap",
    **{f"case_39 orphan, rto_max, {role}": "orphan_cap" for role in ("active", "passive")},
    **{f"case_39 data before it, {role}": "fin_alone" for role in ("active", "passive")},
    **{f"case_33 long round trip, {role}": "fin_time" for role in ("active", "passive")},
}  # fmt: skip

# Scenes of test_listener.py.
CROWDS = {
    "case_14 a cookie one off": "cookie",
    "case_14 tcp_max_syn_backlog, its last quarter": "syn_backlog",
    "case_14 tcp_max_syn_backlog with cookies": "syn_backlog",
    "who is reset before accept": "dead",
}

# Scenes of test_scenes.py, by role.
SCENES = {
    ("case_09 after both opened", "active"): "crossed",
    ("case_12 close of a crossed opening", "active"): "early",
    ("case_44 a port that was bound", "active"): "bound",
    ("case_44 from when it counts", "active"): "delay",
    ("window smaller than a segment", "active"): "half",
    **{
        (name, role): reason
        for role in ("active", "passive")
        for name, reason in (
            ("case_46 an orphan in FIN_WAIT_2", "buckets"),
            ("our window fills and opens", "update"),
            ("orphan case_19_reset_in_the_window", "orphan"),
            ("orphan case_19_reset_outside_the_window", "orphan"),
            ("orphan case_20_reset_before_rcv_nxt", "orphan"),
            ("orphan case_21_syn_in_the_window", "orphan"),
            ("orphan case_22_ack_of_the_future", "orphan"),
            ("orphan case_22_ack_of_the_far_past", "orphan"),
            ("orphan case_26_fin_beyond_a_hole", "orphan"),
            ("orphan syn_and_fin", "orphan"),
        )
    },
    ("orphan case_22_ack_of_the_near_past", "passive"): "orphan",
}
