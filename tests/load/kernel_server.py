"""A server on the kernel's sockets in a namespace of a test's own."""

import subprocess
import sys

SCRIPT = """
import sys
from fasttcp.load.server import OwnServer
with OwnServer(sys.argv[1], 80, mode=sys.argv[2], connections=1000):
    print("listens", flush=True)
    sys.stdin.read()
"""


def serving(namespace, address, mode="http"):
    """It listens on port 80; `communicate()` ends it."""
    call = [sys.executable, "-c", SCRIPT, address, mode]
    server = namespace.popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "listens\n"
    return server
