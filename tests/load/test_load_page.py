"""The page of `fasttcp load --html` in a real browser: at the width of a screen and of a telephone nothing runs over, and
every plot is there to be seen."""

import json
import os
import re
import shutil
import subprocess
import sys
from html import escape, unescape

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
# A frame is as wide as it is told, a window only as narrow as the browser allows.
FRAME = """<!DOCTYPE html><body><iframe width="%d" height="900" srcdoc="%s"></iframe><pre id="told"></pre><script>
document.querySelector("iframe").onload = function () {
    const page = this.contentDocument, width = this.contentWindow.innerWidth;
    const boxes = [...page.querySelectorAll("svg")].map(plot => plot.getBoundingClientRect());
    const lines = [...page.querySelectorAll("svg path, svg polyline")].map(line => line.getBoundingClientRect());
    document.querySelector("#told").textContent = JSON.stringify({
        width: width, needed: page.documentElement.scrollWidth, height: page.documentElement.scrollHeight,
        plots: boxes.map(b => [b.left, b.right, b.width, b.height]), drawn: lines.filter(b => b.width > 20).length,
        title: page.querySelector("h1").getBoundingClientRect().height, rows: page.querySelectorAll("table tr").length,
    });
};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "load.html"
    run = ["load", "--hold", "100", "--churn", "200", "--duration", "2200ms", "--http", "--html", str(file)]
    told = subprocess.run([sys.executable, "-m", "fasttcp", *run], capture_output=True, text=True, timeout=60)
    if not file.exists():
        pytest.skip(f"no network of its own here: {told.stderr.strip()}")
    return file.read_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_over_and_every_plot_is_seen(page, width, tmp_path):
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME % (width, escape(page)))
    dom = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}",
            "--window-size=1400,1000", "--virtual-time-budget=4000", "--dump-dom", frame.as_uri(),
        ],
        capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(tmp_path)},
    ).stdout  # fmt: skip
    told = json.loads(unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)[1]))
    assert told["width"] <= width
    assert told["needed"] <= told["width"], "the page is scrolled sideways"
    assert len(told["plots"]) == page.count("<svg") >= 5
    for left, right, wide, high in told["plots"]:
        assert left >= 0 and right <= told["width"] and wide > 250 and high > 100
    assert told["drawn"] >= len(told["plots"])
    assert told["title"] > 15 and told["rows"] >= 5
