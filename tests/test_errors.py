"""Every exception has the one base and the fitting builtin, and survives pickling (worker processes raise them)."""

import copy
import errno
import pickle

import pytest

from fasttcp import errors

BUILTIN = {
    "FastTCPError": Exception,
    "ProfileError": ValueError,
    "SegmentError": ValueError,
    "FilterError": ValueError,
    "StateError": RuntimeError,
    "StaleHandle": LookupError,
    "TableFull": RuntimeError,
    "WrongThread": RuntimeError,
    "InvariantError": AssertionError,
    "TupleInUse": OSError,
    "PortsExhausted": OSError,
    "CaptureError": ValueError,
    "SnapshotError": ValueError,
}


def test_the_public_names_are_exactly_these():
    assert sorted(errors.__all__) == sorted(BUILTIN)


@pytest.mark.parametrize("name", errors.__all__)
def test_base_builtin_and_docstring(name):
    cls = getattr(errors, name)
    assert issubclass(cls, errors.FastTCPError)
    assert issubclass(cls, BUILTIN[name])
    assert cls.__doc__ and cls.__doc__ != errors.FastTCPError.__base__.__doc__


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy], ids=["pickle", "copy"])
def test_a_copy_says_the_same(name, duplicate):
    error = getattr(errors, name)("what happened")
    again = duplicate(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert "what happened" in str(again)
    assert again.args == error.args


def test_address_errors_look_like_those_of_a_socket():
    in_use = errors.TupleInUse("10.0.0.1:40000 -> 10.0.0.2:80 is in TIME_WAIT")
    assert in_use.errno == errno.EADDRINUSE
    assert in_use.strerror == "10.0.0.1:40000 -> 10.0.0.2:80 is in TIME_WAIT"
    assert errors.PortsExhausted("none left").errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError) as caught:
        raise in_use
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("cls", [errors.CaptureError, errors.SnapshotError])
def test_file_errors_say_which_file_and_where(cls):
    error = cls("record longer than the file", "a.pcap", 24)
    assert str(error) == "a.pcap: byte 24: record longer than the file"
    assert (error.file, error.offset, error.message) == ("a.pcap", 24, "record longer than the file")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.file, again.offset) == (str(error), "a.pcap", 24)
    assert str(cls("no magic number", "-")) == "-: no magic number"
    assert str(cls("no magic number", offset=0)) == "byte 0: no magic number"


def test_one_mistake_is_not_caught_as_another_kind():
    assert not issubclass(errors.StateError, ValueError)
    assert not issubclass(errors.TableFull, MemoryError)
    assert not issubclass(errors.CaptureError, errors.ProfileError)
    assert not issubclass(errors.PortsExhausted, errors.TupleInUse)
