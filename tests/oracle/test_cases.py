"""Every case that a wire can show is compared with Linux, or it is said why not; and the documentation says the same."""

import re
from pathlib import Path

import pytest

from oracle import cases, differences, scripts, test_against_linux, test_listener, test_scenes

HERE = Path(__file__).parent


def known():
    tests = re.findall(r"^def (test_\w+)", (HERE / "test_against_linux.py").read_text(encoding="utf-8"), re.M)
    return {
        *tests, *test_against_linux.PROBES, *test_against_linux.OPENING, *test_listener.SCENES, *test_scenes.SCENES,
        *(script.name for script in [*scripts.SCRIPTS, *scripts.LONG]),
    }  # fmt: skip


def test_every_case_from_1_to_48_has_an_exchange_or_a_reason():
    assert sorted({*cases.CASES, *cases.NOT_SHOWN}) == list(range(1, 49))
    assert {name for _, _, _, names in cases.CASES.values() for name in names} <= known()


def test_roles_are_those_that_are_played():
    for state, what, role, names in cases.CASES.values():
        played = {r for name in names if name in test_scenes.SCENES for r in test_scenes.SCENES[name].roles}
        if played and played == {"active"}:
            assert role in (cases.ACTIVE, cases.BOTH), (state, what)
    assert {case for case, each in cases.CASES.items() if each[2] in (cases.ACTIVE, cases.PASSIVE)} <= {
        3, 4, 5, 6, 8, 13, *cases.NOT_SHOWN
    }  # fmt: skip


@pytest.mark.tree
def test_the_table_of_the_documentation():
    text = (HERE.parents[1] / "docs/against-linux.md").read_text(encoding="utf-8")
    assert cases.table() in text, "print it: cd tests && python -m oracle.cases"


@pytest.mark.tree
def test_the_documentation_counts_right():
    text = (HERE.parents[1] / "docs/against-linux.md").read_text(encoding="utf-8")
    stories = sum(len(each.roles) for each in test_scenes.SCENES.values())
    d = differences
    for words in (
        f"{len(scripts.SCRIPTS)} scripts", f"{len(scripts.LONG)} more", f"{len(test_listener.SCENES)} scenes",
        f"{stories} stories",
        (f"{len(d.REASONS)} reasons, for {len(d.DIFFERENCES)} of the exchanges, {len(d.TIMED)} of the scripts, "
        f"{len(d.CROWDS)} of the scenes and {len(d.SCENES)} of the stories"),
    ):  # fmt: skip
        assert words in text, words
