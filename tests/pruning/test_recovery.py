"""Distillation keeps the weights that validate best and stops when nothing gets better."""

from __future__ import annotations

import pytest
import torch

from stages.pruning import recovery
from tests.workspace import PRUNE


class Student(torch.nn.Module):
    """One weight that every step moves by about the learning rate, towards 0 from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def loss(self, _: torch.Generator) -> torch.Tensor:
        """Falls without end."""
        return self.weight


def distill(student: Student, best: float, **changes: float) -> recovery.Course:
    """Distil for up to 100 steps of 0.01 what is best at a weight of `best`."""
    usual = {"validate_every": 10, "patience": 2, "distill_steps": 100, "learning_rate": 0.01}
    settings = PRUNE.model_copy(update=usual | changes)

    def validate() -> float:
        return abs(float(student.weight.detach()) - best)

    return recovery.distill(student, student.loss, validate, validate(), settings)


def test_the_best_weights_are_kept_and_it_stops_after_its_patience():
    student = Student()
    course = distill(student, best=0.8)
    assert course.kept == 20
    assert list(course.validation) == [0, 10, 20, 30, 40]
    assert len(course.losses) == 40
    assert float(student.weight) == pytest.approx(0.8, abs=0.02)
    assert course.validation[20] == abs(float(student.weight) - 0.8)


def test_more_patience_goes_further_and_keeps_the_same():
    patient, other = Student(), Student()
    course = distill(patient, best=0.8, patience=4)
    distill(other, best=0.8)
    assert len(course.losses) == 60
    assert torch.equal(patient.weight, other.weight)


def test_a_student_that_only_gets_worse_stays_as_it_was():
    student = Student()
    assert distill(student, best=1.0).kept == 0
    assert float(student.weight) == 1


def test_a_student_that_gets_better_to_the_end_takes_every_step():
    course = distill(Student(), best=-1, distill_steps=25)
    assert course.kept == len(course.losses) == 25
    assert list(course.validation) == [0, 10, 20, 25]


def test_the_learning_rate_rises_before_it_falls():
    cold, warm = Student(), Student()
    distill(cold, best=-1, distill_steps=10)
    distill(warm, best=-1, distill_steps=10, warmup=10)
    risen = sum(step / 11 for step in range(1, 11)) * 0.01  # Adam's steps are as long as the learning rate
    assert float(warm.weight) == pytest.approx(1 - risen, abs=1e-3)
    assert float(cold.weight) < 1 - 0.05


def test_layers_are_minimized_in_place_and_are_as_fixed_as_before():
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(4, 3).requires_grad_(False)
    inputs, wanted = torch.randn(50, 4, generator=generator), torch.randn(4, 3, generator=generator)
    recovery.minimize([layer], lambda: (layer(inputs) - inputs @ wanted).square().mean(), 30)
    torch.testing.assert_close(layer.weight, wanted.T, atol=1e-3, rtol=0)
    assert not layer.weight.requires_grad


def test_a_mean_loss_repeats():
    def loss(generator: torch.Generator) -> torch.Tensor:
        return torch.rand((), generator=generator)

    assert recovery.mean_loss(loss) == recovery.mean_loss(loss) == pytest.approx(0.5, abs=0.3)
