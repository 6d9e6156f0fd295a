"""The two ways by which packets go out: an io_uring where there is one, else plain writes."""

import errno
import subprocess
import sys

import pytest

from load import refusal


@pytest.fixture(scope="module", params=["io_uring", "plain"])
def both_ways(request):
    """refusal.BEFORE goes before the command; then the kernel refuses it an io_uring, or does not."""
    if request.param == "plain":
        before = [sys.executable, refusal.__file__, str(refusal.IO_URING_SETUP), str(errno.EPERM)]
        if subprocess.run([*before, sys.executable, "-c", ""], check=False, capture_output=True).returncode != 0:
            pytest.skip("no seccomp filter can be set here")
        refusal.BEFORE[:] = before
    yield request.param
    refusal.BEFORE.clear()
