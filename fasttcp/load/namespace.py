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
#: sysctls that forbid a namespace: which value does, and which allows one
GATES = (
    ("user.max_user_namespaces", "0", "15000"),
    ("user.max_net_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu
)


def _refusal(code: int, root: bool) -> OSError:
    """What this system forbids, and what allows it."""
    what = "this system refuses a network of its own"
    what += " even to root" if root else " to a user who is not root"
    if code == errno.EINVAL:
        if len(os.listdir("/proc/self/task")) > 1:
            return OSError(code, "a network of its own can only be entered before the process starts a second thread")
        return OSError(code, f"{what}: its kernel has no network or user namespaces")
    closed = []
    for name, forbids, allows in GATES:
        try:
            with open("/proc/sys/" + name.replace(".", "/")) as file:
                if file.read().strip() == forbids:
                    closed.append(f"`sysctl -w {name}={allows}`")
        except OSError:
            pass  # a gate that this kernel does not have
    if closed:
        return OSError(code, f"{what}; as root, {' and '.join(closed)} allows it" + ("" if root else ". Or run as root"))
    if code == errno.ENOSPC:
        return OSError(code, f"{what}: there are too many already (sysctl user.max_user_namespaces, user.max_net_namespaces)")
    container = "a container needs `--cap-add SYS_ADMIN --cap-add NET_ADMIN --device /dev/net/tun` when it is started"
    return OSError(code, f"{what}: {os.strerror(code)}; {container}" + ("" if root else ". Or run as root"))


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
        except OSError as error:
            raise _refusal(error.errno or 0, True) from None
    if user != 0:
        user = os.geteuid()
        try:
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
            # A security module may let a namespace be made and then give no rights in it: these fail.
            for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
        except OSError as error:
            raise _refusal(error.errno or 0, user == 0) from None
    interface_up("lo")


def forward() -> None:
    """Let packets pass from one interface to another in this network, which must be one's own."""
    for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        try:
            with open(f"/proc/sys/net/{family}", "w") as file:
                file.write("1")
        except FileNotFoundError:  # IPv6 is off
            pass
