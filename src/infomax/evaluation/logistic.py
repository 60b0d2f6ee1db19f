"""Logistic regression on frozen features for a whole grid of L2 penalties, each solved to its optimum.

The objective is sum_i loss(W x_i + b, label_i) + lambda / 2 ||W||^2, with the multinomial loss for one class per image,
or c independent binary ones for an indicator per class. The features are turned to the axes of their covariance, where
the penalty stays as it is, and fewer images than features leave as many unknowns as images. There the Hessian is close
to the Kronecker product of the classes' curvature and the features' variances, plus lambda, which is diagonal and
preconditions L-BFGS. Its pairs serve the next penalties too, once the change of lambda and of the curvature is taken
into account. What it misses is mostly in the few axes of large variance, so before each gradient an L-BFGS of these
alone goes some steps that cost next to nothing. The path goes from strong to weak; the best combination of the last
solutions starts the next. Logits are linear in W and are kept, so that combinations and lengths of steps are tried
without a product of the features: a step costs two, for its logits and its gradient.
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

MEMORY = 25  # pairs of L-BFGS; they stay of use for several penalties
LEADING = 64  # columns that have an L-BFGS of their own, where they are a small part
AHEAD, CLOSER = 4, 0.3  # its evaluations before each of all columns, and its tolerance relative to theirs
PAST, COMBINED = 4, 8  # solutions whose combination predicts the next, and trials of it
REFRESH = 5  # evaluations that share a preconditioner
DIGITS = 30  # a curvature above its rounding by that
SURE = 2.0  # times the step that the known curvature asks for: a longer one found less than that
STEEP = 0.3  # of the slope at its start, where a step may end
LINE_SEARCH = 40  # trials of one step's length
FLAT = 1e-5  # least curvature of a direction of classes, relative to the largest


@dataclass(frozen=True)
class Fit:
    """The solution for one penalty lambda, W and b, in the precision that it was found in.

    Attributes:
        loss: The objective there, penalty included.
        gradient_norm: Of the objective, in the preconditioner's metric. Its square is about the loss's relative excess.
        converged: Whether that is at most the tolerance.
        evaluations: Gradients in all axes, each with two products of the features and a matrix as large as W.
    """

    penalty: float
    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    loss: float
    gradient_norm: float
    converged: bool
    evaluations: int

    def scores(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m c"]:
        """Of the classes, for other features."""
        return x.to(self.weight.dtype) @ self.weight.T + self.bias


class _Point(NamedTuple):
    w: Float[Tensor, "c r"]
    logits: Float[Tensor, "n c"]
    loss: float  # without penalty
    residual: Float[Tensor, "n c"]


def logistic_path(
    x: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Int[Tensor, "n c"],
    *,
    classes: int,
    penalties: Sequence[float],
    tolerance: float = 3e-3,
    max_evaluations: int = 1000,
) -> list[Fit]:
    """Solutions in the order of ``penalties``, computed where ``x`` is and in its precision; in float64 where float32
    does not suffice for one of them, as for features that are almost the same for all images.

    Args:
        x: Features, in float32 or float64.
        labels: Classes, or for each class 0 or 1.
        penalties: Above 0. The closer they are, the less each costs.
        tolerance: Largest ``gradient_norm`` of a solution: a loss within 1e-5 or so of the optimum's. 2e-4 gives 1e-6.
        max_evaluations: Of the gradient, for one penalty; what it is then is returned.
    """
    if not min(penalties, default=1.0) > 0:
        raise ValueError(f"penalties must be above 0, not {min(penalties)}")
    if x.dtype != torch.float64:
        with suppress(torch.linalg.LinAlgError):  # of matrices that are no numbers any more
            path = _path(_Problem(x, labels, classes), penalties, tolerance, max_evaluations)
            if all(fit.converged for fit in path):
                return path
    return _path(_Problem(x.double(), labels, classes), penalties, tolerance, max_evaluations)


def _path(problem: "_Problem", penalties: Sequence[float], tolerance: float, max_evaluations: int) -> list[Fit]:
    few = copy(problem)  # the axes of largest variance, and the intercept
    few.x, few.squares = problem.x[:, -LEADING:].contiguous(), problem.squares[-LEADING:]
    ahead = _Solver(few, CLOSER * tolerance, AHEAD) if problem.x.shape[1] >= 4 * LEADING else None
    solver, solved, fits = _Solver(problem, tolerance, max_evaluations, ahead), [], {}
    point = problem.point(problem.x.new_zeros(problem.classes, problem.x.shape[1]))
    for penalty in sorted(set(penalties), reverse=True):
        point, norm, evaluations = solver.solve(_predicted(problem, solved, point, penalty), penalty)
        point = problem.point(point.w)  # without the rounding of many steps
        solved = [point, *solved[: PAST - 1]]
        loss = point.loss + penalty / 2 * float(point.w[:, :-1].square().sum(dtype=torch.float64))
        fits[penalty] = Fit(penalty, *problem.turned_back(point.w), loss, norm, norm <= tolerance, evaluations)
    return [fits[penalty] for penalty in penalties]


class _Problem:
    """The loss in the axes of the features' covariance: ``x`` [n, r], whose last column is the intercept's and as large
    as an image on average, so that all scales with the features; ``squares`` of its columns, summed."""

    def __init__(self, x: Tensor, labels: Tensor, classes: int):
        self.mean = x.mean(0)
        x = x - self.mean
        basis = None
        if len(x) < x.shape[1]:  # as many axes as images
            basis, triangle = torch.linalg.qr(x.T)
            x = triangle.T
        axes = torch.linalg.eigh(x.T @ x).eigenvectors
        self.axes = axes if basis is None else basis @ axes
        x = x @ axes
        size = x.square().sum(1).mean().sqrt()
        self.size = torch.where(size > 0, size, 1.0)
        self.x = torch.cat([x, self.size.expand(len(x), 1)], 1)
        self.squares = self.x.square().sum(0)
        self.binary = labels.ndim == 2
        self.labels, self.classes = labels if self.binary else labels[:, None].long(), classes
        counts = labels.sum(0) if self.binary else torch.bincount(labels, minlength=classes)
        shares = (torch.stack([counts, len(x) - counts]) if self.binary else counts).double() / len(x)
        self.blind = -len(x) * float(torch.xlogy(shares, shares).sum())  # the least loss of an intercept alone

    def turned_back(self, w: Float[Tensor, "c r"]) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
        weight = w[:, :-1] @ self.axes.T
        return weight, w[:, -1] * self.size - weight @ self.mean

    def point(self, w: Tensor, logits: Tensor | None = None) -> _Point:
        logits = (w @ self.x.T).T if logits is None else logits  # products are faster with classes as rows
        return _Point(w, logits, *self.loss(logits))

    def loss(self, logits: Float[Tensor, "n c"]) -> tuple[float, Float[Tensor, "n c"]]:
        """Sum over images, and its derivative; both keep their digits where an image is all but certain."""
        if self.binary:
            sign = 1 - 2 * self.labels.to(logits.dtype)
            wrong = sign * logits
            return float(F.softplus(wrong).sum(dtype=torch.float64)), sign * wrong.sigmoid_()
        margins = logits - logits.gather(1, self.labels)
        highest = margins.amax(1, keepdim=True)  # 0 where the image's own class wins
        others = margins.sub_(highest).exp_().scatter_(1, self.labels, 0.0)
        own, total = (-highest).exp_(), others.sum(1, keepdim=True)
        loss = highest + torch.where(highest > 0, (own + total).log(), total.log1p())
        residual = others.div_(own + total).scatter_(1, self.labels, -total / (own + total))
        return float(loss.sum(dtype=torch.float64)), residual

    def bend(self, directions: Float[Tensor, "k c n"], residual: Float[Tensor, "n c"]) -> Float[Tensor, "k k"]:
        """The loss's second derivatives along changes of the logits."""
        if self.binary:
            directions = directions * (residual.abs() * (1 - residual.abs())).sqrt().T
        else:
            p = residual.scatter_add(1, self.labels, torch.ones_like(residual[:, :1])).T
            directions = directions - (directions * p).sum(1, keepdim=True)
            directions *= p.clamp_min_(0).sqrt_()
        return (directions.flatten(1) @ directions.flatten(1).T).double()

    def curvature(self, residual: Float[Tensor, "n c"]) -> tuple[Float[Tensor, " c"], Tensor | None]:
        """The loss's second derivatives in the logits, averaged over images: eigenvalues and eigenvectors [c, c]."""
        if self.binary:
            values, vectors = (residual.abs() * (1 - residual.abs())).mean(0), None
        else:
            # diag(p) - p p^T with p = label + residual, written so that the labels' ones cancel on paper.
            own = residual.new_zeros(self.classes, self.classes).index_add_(0, self.labels[:, 0], residual)
            matrix = residual.sum(0).diag() - own - own.T - residual.T @ residual
            matrix += matrix.trace() / self.classes**2  # equal logits have no curvature; this gives them the average
            values, vectors = torch.linalg.eigh(matrix / len(residual))
        return values.clamp_min(max(FLAT * float(values.max()), torch.finfo(values.dtype).tiny)), vectors


class _Solver:
    """Preconditioned L-BFGS that goes on with what it learnt at the last penalty; ``ahead``, another, goes first."""

    def __init__(self, problem: _Problem, tolerance: float, max_evaluations: int, ahead: "_Solver | None" = None):
        self.problem, self.tolerance, self.max_evaluations, self.ahead = problem, tolerance, max_evaluations, ahead
        # BatchSchedule, and the gradient's changes along them: without penalty, and with it.
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.curvature, self.ridge = 0.0, torch.zeros(0)  # where the pairs belong

    def solve(self, point: _Point, penalty: float) -> tuple[_Point, float, int]:
        """The solution, the norm of its gradient, and how many gradients it took."""
        ridge = point.w.new_full((1, point.w.shape[1]), penalty)
        ridge[:, -1] = 0.0
        last, sure = None, False  # the curvature that the norm is measured in was met in the last step
        for evaluations in range(1, self.max_evaluations + 1):
            if self.ahead:
                further, *_ = self.ahead.solve(point._replace(w=point.w[:, -LEADING:]), penalty)
                point = further._replace(w=torch.cat([point.w[:, :-LEADING], further.w], 1))
            bare = point.residual.T @ self.problem.x
            if last:
                self.learn(point.w - last[0], bare - last[1], bare)
            last = point.w, bare
            gradient = bare + ridge * point.w
            if evaluations % REFRESH == 1:
                self.refresh(point, ridge)
            direction = self.direction(gradient)
            norm = self.norm(gradient, direction, point, penalty)
            if (norm <= self.tolerance and sure) or evaluations == self.max_evaluations:
                break
            further, length = self.along(direction, point, gradient, ridge)
            if further is None:  # rounding hides what is left to gain
                break
            sure, point = length < SURE, further
        return point, norm, evaluations  # pyrefly: ignore[unbound-name]

    def learn(self, step: Tensor, bare: Tensor, gradient: Tensor) -> None:
        rounding = torch.finfo(bare.dtype).eps * step.norm() * gradient.norm()
        if _inner(step, bare) > DIGITS * rounding:  # below, as next to a large penalty, it tells of rounding alone
            self.pairs = [*self.pairs[1 - MEMORY :], (step, bare, torch.addcmul(bare, self.ridge, step))]

    def refresh(self, point: _Point, ridge: Tensor) -> None:
        """The preconditioner of what the probabilities are now, and the pairs by how the curvature changed since."""
        values, self.vectors = self.problem.curvature(point.residual)
        ratio = float(values.sum()) / self.curvature if self.pairs else 1.0
        self.curvature, self.ridge = float(values.sum()), ridge
        for step, bare, change in self.pairs:
            torch.addcmul(bare.mul_(ratio), ridge, step, out=change)
        self.inverse = 1 / (values[:, None] * self.problem.squares + ridge)

    def norm(self, gradient: Tensor, direction: Tensor, point: _Point, penalty: float) -> float:
        excess = max(-float(_inner(gradient, direction)), 0.0) / 2
        loss = point.loss + penalty / 2 * float(point.w[:, :-1].square().sum(dtype=torch.float64))
        rounding = torch.finfo(gradient.dtype).eps * self.problem.blind  # counts where features tell nothing
        size = max(min(loss, self.problem.blind - loss), rounding)
        return math.sqrt(excess / size) if size else 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        """L-BFGS's two loops."""
        d, used = -gradient, []
        for step, _, change in reversed(self.pairs):
            scale = 1 / _inner(step, change)
            share = scale * _inner(step, d)
            d.addcmul_(change, share, value=-1)
            used.append((step, change, scale, share))
        d = self.inverse * d if self.vectors is None else self.vectors @ (self.inverse * (self.vectors.T @ d))
        for step, change, scale, share in reversed(used):
            d.addcmul_(step, share - scale * _inner(change, d))
        return d if self.vectors is None else d - d.mean(0, keepdim=True)  # what classes share grows by rounding alone

    def along(self, d: Tensor, point: _Point, gradient: Tensor, ridge: Tensor) -> tuple[_Point | None, float]:
        """The point in direction ``d`` where the objective's slope is all but gone; None where none is found."""
        logits = (d @ self.problem.x.T).T
        slope, bend = float(_inner(gradient, d)), float(_inner(ridge * d, d))
        constant = float(_inner(ridge * point.w, d))
        low, high, length = (0.0, slope), (math.inf, math.nan), 1.0
        for _ in range(LINE_SEARCH):
            tried = self.problem.point(point.w + length * d, point.logits + length * logits)
            now = float(_inner(tried.residual.T, logits.T)) + constant + length * bend
            if abs(now) <= STEEP * abs(slope):
                return tried, length
            low, high = ((length, now), high) if now < 0 else (low, (length, now))
            if math.isinf(high[0]):
                length = min(4 * length, length * slope / (slope - now)) if now > slope else 4 * length
            else:
                length = low[0] + min(max(low[1] / (low[1] - high[1]), 0.1), 0.9) * (high[0] - low[0])
        return None, length


def _predicted(problem: _Problem, solved: list[_Point], last: _Point, penalty: float) -> _Point:
    """The best combination of the last solutions: Newton's method on its few numbers, as their logits are known."""
    if len(solved) < 2:
        return last
    ws, logits = [point.w for point in solved], [point.logits.T for point in solved]
    for order in range(1, len(ws)):  # repeated differences, as the solutions themselves are too much alike
        for i in reversed(range(order, len(ws))):
            ws[i], logits[i] = ws[i - 1] - ws[i], logits[i - 1] - logits[i]
    sizes = [float(w.norm()) or 1.0 for w in ws]
    w, z = (torch.stack([part / size for part, size in zip(parts, sizes, strict=True)]) for parts in (ws, logits))
    ridge = penalty * (w[:, :, :-1].flatten(1) @ w[:, :, :-1].flatten(1).T).double()
    rounding = 10 * torch.finfo(w.dtype).eps
    tried, best, found = torch.zeros(len(w), dtype=torch.float64, device=w.device), math.inf, None
    tried[0] = sizes[0]
    for _ in range(COMBINED):
        there = torch.tensordot(tried.to(z), z, 1).T
        loss, residual = problem.loss(there)
        value = loss + float(tried @ ridge @ tried) / 2
        if found and not value < best:
            break
        best, found = value, (tried, there, loss, residual)
        gradient = (z.flatten(1) @ residual.T.flatten()).double() + ridge @ tried
        tried = tried - torch.linalg.pinv(problem.bend(z, residual) + ridge, rtol=rounding, hermitian=True) @ gradient
        if gradient @ (found[0] - tried) < 1e-6 * best:
            break
    return _Point(torch.tensordot(found[0].to(w), w, 1), *found[1:]) if found else last


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())
