"""Linux as oracle: a kernel socket and an endpoint of ours hear the same peer; what they answer and what state they are
in is compared after every segment."""
