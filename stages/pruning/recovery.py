"""What a pruned network gets back: least-squares refits and distillation.

Nothing here knows a model family. A fixed number of threads and seeded generators, so that bytes repeat on any
number of cores.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from stages.core import progress
from stages.core.params.prune import PruneParams

REFIT_THREADS = 2
DISTILL_THREADS = 1  # steps are small: on a machine that does other work too, a second thread costs more than it gives

DRAWS = 16  # batches in a mean loss: with the batch sizes of the families, most of a tuning split

Loss = Callable[[torch.Generator], torch.Tensor]
"""The loss of one step, on data that it draws with the generator."""
Refit = Callable[[], dict[str, float]]
"""Refits the layers of a network that was cut, in place, and gives the relative error of each."""
Fit = tuple[torch.Tensor, torch.Tensor]
"""Weight (out, in) and bias (out,) of a dense layer."""


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Run torch on `count` threads within the block, whatever the machine has.

    The order of a sum follows the number of threads; with that fixed the kernels used here repeat to
    the bit, on one core as on many. `use_deterministic_algorithms` would add nothing on a CPU but
    three seconds of imports.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# Least squares


def count_within(lengths: Iterable[int], most: int) -> int:
    """Count how many recordings, from the first on, have at most so many frames together; one in any case."""
    return max(1, sum(end <= most for end in itertools.accumulate(lengths)))


def gram(inputs: torch.Tensor) -> torch.Tensor:
    """Compute the second moments of `inputs` (frames, n) and a constant 1: float64 (n + 1, n + 1)."""
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    return (extended.T @ extended).double()


def damped(moments: torch.Tensor, damping: float) -> torch.Tensor:
    """Raise the diagonal of `moments` by `damping` times its mean: ridge regression that is blind to scale."""
    ridge = moments.clone()
    ridge.diagonal().add_(damping * moments.diagonal().mean())
    return ridge


def least_squares(inputs: torch.Tensor, wanted: torch.Tensor, damping: float, *, intercept: bool = True) -> Fit:
    """Fit the dense layer that maps `inputs` (frames, in) closest to `wanted` (frames, out).

    He et al., "Channel pruning for accelerating very deep neural networks", 2017, section 3.1: the
    reconstruction after a cut. Without `intercept` the bias is zero.
    """
    moments = gram(inputs)
    cross = torch.cat([inputs.T @ wanted, wanted.sum(dim=0, keepdim=True)]).double()
    if not intercept:
        moments, cross = moments[:-1, :-1], cross[:-1]
    solution = torch.linalg.solve(damped(moments, damping), cross)
    if not intercept:
        return solution.T.float(), torch.zeros(wanted.shape[1])
    return solution[:-1].T.float(), solution[-1].float()


def reduced_rank(
    inputs: torch.Tensor, wanted: torch.Tensor, rank: int, damping: float, importance: torch.Tensor | None = None
) -> tuple[Fit, Fit]:
    """Return two dense layers, `rank` wide between them, that map `inputs` closest to `wanted`.

    Izenman, "Reduced-rank regression for the multivariate linear model", 1975: the full regression
    followed by the leading principal components of what it predicts. Two layers with no
    nonlinearity between them have no channels worth choosing among: any rotation of them is as good.
    Width beyond the number of outputs has nothing to carry and is zero. Both layers' weights are of about one size, so
    that a step of training is as large for either.

    inputs: (frames, in). wanted: (frames, out). importance: a positive definite matrix A (out, out), in float64; the
    errors e of a frame count as e^T A e. Without, all count the same.
    """
    tiny = torch.finfo().tiny
    weight, bias = least_squares(inputs, wanted, damping)
    root, inverse = _roots(importance if importance is not None else torch.eye(len(bias), dtype=torch.float64))
    predicted = (inputs @ weight.T + bias) @ root
    mean = predicted.mean(dim=0)
    centred = predicted - mean
    _, vectors = torch.linalg.eigh((centred.T @ centred).double())
    leading = vectors.flip(1)[:, :rank].float()
    leading = torch.nn.functional.pad(leading, (0, rank - leading.shape[1]))
    first, second = leading.T @ root @ weight, inverse @ leading
    scale = ((second.norm(dim=0) + tiny) / (first.norm(dim=1) + tiny)).sqrt()
    return (scale[:, None] * first, scale * (leading.T @ (root @ bias - mean))), (second / scale, inverse @ mean)


def _roots(matrix: torch.Tensor) -> Fit:
    """Return the symmetric square root of a positive definite matrix, and that of its inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    return ((vectors * values.sqrt()) @ vectors.T).float(), ((vectors / values.sqrt()) @ vectors.T).float()


def refit(
    linears: Sequence[torch.nn.Linear],
    inputs: torch.Tensor,
    wanted: torch.Tensor,
    damping: float,
    importance: torch.Tensor | None = None,
) -> None:
    """Give one dense layer, or two in a row, the weights that map `inputs` closest to `wanted`.

    importance: of two, as `reduced_rank` takes it.
    """
    if len(linears) == 1:
        fits: Sequence[Fit] = [least_squares(inputs, wanted, damping, intercept=linears[0].bias is not None)]
    else:
        fits = reduced_rank(inputs, wanted, linears[0].out_features, damping, importance)
    for linear, (weight, bias) in zip(linears, fits, strict=True):
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(bias)


def minimize(layers: Sequence[torch.nn.Linear], loss: Callable[[], torch.Tensor], iterations: int) -> None:
    """Change dense layers in place so that a loss of them falls, by L-BFGS with all data in every iteration.

    Liu & Nocedal, "On the limited memory BFGS method for large scale optimization", 1989: for a few layers on fixed
    inputs an iteration does what dozens of Adam's steps do.
    """
    parameters = [parameter.requires_grad_() for layer in layers for parameter in layer.parameters()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    for parameter in parameters:
        parameter.requires_grad_(False)


def record(module: torch.nn.Module, stream: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Record what enters and leaves each dense layer, (frames, channels) by its name, for one stream (frames, n)."""
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, given: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs[name], outputs[name] = given[0][0], output[0]

        return hook

    linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in linears.items()]
    module(stream[None])
    for hook in hooks:
        hook.remove()
    return inputs, outputs


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the squared error as a share of the variance of `wanted`, over all frames and channels."""
    return float((found - wanted).square().sum() / (wanted - wanted.mean(dim=0)).square().sum())


# Distillation


def divergence(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Average the Kullback-Leibler divergence of posteriors from the teacher's; logits (..., classes) of both."""
    found, wanted = found.log_softmax(dim=-1), wanted.log_softmax(dim=-1)
    total = torch.nn.functional.kl_div(found, wanted, reduction="sum", log_target=True)
    return total / found[..., 0].numel()


def mean_loss(loss: Loss) -> float:
    """Average DRAWS draws that are the same each time, so that two networks differ by more than the draw."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return sum(float(loss(generator)) for _ in progress.each(range(DRAWS), "distance to the dense model")) / DRAWS


@dataclass(frozen=True)
class Course:
    """How a distillation went.

    losses: of each step. validation: loss by step, 0 being before the first. kept: the step whose weights stayed.
    """

    losses: list[float]
    validation: dict[int, float]
    kept: int


def distill(
    student: torch.nn.Module, loss: Loss, validate: Callable[[], float], before: float, settings: PruneParams
) -> Course:
    """Train `student` in place with Adam, and leave it with the weights that validated best.

    The learning rate rises for `warmup` steps and then falls as a cosine. It stops early once `patience` validations in
    a row, one each `validate_every` steps and one after the last, were no better than the best: Prechelt, "Early
    stopping - but when?", 1998. The budget is in steps, for bytes to repeat.

    before: what `validate` gives of the student as it is.
    """
    steps = settings.distill_steps
    if steps == 0:
        return Course([], {0: before}, 0)
    generator = torch.Generator().manual_seed(settings.seed)
    kept, weights = 0, student.state_dict()
    student.load_state_dict(copy.deepcopy(weights), assign=True)  # steps change a copy: some may be the teacher's own
    student.requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=settings.learning_rate)
    schedule = _schedule(optimizer, steps, settings.warmup)
    losses, validation = [], {0: before}
    for step in progress.each(range(1, steps + 1), "distillation steps"):
        found = loss(generator)
        optimizer.zero_grad()
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(found.detach()))
        if step % settings.validate_every and step < steps:
            continue
        validation[step] = validate()
        if validation[step] < validation[kept]:
            kept, weights = step, copy.deepcopy(student.state_dict())
        elif sum(validated > kept for validated in validation) >= settings.patience:
            break
    student.load_state_dict(weights)
    student.requires_grad_(False)
    return Course(losses, validation, kept)


def _schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Raise the learning rate in the first `warmup` of the steps, and let it fall as a cosine over the others."""
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warmup))
    if warmup == 0:
        return falling
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], milestones=[warmup])
