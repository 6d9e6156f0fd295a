"""The README is held to its word: its Python runs, and its two commands have the form that .ci/run takes them from."""

import os
import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.tree


def examples():
    return list(Sybil(parsers=[PythonCodeBlockParser()]).parse(README).examples())


def test_python_examples_run_in_their_order(monkeypatch):
    """They share one namespace and run in the README's folder, as a reader would run them."""
    monkeypatch.chdir(ROOT)
    blocks = examples()
    assert blocks, "the README shows Python"
    for example in blocks:
        example.evaluate()


def test_no_python_block_escapes():
    fences = re.findall(r"^```(\w*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(examples()) == fences.count("python")
    assert set(fences) <= {"python", "sh", "text", ""}


def test_two_commands_install_and_work():
    commands = re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(commands) == 2
    main, test = (command.strip() for command in commands)
    assert main.startswith("pip install . && fasttcp ")
    assert test == "pip install '.[test]' && pytest"


def test_files_that_commands_and_links_name_exist():
    text = README.read_text(encoding="utf-8")
    named = re.findall(r"\]\((?!https?:)([^)#]+)\)", text) + re.findall(r"\b(?:tests|docs)/[\w./-]*\w\.\w+", text)
    assert named
    assert not [name for name in named if not os.path.exists(ROOT / name)]
