"""`fasttcp plan` against real sockets of this kernel: kernel_plan says how. The run itself is slow; its record is not."""

import json
import sys

import pytest
from kernel import netns
from kernel_plan import record
from kernel_plan.compare import compare
from kernel_plan.drive import drive_all
from kernel_plan.scenarios import SCENARIOS, grain_ns


def differences(runs, hz):
    for scenario in SCENARIOS:
        run = runs[scenario.name]
        for figure in compare(scenario, run, scenario.predict(hz, run["jiffies"])):
            if not figure.agrees and (scenario.name, figure.name) not in record.EXPLAINED:
                yield scenario.name, figure.name, figure.kernel, figure.plan


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is Linux's")
def test_the_kernel_agrees():
    """Two and a half minutes: TIME_WAIT lasts 60 s in Linux, and cannot be made shorter."""
    if reason := netns.why_not(tap=False):
        pytest.skip(reason)
    runs = drive_all(SCENARIOS)
    late = max(run["late_s"] for run in runs.values())
    assert late < 1, f"the driver was {late:.1f} s behind its timetable: this machine is too busy for a comparison"
    assert list(differences(runs, record.hz())) == []


@pytest.mark.tree
def test_the_recorded_run_agrees():
    data = json.loads(record.RECORD.read_text(encoding="utf-8"))
    assert list(differences(data["runs"], data["hz"])) == []


@pytest.mark.tree
def test_the_page_is_what_the_record_and_the_plan_say():
    data = json.loads(record.RECORD.read_text(encoding="utf-8"))
    hint = "cd tests && python -m kernel_plan.record --page"
    assert record.PAGE.read_text(encoding="utf-8") == record.page(data), hint
    assert record.PLOT.read_text(encoding="utf-8") == record.plot(data), hint


@pytest.mark.parametrize(
    ("seconds", "hz", "grain"), [(60, 250, 2.048), (60, 1000, 4.096), (60, 100, 5.12), (5, 250, 0.256), (0.2, 1000, 0.008)]
)
def test_the_grain_of_the_kernels_timers(seconds, hz, grain):
    assert grain_ns(seconds, hz) == pytest.approx(grain * 1e9)
