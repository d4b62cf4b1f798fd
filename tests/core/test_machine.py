"""What is said of the machine that something was measured on."""

import platform

import pytest

from stages.core import machine


def test_a_machine_is_its_processor_and_gpu_and_not_the_name_of_a_host(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "node", lambda: "build-7.internal")
    assert machine.name() == f"{machine.cpu()}; GPU: {machine.gpu()}"
    assert "build-7" not in machine.name()
