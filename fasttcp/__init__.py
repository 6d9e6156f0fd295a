"""fasttcp: the state of millions of TCP connections in one Python process."""
