"""What all loss functions have in common; the functions are listed in losses_of_methods.py."""

import pytest
import torch

from losses_of_methods import LOSSES, ROWS, LossCase, each, flat, leaf
from ranks import on_ranks

PARTS = ([5, 7], [2, 4, 1, 5])
"""Rows of each rank: an uneven share of the global batch."""


def value_and_gradients(case: LossCase, arguments: dict) -> tuple[float, list[list]]:
    leaves = each(arguments, leaf)
    loss = case.call(leaves)
    loss.backward()
    gradients = [x.grad if x.grad is not None else torch.zeros_like(x) for _, x in flat(leaves)]
    return loss.item(), [gradient.tolist() for gradient in gradients]


def on_a_rank(parts: list[int]) -> dict[str, tuple]:
    import torch.distributed as dist

    start = sum(parts[: dist.get_rank()])
    mine = slice(start, start + parts[dist.get_rank()])
    return {name: value_and_gradients(case, each(case.make(), lambda x: x[mine])) for name, case in LOSSES.items()}


@pytest.fixture(scope="module", params=PARTS, ids=["2 ranks", "4 ranks"])
def rank_results(request):
    """All losses on several ranks, which are started once."""
    return on_ranks(len(request.param), on_a_rank, request.param)


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_on_ranks_are_those_of_one_process(name, rank_results):
    case = LOSSES[name]
    value, gradients = value_and_gradients(case, case.make())
    for result in rank_results:
        assert result[name][0] == pytest.approx(value, rel=1e-9, abs=1e-12)
    for number, expected in enumerate(gradients):
        # DistributedDataParallel averages over ranks.
        rows = [row for result in rank_results for row in result[name][1][number]]
        actual = torch.tensor(rows, dtype=torch.float64) / len(rank_results)
        torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_flow_to_the_trained_arguments_alone(name):
    case = LOSSES[name]
    leaves = each(case.make(), leaf)
    case.call(leaves).backward()
    for argument, x in flat(leaves):
        has_gradient = x.grad is not None and bool((x.grad != 0).any())
        assert has_gradient == (argument in case.trained), argument


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    case = LOSSES[name]
    if case.holds_parts:
        pytest.skip("its gradient is not its slope")
    arguments = case.make(rows=max(4, case.fewest_rows))
    direction = case.make(rows=max(4, case.fewest_rows), seed=1)
    trained = [key for key in arguments if key in case.trained]
    leaves = each(arguments, leaf)
    case.call(leaves).backward()
    pairs = zip(flat({k: leaves[k] for k in trained}), flat({k: direction[k] for k in trained}), strict=True)
    slope = sum((x.grad * d).sum() for (_, x), (_, d) in pairs)

    def moved(step: float) -> torch.Tensor:
        shifted = dict(arguments)
        for key in trained:
            pairs = zip(flat({key: arguments[key]}), flat({key: direction[key]}), strict=True)
            tensors = [x + step * d for (_, x), (_, d) in pairs]
            shifted[key] = tensors if key in case.lists else tensors[0]
        return case.call(shifted)

    if any(key in case.unit for key in trained):
        pytest.skip("a step leaves the unit sphere, which the function may refuse")
    step = 1e-6
    torch.testing.assert_close((moved(step) - moved(-step)) / (2 * step), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_a_scalar_of_the_arguments_dtype_and_half_precision_gives_float32(name):
    case = LOSSES[name]
    expected = case.call(case.make())
    assert expected.shape == ()
    assert expected.dtype == torch.float64
    single = case.call(case.make(dtype=torch.float32), torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=2e-4, atol=2e-4)
    half = case.call(case.make(dtype=torch.bfloat16), torch.float32)
    assert half.dtype == torch.float32
    assert half.isfinite()


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name):
    case = LOSSES[name]
    arguments = case.make(dtype=torch.float32)
    expected = case.call(arguments, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(case.call(arguments, torch.float32), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", LOSSES)
def test_values_that_are_not_finite_are_errors(name, value):
    case = LOSSES[name]
    for argument in (*case.trained, *case.held):
        arguments = case.make()
        (arguments[argument][-1] if argument in case.lists else arguments[argument]).view(-1)[3] = value
        with pytest.raises(ValueError, match=r"NaN|infinit|finite"):
            case.call(arguments)


@pytest.mark.parametrize("name", LOSSES)
def test_a_wrong_shape_is_an_error_that_names_the_argument(name):
    case = LOSSES[name]
    for argument in (*case.trained, *case.held):
        arguments = case.make()
        value = arguments[argument]
        arguments[argument] = [x[0] for x in value] if argument in case.lists else value[0]
        with pytest.raises(ValueError, match=argument):
            case.call(arguments)


@pytest.mark.parametrize("name", LOSSES)
def test_float32_beside_float64_is_a_result_or_an_error_that_names_the_argument(name):
    case = LOSSES[name]
    for argument in (*case.trained, *case.held):
        arguments = case.make()
        of_list = argument in case.lists
        value = arguments[argument]
        arguments[argument] = [*value[:-1], value[-1].float()] if of_list else value.float()
        said = "torch.float32 and torch.float64"
        try:
            finite = bool(case.call(arguments).isfinite())
        except ValueError as error:
            said, finite = str(error), True
        assert finite, argument
        assert "torch.float32" in said, said
        assert "torch.float64" in said, said


@pytest.mark.parametrize("name", LOSSES)
def test_few_rows_and_equal_rows_are_valid_where_the_equations_are(name):
    case = LOSSES[name]
    few = case.call(case.make(rows=case.fewest_rows))
    assert few.isfinite() or not case.equal_rows
    if case.fewest_rows > 1:
        with pytest.raises(ValueError, match=r"at least|rows"):
            case.call(case.make(rows=case.fewest_rows - 1))
    leaves = each(case.make(), lambda x: leaf(x[:1].repeat(ROWS, *[1] * (x.ndim - 1))))
    loss = case.call(leaves)
    if case.equal_rows:
        loss.backward()
        assert loss.isfinite()
        assert all(x.grad is None or x.grad.isfinite().all() for _, x in flat(leaves))


KEPT = {"barlow": 1.2 * 64**2, "vicreg": 2.2 * 64**2, "moco": 4 * 32 * 64}
"""The most numbers that a loss of 32 rows of 64 keeps for its gradient, beside its arguments: a matrix C, two
covariances, or rows of embeddings."""


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_for_the_gradient_is_small(name):
    """Autograd would keep embeddings of each view twice more, or a matrix as long as a queue of 4,096."""
    case, rows = LOSSES[name], torch.randn(4, 32, 64)
    arguments = {argument: rows[i].clone() for i, argument in enumerate((*case.trained, *case.held))}
    leaves = {argument: x.requires_grad_(argument in case.trained) for argument, x in arguments.items()}
    if name == "moco":
        leaves["queue"] = torch.nn.functional.normalize(torch.randn(4096, 64), dim=1)
    sizes = {x.untyped_storage().data_ptr(): 0 for x in leaves.values()}

    def note(x):
        sizes.setdefault(x.untyped_storage().data_ptr(), x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = case.function(**leaves)
    assert 0 < sum(sizes.values()) < KEPT[name]
    loss.backward()


@pytest.mark.parametrize("name", ["barlow", "vicreg"])
def test_what_rounding_leaves_of_a_large_mean_is_in_no_variance(name):
    """The mean of float32 rows of 10,000 is off by as much as a hundredth of their deviation here."""
    rng = torch.Generator().manual_seed(0)
    scale = {"barlow": 1e-2, "vicreg": 1.0}[name]
    first = 1e6 * scale + scale * torch.randn(256, 4, generator=rng)
    rows = torch.stack([first, first + 0.3 * scale * torch.randn(256, 4, generator=rng)])
    exact = LOSSES[name].function(*rows.double())
    assert LOSSES[name].function(*rows) == pytest.approx(float(exact), rel=1e-4)


@pytest.mark.parametrize("name", ["barlow", "vicreg"])
def test_a_large_mean_takes_no_digits_of_the_gradient(name):
    case = LOSSES[name]
    rows = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0)) + 1000
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaves = [x.to(dtype).requires_grad_() for x in rows]
        gradients.append(torch.stack(torch.autograd.grad(case.function(*leaves), leaves)).double())
    assert (gradients[0] - gradients[1]).norm() < 1e-6 * gradients[1].norm()
