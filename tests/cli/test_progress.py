"""The line of progress fits the terminal, whatever its width: one that wraps could not be overwritten."""

import os
import re
import struct
import subprocess
import sys

import pytest

from fasttcp.cli import progress


def test_parts_that_do_not_fit_are_left_out(monkeypatch, capfd):
    for columns, shown in ((80, "one  two  three"), (16, "one  two  three"), (15, "one  two"), (4, "one"), (3, "on")):
        monkeypatch.setattr(os, "get_terminal_size", lambda fd, columns=columns: os.terminal_size((columns, 24)))
        progress.progress_line("one", "two", "three")
        assert capfd.readouterr().err == f"\r\033[K{shown}"
    progress.clear_progress()
    assert capfd.readouterr().err == "\r\033[K"


def test_a_terminal_without_a_width_has_80_columns(monkeypatch, capfd):
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
    progress.progress_line("a" * 79, "b")
    assert capfd.readouterr().err == "\r\033[K" + "a" * 79


@pytest.mark.skipif(os.name == "nt", reason="a pty")
@pytest.mark.parametrize("columns", [30, 80, 132])
def test_no_line_of_a_real_load_wraps(columns):
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    call = [sys.executable, "-m", "fasttcp", "load", "--hold", "2k", "--churn", "500", "--duration", "2.2s", "--http"]
    load = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=slave, text=True)
    os.close(slave)
    text = b""
    try:
        while piece := os.read(master, 65536):
            text += piece
    except OSError:
        pass  # the last process has closed it
    report, _ = load.communicate()
    os.close(master)
    if load.returncode == 1:
        pytest.skip(text.decode().strip())
    lines = [re.sub(r"\x1b\[K", "", each) for each in re.split(r"[\r\n]+", text.decode()) if each]
    assert "100.00%" in report
    assert len([each for each in lines if each.startswith("running")]) >= 2
    assert all(len(each) < columns for each in lines), lines
    assert any("conn/s" in each for each in lines) and any(("ESTABLISHED 2,000" in each) == (columns > 30) for each in lines)
    assert ("connect p50" in "".join(lines)) == (columns > 80)
