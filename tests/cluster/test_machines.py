"""Which machine may build what; tests/extras/test_cluster.py has it built."""

from __future__ import annotations

import pytest

from stages.cluster import machines
from stages.cluster.machines import Machine
from stages.commands.schedule import Kind, Part

HERE = {"onnx": "1.23", "python": "3.11.7", "cpu": "A CPU, 8 cores", "gpu": "none", "onnxruntime-gpu": "not installed"}
HERE |= {"tensorrt": "not installed", "signing-key": "ab12"}
ON_GPU = {"gpu": "A GPU, 9.0, 580", "onnxruntime-gpu": "1.32", "tensorrt": "10.7"}


def machine(**facts: str) -> Machine:
    return Machine("node", "host", 8, 0.0, HERE | facts)


def part(kind: Kind, *, on_gpu: bool = False) -> Part:
    return Part("a", kind, ("a",), frozenset(), on_gpu)


def test_a_machine_with_another_library_is_refused_by_its_name_and_both_versions():
    assert machines.why_refused(HERE | {"onnx": "1.22"}, HERE) == "onnx: found 1.22, wanted 1.23"
    without = {name: fact for name, fact in HERE.items() if name != "onnx"}
    assert machines.why_refused(without, HERE) == "onnx: found None, wanted 1.23"


def test_another_processor_a_gpu_and_no_key_are_no_reason_to_refuse():
    assert machines.why_refused(HERE | {"cpu": "other", "signing-key": "none"} | ON_GPU, HERE) is None


@pytest.mark.parametrize("kind", ["timing", "pipeline"])
def test_times_are_measured_on_the_processor_of_the_build_alone(kind: Kind):
    declared = machines.declare(HERE, [HERE])
    assert machines.takes(machine(), part(kind), declared)
    assert not machines.takes(machine(cpu="other"), part(kind), declared)
    assert machines.takes(machine(cpu="other"), part("model"), declared)


def test_gpu_parts_go_to_the_gpu_that_the_build_declares():
    declared = machines.declare(HERE, [HERE, HERE | ON_GPU])
    assert declared == {"cpu": "A CPU, 8 cores"} | ON_GPU
    assert machines.takes(machine(**ON_GPU), part("model", on_gpu=True), declared)
    assert not machines.takes(machine(), part("model", on_gpu=True), declared)
    assert not machines.takes(machine(**(ON_GPU | {"tensorrt": "10.8"})), part("model", on_gpu=True), declared)
    assert machines.takes(machine(), part("model"), declared)


def test_the_gpu_of_the_machine_that_builds_comes_first():
    own = ON_GPU | {"gpu": "its own"}
    assert machines.declare(HERE | own, [HERE | ON_GPU])["gpu"] == "its own"
    assert machines.declare(HERE, [HERE])["gpu"] == "none"
