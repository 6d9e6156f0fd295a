"""docs/time-wait.md: what stands in the page is what its experiments print, and they show what the text says."""

import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from fasttcp import profile
from fasttcp.endpoint.lab import Lab
from fasttcp.endpoint.ladder import ladder_svg

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def output(name):
    page = (DOCS / "time-wait.md").read_text(encoding="utf-8")
    return page.split(f"<!-- output of time-wait/{name}.py -->\n```text\n")[1].split("```\n")[0]


@pytest.mark.tree
def test_the_page_is_fresh():
    check = subprocess.run(
        [sys.executable, str(ROOT / "tools/time_wait.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (check.returncode, check.stderr) == (0, "")


@pytest.mark.tree
def test_every_experiment_stands_in_the_page():
    page = (DOCS / "time-wait.md").read_text(encoding="utf-8")
    for script in (DOCS / "time-wait").glob("*.py"):
        assert f"<!-- output of time-wait/{script.name} -->" in page
    for picture in (DOCS / "time-wait").glob("*.svg"):
        assert f"(time-wait/{picture.name})" in page
        xml.etree.ElementTree.parse(picture)


@pytest.mark.tree
def test_the_outputs_show_what_the_text_says():
    opening = output("open").split("\n\n")
    assert opening[0].count("->") + opening[0].count("<-") == 3
    assert "RST" in opening[1] and "an old duplicate" in opening[1]
    assert "the client read: the rest of the answer" in output("close")
    with_wait, without = output("last_ack_lost").split("without TIME_WAIT")
    assert "RCV_ACK_OF_FIN" in with_wait and "RCV_RST" in without
    without, with_wait = output("old_duplicate").split("with TIME_WAIT\n")
    assert "64,000 are not what was sent" in without and "old-old-" in without
    assert "refused" in with_wait and "are not what was sent" not in with_wait
    assert "the server read: new data; old duplicates dropped: 1" in output("tw_reuse")
    assert output("closing").count("CLOSING") >= 4
    before, after = output("rst_in_time_wait").split("tcp_rfc1337 = 1\n")
    assert "CLOSED        <" in before and "CLOSED        <" not in after


# ---- the lab itself --------------------------------------------------------------------------------------------------


def test_a_lab_carries_what_was_sent():
    lab = Lab(delay_ms=10)
    assert lab.connect()
    lab.run()
    assert (lab.client.state, lab.server.state) == ("ESTABLISHED", "ESTABLISHED")
    text = bytes(range(256)) * 20
    lab.client.send(text)
    lab.server.send(b"answer")
    lab.run()
    assert (bytes(lab.server.read), bytes(lab.client.read)) == (text, b"answer")
    for host in lab.hosts:
        host.table.check_invariants()


def test_a_lost_segment_is_sent_again_and_the_stream_is_whole():
    lab = Lab()
    lab.connect()
    lab.run()
    lab.wire.lose("PA", sender=lab.client)
    lab.client.send(b"first")
    lab.client.send(b"second")
    lab.run(seconds=2)
    assert bytes(lab.server.read) == b"firstsecond"
    assert [line.fate for line in lab.lines if line.fate] == ["lost"]


def test_a_call_without_a_connection_says_so_and_a_refused_connect_too():
    lab = Lab(client=profile("linux").replace(tcp_tw_reuse=0), listen=False)
    lab.client.close()
    assert "there is no connection" in lab.lines[-1].text
    assert lab.connect()
    lab.run()
    assert lab.client.state == "CLOSED" and lab.client.ends == ["refused"]
    busy = Lab()
    assert busy.connect() and not busy.connect()
    assert "refused" in busy.lines[-1].fate


def test_a_ladder_has_a_line_for_each_segment():
    lab = Lab()
    lab.connect()
    lab.run()
    text = lab.ladder().splitlines()
    assert len(text) == 5
    assert text[2].split() == ["0.000", "SYN_SENT", "---", "SYN", "seq=0", "----------------------------->", "SYN_RCVD"]
    assert text[3].split()[1:3] == ["ESTABLISHED", "<-------------------"] and text[3].endswith("SYN_RCVD")
    root = xml.etree.ElementTree.fromstring(ladder_svg(lab.lines, "three segments"))
    arrows = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("marker-end")]
    assert len(arrows) == 3
