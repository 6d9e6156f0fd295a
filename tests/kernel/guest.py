"""Runs a command under another kernel: a virtual machine in software whose root is this machine's, changes kept in memory.

    apt-get download linux-image-6.1.0-56-amd64; dpkg -x linux-image-6.1.0-56-amd64*.deb KERNEL
    python tests/kernel/guest.py KERNEL pytest tests/load/test_load_lossy.py

    initramfs (busybox, modules) --9p--> / of this machine, read only --overlay--> root --> the command, as root

For what this machine's kernel lacks, such as netem, and for a second witness. Any kernel does that has 9p and overlayfs.
Needs qemu-system-x86 and busybox-static. Ten seconds to start; then 10 to 20 times slower than here, so what is timed is not
to be run there. There is no network but loopback. The exit status is the command's.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

EARLY = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
# What tests would have loaded on demand: there is no modprobe in the guest.
LATER = ("tun", "veth", "ifb", "sch_netem", "sch_ingress", "act_mirred", "cls_matchall", "tcp_diag")
MEMORY_MB = 3072
ENDED = "the command ended with status"
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /lower
mount -t tmpfs memory /over
mkdir /over/changed /over/work
mount -t overlay -o lowerdir=/lower,upperdir=/over/changed,workdir=/over/work all /all
for each in proc sys dev; do mount --move /$each /all/$each; done
mkdir -p /all/dev/pts /all/dev/shm
mount -t devpts pts /all/dev/pts
mount -t tmpfs memory /all/dev/shm
ip link set lo up
cp /command /all/command
exec switch_root /all /bin/sh /command
"""


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """An initramfs: files and folders by name, each (mode, content), in cpio's "newc" format (kernel, initramfs-buffer-format)."""
    out = bytearray()
    for inode, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def modules(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of these modules, each behind those that it depends on; what is built into the kernel has none."""
    files = {path.stem: path for path in folder.rglob("*.ko")}
    order: list[Path] = []

    def need(name: str) -> None:
        path = files.get(name)
        if path is None or path in order:
            return
        told = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for other in told[1].decode().split(",") if told else ():
            need(other)
        order.append(path)

    for name in names:
        need(name)
    return order


def initramfs(loaded: list[Path], command: list[str]) -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("busybox is missing: `apt-get install busybox-static`")
    here = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in here.items())
    script = f"""export PYTHONDONTWRITEBYTECODE=1 {exports}
cd {shlex.quote(os.getcwd())}
{shlex.join(command)}
echo "{ENDED} $?"
{shlex.quote(busybox)} poweroff -f
"""
    files = dict.fromkeys(("bin", "proc", "sys", "dev", "lower", "over", "all", "modules"), (0o40755, b""))
    files["bin/busybox"] = 0o100755, Path(busybox).read_bytes()
    files["init"] = 0o100755, INIT.encode()
    files["command"] = 0o100644, script.encode()
    files["modules/order"] = 0o100644, "\n".join(path.name for path in loaded).encode()
    return archive(files | {f"modules/{path.name}": (0o100644, path.read_bytes()) for path in loaded})


def run(kernel: Path, command: list[str]) -> int:
    """The status of the command; 1 when the guest did not come as far."""
    image = next(kernel.glob("boot/vmlinuz-*"))
    loaded = modules(kernel, EARLY + LATER)
    status = 1
    with tempfile.NamedTemporaryFile() as initrd:
        initrd.write(initramfs(loaded, command))
        initrd.flush()
        machine = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB),
                "-kernel", str(image), "-initrd", initrd.name, "-append", "console=ttyS0 quiet panic=-1", "-no-reboot",
                "-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none",
                "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        assert machine.stdout is not None
        try:
            for line in machine.stdout:
                if line.startswith(ENDED):
                    status = int(line.split()[-1])
                print(line, end="", flush=True)
        finally:
            machine.kill()
            machine.wait()
    return status


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit((__doc__ or "").split("\n\n")[1])
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
