"""No parameter without effect: each is read when the seats are made, and what they keep of it is used."""

import re
from pathlib import Path

import pytest

from fasttcp import ConnectionTable
from fasttcp.observe.tracker import Tracker
from fasttcp.profiles import BUILTIN, PARAMETERS, Profile, profile

SOURCES = Path(__file__).resolve().parent.parent / "fasttcp"  # an installed package has no .pyx


class Noted:
    """Stands before a profile's own value and notes who was asked for."""

    def __init__(self, name, read):
        self.name, self.read = name, read

    def __get__(self, instance, owner):
        self.read.add(self.name)
        return instance.__dict__[self.name]

    def __set__(self, instance, value):
        raise AssertionError("a profile is frozen")  # to have it makes this come before what the instance holds


def test_every_parameter_is_read_by_a_seat(monkeypatch):
    profiles = [profile(name) for name in BUILTIN]
    read: dict[str, set[str]] = {"endpoint": set(), "observer": set()}
    for group, makes in (
        ("endpoint", (lambda each: ConnectionTable(4, profile=each),)),
        ("observer", (
            lambda each: ConnectionTable(4, profile=each, seat="observer"),
            lambda each: Tracker(each, max_connections=4),
        )),
    ):
        with monkeypatch.context() as patch:
            for parameter in PARAMETERS.values():
                patch.setattr(Profile, parameter.attribute, Noted(parameter.attribute, read[group]), raising=False)
            for each in profiles:
                for make in makes:
                    make(each)
    for group, found in read.items():
        assert {p.attribute for p in PARAMETERS.values() if p.group == group} - found == set()


@pytest.mark.tree
def test_every_field_of_the_compiled_policy_is_used():
    """policy.pyx copies a profile into struct Policy; each field of it is read by another file of the core."""
    struct = re.search(r"cdef struct Policy:\n(.*?)\n\n", (SOURCES / "core" / "policy.pxd").read_text(), re.S)
    fields = re.findall(r"^    \w+ +(\w+)", struct[1], re.M)
    assert len(fields) > 40
    text = "\n".join(path.read_text() for path in (SOURCES / "core").glob("*.pyx") if path.stem != "policy")
    # any_reserved and reserved are read by port_reserved, beside the struct
    unused = [name for name in fields if not re.search(rf"policy\.{name}\b", text)]
    assert unused == ["any_reserved", "reserved"]
    assert "port_reserved(" in text
