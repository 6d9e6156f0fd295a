"""A network of one's own: a user namespace and a network namespace, made by the calling process for itself.

It needs no privilege where the system allows user namespaces, is seen by nobody else, and is gone with the process and
its children. There is no way back out of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from fasttcp.load.netlink import interface_up

__all__ = ["enter_private_network", "forward"]

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
REFUSED = (
    "this system refuses an unprivileged user namespace. One of these, as root, allows it: "
    "`sysctl -w user.max_user_namespaces=15000`; on Debian `sysctl -w kernel.unprivileged_userns_clone=1`; on Ubuntu "
    "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`. Or run as root"
)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def enter_private_network() -> None:
    """Move this process, which must have one thread only, into a network of its own, its loopback up.

    Root gets a network namespace; anybody else a user namespace as well, in which it is root. Raises OSError with what
    is missing and how to mend it.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, f"a network of its own needs Linux, this is {sys.platform}")
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            _unshare(CLONE_NEWNET)
        except PermissionError:  # root of a container
            user = -1
    if user != 0:
        user = os.geteuid()
        try:
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise OSError(
                    error.errno, "a user namespace can only be entered before the process starts a second thread"
                ) from None
            raise OSError(error.errno, REFUSED) from None
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    interface_up("lo")


def forward() -> None:
    """Let packets pass from one interface to another in this network, which must be one's own."""
    for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        try:
            with open(f"/proc/sys/net/{family}", "w") as file:
                file.write("1")
        except FileNotFoundError:  # IPv6 is off
            pass
