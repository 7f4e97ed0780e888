"""Machine facts say what matters for speed and nothing that identifies a person or host."""

from __future__ import annotations

import getpass
import os
import socket

from bitline.report.machine import machine_facts


def test_facts_without_host_user_or_path() -> None:
    facts = machine_facts()
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert {"processor", "python", "numpy", "numba", "system"} <= set(facts)
    text = " ".join(str(value) for value in facts.values())
    assert socket.gethostname() not in text.split()
    assert getpass.getuser() not in text.split()
    assert os.path.expanduser("~") not in text
    assert not any(str(value).startswith("/") for value in facts.values())
