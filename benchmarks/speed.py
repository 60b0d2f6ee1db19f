"""Times a step and its parts beside lightly's example loops, plain implementations and the machine's own speed.

PYTHONPATH=FOLDER python benchmarks/speed.py           half an hour; writes docs/results/speed.json
PYTHONPATH=FOLDER python benchmarks/speed.py --quick   a minute or two, small, to see that it works; keeps nothing
python benchmarks/speed.py --only targets updates      some parts; the others stay as they were kept
python benchmarks/compare.py OLD.json NEW.json         whether something has become slower

FOLDER holds lightly 1.6 (`uv pip install --no-deps --target FOLDER lightly lightly_utils lightning_utilities`), which
infomax does not depend on. It measures on a GPU if there is one, else on one thread by processor time.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from steps import peaks, steps
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turns import DEVICE, Row, rates, row, turns

from infomax.functional import log_det
from infomax.methods.base import Progress
from infomax.methods.corinfomax import CorInfoMaxLoss
from infomax.methods.mira import _chebyshev_iterations, assign
from infomax.methods.mveb import entropy_surrogate, stein_score
from infomax.models.encoders import build_encoder
from infomax.nn.blocks import Teacher
from infomax.nn.optimizers import Lars, parameter_groups
from infomax.recipes.building import build_method
from infomax.recipes.customise import customise
from infomax.recipes.registry import get_recipe
from infomax.runs import run_folder as runs

OUT = Path(__file__).parents[1] / "docs" / "results" / "speed.json"
BETA, TEMPERATURE = 2 / 3, 0.225
warnings.filterwarnings("ignore", "a batch of .* gives a poor covariance")  # no covariance matters here
warnings.filterwarnings("ignore", "iterations=.* may leave MIRA's targets unconverged")  # that is counted here


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, device=DEVICE), dim=-1)


def cosines(batch: int, prototypes: int, *, clustered: bool) -> Tensor:
    """Returns cosines of random embeddings and prototypes, or of clusters of unequal frequency."""
    centres = unit(prototypes, 256)
    if not clustered:
        return unit(batch, 256) @ centres.T
    groups = torch.randint(0, max(1, prototypes // 10), (prototypes,), device=DEVICE)
    centres = F.normalize(centres + 1.2 * unit(max(1, prototypes // 10), 256)[groups], dim=1)
    frequency = torch.arange(1, prototypes + 1, device=DEVICE).float().pow(-0.7)
    chosen = centres[torch.multinomial(frequency, batch, replacement=True)]
    return F.normalize(chosen + 0.8 * unit(batch, 256), dim=1) @ centres.T


def elementwise(logits: Tensor, iterations: int) -> Tensor:
    """Computes MIRA's targets as the paper writes them: Eq. 5 for the whole matrix in each iteration of Eq. 7."""
    power = (logits / (TEMPERATURE * (1 - BETA))).softmax(1)
    u = power.new_ones(power.shape[1])
    for left in range(iterations + 1, -1, -1):
        w = power * u.pow(-BETA / (1 - BETA))
        w = w / w.sum(1, keepdim=True)
        if left:
            u = (w * u.pow(BETA / (1 - BETA))).mean(0).pow(1 - BETA)
    return w


def error(targets: Tensor, logits: Tensor) -> float:
    """Returns the largest distance of an image's targets from those of Eq. 4, as a sum over clusters."""
    return float((targets - assign(logits.double(), beta=BETA, iterations=200)).abs().sum(1).max())


def iterations_needed(logits: Tensor, most: float) -> int:
    """Returns the iterations of plain Eq. 7, in float64, after which no error is larger than ``most``."""
    limit = assign(logits.double(), beta=BETA, iterations=200)
    for count in range(100):
        if float((assign(logits.double(), beta=BETA, iterations=count) - limit).abs().sum(1).max()) <= most:
            return count
    raise ArithmeticError("not converged")


def targets(quick: bool) -> Iterator[Row]:
    from lightly.loss.swav_loss import sinkhorn

    batch, prototypes = (512, 300) if quick else (4096, 3000)
    memory = rates(3)["memory"]
    for kind in ("untrained", "clustered"):
        logits = cosines(batch, prototypes, clustered=kind == "clustered")
        torch.testing.assert_close(elementwise(logits, 30), assign(logits, beta=BETA), atol=1e-5, rtol=0)
        contestants: dict[str, Callable[[], Any]] = {
            "infomax": lambda x=logits: assign(x, beta=BETA),
            "infomax, 30 iterations": lambda x=logits: assign(x, beta=BETA, iterations=30),
            "elementwise, 30 iterations": lambda x=logits: elementwise(x, 30),
            "lightly, 3 Sinkhorn iterations": lambda x=logits: sinkhorn(x),
        }
        *of_eq7, _ = contestants
        needed = iterations_needed(logits, 1e-6)
        errors = {name: error(contestants[name](), logits) for name in of_eq7}
        counts = {of_eq7[0]: _chebyshev_iterations(BETA, logits.dtype), of_eq7[1]: 30}  # after a first one
        seconds, size = turns(contestants, 3 if quick else 9), 4 * logits.numel()
        for ours, other in ((0, 2), (0, 3), (1, 2)):
            mine, theirs = (list(contestants)[i] for i in (ours, other))
            # At least: logits read and powers written, powers read in each iteration, powers read and targets written.
            more = {"batch": batch, "prototypes": prototypes, "floor": size * (counts[mine] + 4) / memory}
            more |= {"error": errors[mine], "error_of_other": errors.get(theirs), "iterations": counts[mine]}
            yield row(f"{kind}: {mine} / {theirs}", seconds, mine, theirs, **more, plain_to_a_millionth=needed)


def slogdet_loss(dtype: torch.dtype, dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns a plain loss of CorInfoMax, by torch.linalg.slogdet and autograd."""
    state = [(torch.zeros(dim, dtype=dtype), torch.eye(dim, dtype=dtype)) for _ in range(2)]
    state = [(mean.to(DEVICE), covariance.to(DEVICE)) for mean, covariance in state]
    ridge = 1e-8 * torch.eye(dim, dtype=dtype, device=DEVICE)

    def loss(*given: Tensor) -> Tensor:
        z, entropy = [x.to(dtype) for x in given], torch.zeros((), dtype=dtype, device=DEVICE)
        for branch, x in enumerate(z):
            mean, covariance = state[branch]
            mean = 0.01 * mean + 0.99 * x.mean(0)
            covariance = 0.01 * covariance + 0.99 * (x - mean).T @ (x - mean) / len(x)
            entropy = entropy + torch.linalg.slogdet(covariance + ridge).logabsdet / dim
            state[branch] = mean.detach(), covariance.detach()
        return (250 * (z[0] - z[1]).square().mean() - entropy).to(given[0].dtype)

    return loss


def repeated(function: Callable[..., Tensor], leaves: list[Tensor], times: int) -> Callable[[], None]:
    """Returns a function that computes value and gradient so often that the clock's resolution does not matter."""

    def run() -> None:
        for _ in range(times):
            function(*leaves).backward()

    return run


def log_determinants(quick: bool) -> Iterator[Row]:
    """Times CorInfoMax's value and gradient, and those of the log-determinant alone."""
    sizes = [(64, 512), (64, 1024), (64, 1536), (128, 512), (128, 1024), (128, 1536), (512, 1024), (512, 1536)]
    for dim, batch in sizes[:1] if quick else sizes:
        leaves = [unit(batch, dim).requires_grad_() for _ in range(2)]
        mine = CorInfoMaxLoss(dim, attraction=250.0).to(DEVICE)
        forms = {"infomax, float64": lambda a, b, f=mine: f.attraction * (t := f.terms(a, b))[1] - t[0]}
        for dtype in (torch.float64, torch.float32):
            forms[f"slogdet, {str(dtype).removeprefix('torch.')}"] = slogdet_loss(dtype, dim)
        torch.testing.assert_close(forms["infomax, float64"](*leaves), forms["slogdet, float64"](*leaves))
        times = 1 if dim == 512 else 10
        seconds = turns({name: repeated(form, leaves, times) for name, form in forms.items()}, 15)
        for other in list(forms)[1:]:
            name = f"D = {dim}, batch {batch}: {other}"
            yield row(name, seconds, "infomax, float64", other, calls=times, flops=2 * 4 * batch * dim**2 + 4 * dim**3)
    for dim in (64,) if quick else (64, 128, 512):
        x = torch.randn(2 * dim, dim, dtype=torch.float64, device=DEVICE)
        matrix, times = (x.T @ x / len(x)).requires_grad_(), 1 if dim == 512 else 20
        forms = {"log_det": log_det, "slogdet": lambda m: torch.linalg.slogdet(m).logabsdet}
        seconds = turns({name: repeated(form, [matrix], times) for name, form in forms.items()}, 15)
        name = f"D = {dim}, log-determinant alone: slogdet, float64"
        yield row(name, seconds, "log_det", "slogdet", calls=times)


class Largest(TorchDispatchMode):
    """A mode that notes the number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def plain_score(z: Tensor, eta: float) -> Tensor:
    """Computes Eq. 26 plainly: the derivatives of the kernel for all pairs, [M, M, D], and the inverse."""
    z = z.double()
    cosine = z @ z.T
    m = len(z)
    scale = (1 - cosine).flatten().sort(descending=True).values[m * m // 2].clamp_min(0.1)
    kernel = torch.exp(cosine / scale)
    derivatives = kernel[:, :, None] * z[:, None, :] / scale  # of k(i, j), in j
    return -torch.linalg.inv(kernel + eta * torch.eye(m, dtype=z.dtype, device=z.device)) @ derivatives.sum(1)


def scores(quick: bool) -> Iterator[Row]:
    """Times MVEB's value and gradient, and notes the largest tensor in them."""
    speed = rates(3)["float64"]
    for m, d in [(64, 32)] if quick else [(256, 128), (512, 256)]:
        z = unit(m, d)
        tangent = [s - (s * z).sum(1, keepdim=True) * z for s in (stein_score(z), plain_score(z, 0.01).to(z.dtype))]
        torch.testing.assert_close(*tangent, atol=1e-3 * float(tangent[1].abs().max()), rtol=0)
        seconds = turns({"infomax": lambda z=z: stein_score(z), "plain": lambda z=z: plain_score(z, 0.01)}, 9)
        yield row(f"score, M = {m}, D = {d}: all [M, M, D] derivatives", seconds, "infomax", "plain")
    for m, d in [(64, 32)] if quick else [(512, 256), (2048, 512)]:
        z = unit(m, d).requires_grad_()
        with Largest() as largest:
            entropy_surrogate(z).backward()
        assert largest.elements < 4 * m * max(m, d), "larger than a few matrices"
        double = z.detach().double()
        kernel = torch.exp(double @ double.T - 1) + 0.01 * torch.eye(m, dtype=torch.float64, device=DEVICE)

        def bound(kernel: Tensor = kernel, double: Tensor = double) -> None:
            torch.cholesky_solve(double, torch.linalg.cholesky(kernel))

        seconds = turns({"infomax": lambda z=z: entropy_surrogate(z).backward(), "solve": bound}, 5)
        flops = m**3 / 3 + 2 * m * m * (d + 1) + 2 * m * m * d
        sizes = {"largest": largest.elements, "of_all_pairs": m * m * d, "floor": flops / speed}
        yield row(f"entropy, M = {m}, D = {d}: its linear system alone", seconds, "infomax", "solve", **sizes)


def losses(quick: bool) -> Iterator[Row]:
    """Times each method's loss and gradient for two views, beside the most similar loss in lightly."""
    from lightly.loss import NTXentLoss, SwaVLoss, VICRegLoss

    swav, vicreg, contrast = SwaVLoss(), VICRegLoss(), NTXentLoss()
    kin = {
        "mira": ("SwAV", lambda a, b: swav([a, b], []), (4096, 3000)),
        "carl": ("SwAV", lambda a, b: swav([a, b], []), (4096, 3000)),
        "corinfomax": ("VICReg", vicreg, (1024, 128)),
        "mveb": ("NT-Xent", contrast, (1024, 256)),
    }
    for name, (other, loss, (batch, width)) in kin.items():
        batch, width = (256, 100) if quick else (batch, width)
        own = "prototypes" if name in ("mira", "carl") else "dimension"
        wide = [f"method.{own}={width}", *(["method.score_scope=global"] if name == "mveb" else [])]
        method = build_method(customise(get_recipe(name, "small"), overrides=wide)).to(DEVICE)
        now = Progress(step=0, total_steps=100, epoch=0)
        views = [cosines(batch, width, clustered=True) if own == "prototypes" else unit(batch, width) for _ in range(4)]
        leaves = [x.requires_grad_() for x in views[:2]]
        target = views[2:] if getattr(method, "teacher", None) is not None else []
        contestants: dict[str, Callable[[], Any]] = {
            "infomax": lambda m=method, a=leaves, t=target, p=now: m.loss(a, t, p).total.backward(),
            "lightly": lambda f=loss, a=leaves: f(*a).backward(),
        }
        seconds = turns(contestants, 3 if quick else 9)
        yield row(f"{name} / {other}", seconds, "infomax", "lightly", batch=batch, width=width)


class PlainLars(Lars):
    """A plain LARS that updates one parameter after another, with an operation for each line of the definition."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                update = p.grad
                if p.ndim > 1:
                    update = update + group["weight_decay"] * p
                    update = update * (group["trust"] * p.norm() / update.norm())
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                average = self.state[p]["momentum_buffer"].mul_(group["momentum"]).add_(update)
                p.add_(average, alpha=-group["lr"])


def updates(quick: bool) -> Iterator[Row]:
    """Times the EMA teacher and LARS for a ResNet-50, beside a plain loop, lightly's, and the speed of memory."""
    from lightly.models.utils import update_momentum

    name = "resnet18" if quick else "resnet50"
    student, teachers = build_encoder(name, stem="imagenet", seed=0).to(DEVICE), []
    teachers = [Teacher(build_encoder(name, stem="imagenet", seed=i).to(DEVICE), 0.99) for i in (1, 2)]
    elements, memory = sum(p.numel() for p in student.parameters()), rates(9)["memory"]
    contestants: dict[str, Callable[[], Any]] = {
        "infomax": lambda: teachers[0].ema_update(student, 0.0),
        "lightly": lambda: update_momentum(student, teachers[1].module, 0.99),
    }
    seconds = turns(contestants, 5 if quick else 25)
    passed = {"elements": elements, "bytes": 12 * elements, "floor": 12 * elements / memory}
    yield row(f"teacher of {name} / lightly", seconds, "infomax", "lightly", **passed)
    optimizers = {}
    for kind in (Lars, PlainLars):
        torch.manual_seed(0)
        trained = build_encoder(name, stem="imagenet", seed=0).to(DEVICE)
        for p in trained.parameters():
            p.grad = torch.randn_like(p)
        groups = parameter_groups(trained, 1e-4, decay_all=False)
        optimizers[kind.__name__] = kind(groups, lr=0.3)
    seconds = turns({name: optimizer.step for name, optimizer in optimizers.items()}, 5 if quick else 25)
    # Weights and gradients are read, twice for the norms, and weights and averages read and written: 7 numbers. As
    # written 13 pass, of those that no cache holds.
    passed = {"elements": elements, "bytes": 28 * elements, "floor": 28 * elements / memory}
    yield row(f"LARS of {name} / a plain loop", seconds, "Lars", "PlainLars", **passed, bytes_as_written=52 * elements)


SECTIONS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "targets": targets,
    "log_determinants": log_determinants,
    "scores": scores,
    "losses": losses,
    "updates": updates,
    "steps": steps,
    "memory": peaks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, help=f"instead of {OUT.name}; keeps the result of --quick too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    out = args.out or (None if args.quick else OUT)
    kept = json.loads(out.read_text()) if out and out.exists() and len(args.only) < len(SECTIONS) else {}
    provenance: dict[str, Any] = {
        **runs.provenance(),
        "command": "python benchmarks/speed.py" + " --quick" * args.quick,
    }
    provenance["versions"]["lightly"] = version("lightly")
    provenance["machine"]["device"] = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "one thread"
    provenance["rates"] = rates(5 if args.quick else 25)
    result = {**kept, **provenance}
    for name in args.only:
        result[name] = []
        for measured in SECTIONS[name](args.quick):
            print(f"{name}: {json.dumps(measured)}", flush=True)
            result[name].append(measured)
        if out:
            out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
