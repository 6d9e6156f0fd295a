"""nf_conntrack of the running kernel beside the observer seat: the same segments, each account after each segment.

`script` builds segments, `exchanges` lists the conversations, `compare` replays them through both and says how one
account maps to the other, `differences` explains where they disagree, `document` writes docs/conntrack.md from it.
"""
