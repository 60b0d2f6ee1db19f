"""Logistic regression on frozen features for a whole grid of L2 penalties, each solved to its optimum.

The objective is sum_i loss(W x_i + b, label_i) + lambda / 2 ||W||^2, with the multinomial loss if an image has one
class, or with c independent binary losses if it has a label 0 or 1 for each class.

* Axes. The features are rotated to the axes of their covariance, which does not change the penalty. If there are fewer
  images than features, as many unknowns as images are left for each class.
* Preconditioner. In these axes the Hessian is close to the Kronecker product of the curvature in the classes and the
  features' variances, plus lambda. That is diagonal after a rotation of the classes, and preconditions L-BFGS.
* Memory. The pairs of L-BFGS stay of use for the next penalties, after a correction for the change of lambda and of
  the curvature.
* Leading axes. What the preconditioner misses is mostly in the few axes of largest variance. So before each gradient,
  an L-BFGS in these axes alone goes some steps, which cost next to nothing.
* Path. Penalties are solved from strong to weak, and each starts at the best linear combination of the last solutions.
* Cost. Logits are linear in W and are kept, so that combinations and lengths of steps are tried without a product of
  the features. A step takes two such products: for its logits and for its gradient.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MEMORY = 25  # pairs that L-BFGS keeps, which are of use for several penalties
LEADING = 64  # axes of largest variance (and the intercept) that have an L-BFGS of their own, if they are a small part
LEADING_EVALUATIONS = 4  # gradients in the leading axes before each gradient in all axes
LEADING_TOLERANCE = 0.3  # tolerance in the leading axes, relative to that in all axes
PAST_SOLUTIONS = 4  # solutions whose linear combination starts the next penalty
COMBINATION_STEPS = 8  # Newton steps to the best combination
REFRESH = 5  # gradients that share a preconditioner
DIGITS = 30  # multiple of its rounding error that a pair's curvature has to exceed
RELIABLE_LENGTH = 2.0  # a step as many times longer than predicted met less curvature than the preconditioner knows
SLOPE_LEFT = 0.3  # share of the slope at its start that may be left at the end of a step
LINE_SEARCH = 40  # lengths that are tried for one step
FLAT = 1e-5  # least curvature of a direction of classes, relative to the largest one


@dataclass(frozen=True)
class Fit:
    """A frozen dataclass that holds the solution for one penalty, in the precision that it was solved in.

    Attributes:
        penalty: lambda.
        weight: W.
        bias: b.
        loss: The objective at the solution, penalty included.
        gradient_norm: Norm of the objective's gradient in the preconditioner's metric. Its square is about the relative
            excess of the loss over the optimum.
        converged: Whether ``gradient_norm`` is at most the tolerance.
        evaluations: Number of gradients in all axes. Each took two products of the features and a matrix as large as W.
    """

    penalty: float
    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    loss: float
    gradient_norm: float
    converged: bool
    evaluations: int

    def scores(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m c"]:
        """Returns the logits of the classes for features ``x``."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias


class _Point(NamedTuple):
    """A named tuple that holds weights in the rotated axes, intercept last, and what they give."""

    w: Float[Tensor, "c r"]
    logits: Float[Tensor, "n c"]
    loss: float
    """The loss without penalty."""
    residual: Float[Tensor, "n c"]
    """Derivative of the loss in the logits: probability minus label."""


def logistic_path(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Int[Tensor, "n c"],
    *,
    classes: int,
    penalties: Sequence[float],
    tolerance: float = 3e-3,
    max_evaluations: int = 1000,
) -> list[Fit]:
    """Solves logistic regression for each penalty, and returns the solutions in the order of ``penalties``.

    It computes on the device of ``x`` and in its precision. If float32 does not suffice for one of the penalties, as
    for features that are almost the same for all images, all are solved in float64.

    Args:
        x: Features, in float32 or float64.
        labels: Class of each image, or a label 0 or 1 for each image and class.
        classes: Number of classes.
        penalties: Values of lambda, above 0. The closer they are, the less each of them costs.
        tolerance: Largest ``gradient_norm`` of a solution. The default gives a loss within about 1e-5 of the optimum,
            and 2e-4 within 1e-6.
        max_evaluations: Largest number of gradients for one penalty; a solution that takes more is returned as it is.

    Raises:
        ValueError: if a penalty is not above 0.
    """
    if not min(penalties, default=1.0) > 0:
        raise ValueError(f"penalties must be above 0, not {min(penalties)}")
    if x.dtype != torch.float64:
        with suppress(torch.linalg.LinAlgError):  # raised for matrices with NaN or infinity, an overflow of float32
            path = _path(_Problem(x, labels, classes), penalties, tolerance, max_evaluations)
            if all(fit.converged for fit in path):
                return path
    return _path(_Problem(x.double(), labels, classes), penalties, tolerance, max_evaluations)


def _path(problem: "_Problem", penalties: Sequence[float], tolerance: float, max_evaluations: int) -> list[Fit]:
    leading = copy(problem)
    leading.x, leading.column_squares = problem.x[:, -LEADING:].contiguous(), problem.column_squares[-LEADING:]
    leading_solver = None
    if problem.x.shape[1] >= 4 * LEADING:
        leading_solver = _Solver(leading, LEADING_TOLERANCE * tolerance, LEADING_EVALUATIONS)
    solver, solved, fits = _Solver(problem, tolerance, max_evaluations, leading_solver), [], {}
    point = problem.point(problem.x.new_zeros(problem.classes, problem.x.shape[1]))
    for penalty in sorted(set(penalties), reverse=True):
        point, norm, evaluations = solver.solve(_predicted(problem, solved, point, penalty), penalty)
        point = problem.point(point.w)  # computes the logits anew, without the rounding errors of many steps
        solved = [point, *solved[: PAST_SOLUTIONS - 1]]
        loss = point.loss + penalty / 2 * float(point.w[:, :-1].square().sum(dtype=torch.float64))
        fits[penalty] = Fit(penalty, *problem.to_original_axes(point.w), loss, norm, norm <= tolerance, evaluations)
    return [fits[penalty] for penalty in penalties]


class _Problem:
    """Computes the loss as a function of weights in the axes of the features' covariance.

    Attributes:
        x: Features in these axes, in the order of rising variance, and last a constant column for the intercept [n, r].
            The constant is as large as an image on average, so that everything scales with the features.
        column_squares: Sum of the squares in each column of ``x`` [r].
        intercept_loss: The least loss of an intercept without weights.
    """

    def __init__(self, x: Tensor, labels: Tensor, classes: int):
        self.mean = x.mean(0)
        x = x - self.mean
        basis = None
        if len(x) < x.shape[1]:  # all images lie in a space of as many axes as there are images
            basis, triangle = torch.linalg.qr(x.T)
            x = triangle.T
        axes = torch.linalg.eigh(x.T @ x).eigenvectors
        self.axes = axes if basis is None else basis @ axes
        x = x @ axes
        constant = x.square().sum(1).mean().sqrt()
        self.constant = torch.where(constant > 0, constant, 1.0)
        self.x = torch.cat([x, self.constant.expand(len(x), 1)], 1)
        self.column_squares = self.x.square().sum(0)
        self.binary = labels.ndim == 2
        self.labels, self.classes = labels if self.binary else labels[:, None].long(), classes
        counts = labels.sum(0) if self.binary else torch.bincount(labels, minlength=classes)
        shares = (torch.stack([counts, len(x) - counts]) if self.binary else counts).double() / len(x)
        self.intercept_loss = -len(x) * float(torch.xlogy(shares, shares).sum())

    def to_original_axes(self, w: Float[Tensor, "c r"]) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
        """Returns weights and biases for the features as they were given."""
        weight = w[:, :-1] @ self.axes.T
        return weight, w[:, -1] * self.constant - weight @ self.mean

    def point(self, w: Tensor, logits: Tensor | None = None) -> _Point:
        """Returns the point of weights ``w``; its logits are computed if they are not given."""
        logits = (w @ self.x.T).T if logits is None else logits  # the product is faster with classes as rows
        return _Point(w, logits, *self.loss(logits))

    def loss(self, logits: Float[Tensor, "n c"]) -> tuple[float, Float[Tensor, "n c"]]:
        """Returns the loss summed over images and its derivative in the logits.

        Both keep their relative precision for images whose class is almost certain.
        """
        if self.binary:
            sign = 1 - 2 * self.labels.to(logits.dtype)
            wrong_logit = sign * logits  # logit of the label that the image does not have
            return float(F.softplus(wrong_logit).sum(dtype=torch.float64)), sign * wrong_logit.sigmoid_()
        margins = logits - logits.gather(1, self.labels)
        highest = margins.amax(1, keepdim=True)  # 0 if the image's class has the highest logit
        others = margins.sub_(highest).exp_().scatter_(1, self.labels, 0.0)
        label_exp, total = (-highest).exp_(), others.sum(1, keepdim=True)
        loss = highest + torch.where(highest > 0, (label_exp + total).log(), total.log1p())
        residual = others.div_(label_exp + total).scatter_(1, self.labels, -total / (label_exp + total))
        return float(loss.sum(dtype=torch.float64)), residual

    def second_derivatives(
        self, directions: Float[Tensor, "k c n"], residual: Float[Tensor, "n c"]
    ) -> Float[Tensor, "k k"]:
        """Returns the loss's second derivatives along k changes of the logits."""
        if self.binary:
            directions = directions * (residual.abs() * (1 - residual.abs())).sqrt().T
        else:
            p = residual.scatter_add(1, self.labels, torch.ones_like(residual[:, :1])).T
            directions = directions - (directions * p).sum(1, keepdim=True)
            directions *= p.clamp_min_(0).sqrt_()
        return (directions.flatten(1) @ directions.flatten(1).T).double()

    def curvature(self, residual: Float[Tensor, "n c"]) -> tuple[Float[Tensor, " c"], Tensor | None]:
        """Returns eigenvalues and eigenvectors [c, c] of the loss's second derivatives in the logits.

        The derivatives are averaged over images. The eigenvectors are None for binary losses, whose second derivatives
        are diagonal.
        """
        if self.binary:
            values, vectors = (residual.abs() * (1 - residual.abs())).mean(0), None
        else:
            # The mean of diag(p) - p p^T for p = label + residual, written without the labels' ones, which cancel.
            by_label = residual.new_zeros(self.classes, self.classes).index_add_(0, self.labels[:, 0], residual)
            matrix = residual.sum(0).diag() - by_label - by_label.T - residual.T @ residual
            matrix += matrix.trace() / self.classes**2  # gives equal logits, which have no curvature, the average one
            values, vectors = torch.linalg.eigh(matrix / len(residual))
        return values.clamp_min(max(FLAT * float(values.max()), torch.finfo(values.dtype).tiny)), vectors


class _Solver:
    """Solves one penalty after another by preconditioned L-BFGS, which keeps its pairs.

    Attributes:
        pairs: Steps, the changes along them of the gradient without penalty, and of the gradient with penalty.
        curvature: Sum of the classes' curvatures for which the pairs hold now.
        ridge: Penalty of each column for which the pairs hold now [1, r]; the intercept has none.
        leading_solver: A solver in the leading axes that goes some steps before each gradient, or None.
    """

    def __init__(
        self, problem: _Problem, tolerance: float, max_evaluations: int, leading_solver: "_Solver | None" = None
    ):
        self.problem, self.tolerance, self.max_evaluations = problem, tolerance, max_evaluations
        self.leading_solver = leading_solver
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.curvature, self.ridge = 0.0, torch.zeros(0)

    def solve(self, point: _Point, penalty: float) -> tuple[_Point, float, int]:
        """Returns the solution, the norm of its gradient, and the number of gradients it took."""
        ridge = point.w.new_full((1, point.w.shape[1]), penalty)
        ridge[:, -1] = 0.0
        # The preconditioner measures the norm, so it is reliable only if the last step met the curvature known to it.
        last, reliable = None, False
        for evaluations in range(1, self.max_evaluations + 1):
            if self.leading_solver:
                further, *_ = self.leading_solver.solve(point._replace(w=point.w[:, -LEADING:]), penalty)
                point = further._replace(w=torch.cat([point.w[:, :-LEADING], further.w], 1))
            loss_gradient = point.residual.T @ self.problem.x
            if last:
                self.add_pair(point.w - last[0], loss_gradient - last[1], loss_gradient)
            last = point.w, loss_gradient
            gradient = loss_gradient + ridge * point.w
            if evaluations % REFRESH == 1:
                self.update_preconditioner(point, ridge)
            direction = self.direction(gradient)
            norm = self.gradient_norm(gradient, direction, point, penalty)
            if (norm <= self.tolerance and reliable) or evaluations == self.max_evaluations:
                break
            further, length = self.line_search(direction, point, gradient, ridge)
            if further is None:  # the rest of the way is below rounding
                break
            reliable, point = length < RELIABLE_LENGTH, further
        return point, norm, evaluations  # pyrefly: ignore[unbound-name]

    def add_pair(self, step: Tensor, change: Tensor, gradient: Tensor) -> None:
        """Keeps a pair of L-BFGS, unless its curvature is only rounding error, as may be next to a large penalty.

        Args:
            step: The last step [c, r].
            change: The change along it of the gradient without penalty [c, r].
            gradient: The gradient without penalty, whose size decides on rounding [c, r].
        """
        rounding = torch.finfo(change.dtype).eps * step.norm() * gradient.norm()
        if _inner(step, change) > DIGITS * rounding:
            self.pairs = [*self.pairs[1 - MEMORY :], (step, change, torch.addcmul(change, self.ridge, step))]

    def update_preconditioner(self, point: _Point, ridge: Tensor) -> None:
        """Computes the preconditioner at this point, and corrects the pairs for the change of curvature and penalty."""
        values, self.vectors = self.problem.curvature(point.residual)
        ratio = float(values.sum()) / self.curvature if self.pairs else 1.0
        self.curvature, self.ridge = float(values.sum()), ridge
        for step, change, penalized_change in self.pairs:
            torch.addcmul(change.mul_(ratio), ridge, step, out=penalized_change)
        self.inverse = 1 / (values[:, None] * self.problem.column_squares + ridge)

    def gradient_norm(self, gradient: Tensor, direction: Tensor, point: _Point, penalty: float) -> float:
        """Returns the gradient's norm in the preconditioner's metric, relative to the loss or to what it can fall."""
        excess = max(-float(_inner(gradient, direction)), 0.0) / 2
        loss = point.loss + penalty / 2 * float(point.w[:, :-1].square().sum(dtype=torch.float64))
        rounding = torch.finfo(gradient.dtype).eps * self.problem.intercept_loss  # decides if features tell nothing
        size = max(min(loss, self.problem.intercept_loss - loss), rounding)
        return math.sqrt(excess / size) if size else 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        """Returns the direction of L-BFGS by its two loops over the pairs [c, r]."""
        d, used = -gradient, []
        for step, _, change in reversed(self.pairs):
            scale = 1 / _inner(step, change)
            share = scale * _inner(step, d)
            d.addcmul_(change, share, value=-1)
            used.append((step, change, scale, share))
        d = self.inverse * d if self.vectors is None else self.vectors @ (self.inverse * (self.vectors.T @ d))
        for step, change, scale, share in reversed(used):
            d.addcmul_(step, share - scale * _inner(change, d))
        return d if self.vectors is None else d - d.mean(0, keepdim=True)  # a part that all classes share is rounding

    def line_search(self, d: Tensor, point: _Point, gradient: Tensor, ridge: Tensor) -> tuple[_Point | None, float]:
        """Finds the point in direction ``d`` where the slope of the objective is small, and the length of the step.

        Returns None and the last length if no length in :data:`LINE_SEARCH` trials has a small slope.
        """
        logits = (d @ self.problem.x.T).T  # change of the logits along d
        slope = float(_inner(gradient, d))
        # The penalty's share of the slope at a length is penalty_slope + length * penalty_curvature.
        penalty_slope, penalty_curvature = float(_inner(ridge * point.w, d)), float(_inner(ridge * d, d))
        low, high, length = (0.0, slope), (math.inf, math.nan), 1.0
        for _ in range(LINE_SEARCH):
            trial = self.problem.point(point.w + length * d, point.logits + length * logits)
            trial_slope = float(_inner(trial.residual.T, logits.T)) + penalty_slope + length * penalty_curvature
            if abs(trial_slope) <= SLOPE_LEFT * abs(slope):
                return trial, length
            low, high = ((length, trial_slope), high) if trial_slope < 0 else (low, (length, trial_slope))
            if math.isinf(high[0]):  # the minimum is further away: extrapolate the slope to 0
                length = min(4 * length, length * slope / (slope - trial_slope)) if trial_slope > slope else 4 * length
            else:  # the minimum is between low and high: interpolate
                length = low[0] + min(max(low[1] / (low[1] - high[1]), 0.1), 0.9) * (high[0] - low[0])
        return None, length


def _predicted(problem: _Problem, solved: list[_Point], last: _Point, penalty: float) -> _Point:
    """Returns the best linear combination of the last solutions, as the start for the next penalty.

    Newton's method finds its few coefficients. The logits of the solutions are known, so no product of the features is
    needed.
    """
    if len(solved) < 2:
        return last
    ws, logits = [point.w for point in solved], [point.logits.T for point in solved]
    for order in range(1, len(ws)):  # repeated differences, because the solutions themselves are almost parallel
        for i in reversed(range(order, len(ws))):
            ws[i], logits[i] = ws[i - 1] - ws[i], logits[i - 1] - logits[i]
    sizes = [float(w.norm()) or 1.0 for w in ws]
    w, z = (torch.stack([part / size for part, size in zip(parts, sizes, strict=True)]) for parts in (ws, logits))
    ridge = penalty * (w[:, :, :-1].flatten(1) @ w[:, :, :-1].flatten(1).T).double()
    rounding = 10 * torch.finfo(w.dtype).eps
    coefficients, best_value, best = torch.zeros(len(w), dtype=torch.float64, device=w.device), math.inf, None
    coefficients[0] = sizes[0]  # starts at the last solution
    for _ in range(COMBINATION_STEPS):
        combined = torch.tensordot(coefficients.to(z), z, 1).T
        loss, residual = problem.loss(combined)
        value = loss + float(coefficients @ ridge @ coefficients) / 2
        if best and not value < best_value:
            break
        best_value, best = value, (coefficients, combined, loss, residual)
        gradient = (z.flatten(1) @ residual.T.flatten()).double() + ridge @ coefficients
        hessian = problem.second_derivatives(z, residual) + ridge
        coefficients = coefficients - torch.linalg.pinv(hessian, rtol=rounding, hermitian=True) @ gradient
        if gradient @ (best[0] - coefficients) < 1e-6 * best_value:
            break
    return _Point(torch.tensordot(best[0].to(w), w, 1), *best[1:]) if best else last


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
