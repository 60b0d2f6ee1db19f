"""The map keeps neighbours, is the same for the same seed, and takes whatever a folder of images gives."""

import numpy as np
import pytest
import torch

from infomax.features import map_layout as module
from infomax.features.map_layout import map_layout


def clusters(n: int, d: int = 16, kinds: int = 5, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres, labels = rng.standard_normal((kinds, d)), rng.integers(0, kinds, n)
    rows = centres[labels] + 0.25 * rng.standard_normal((n, d))
    return torch.from_numpy(rows.astype(np.float32)), labels


def kept_neighbours(features: torch.Tensor, points: np.ndarray, k: int = 10) -> float:
    """Returns the share of each row's k nearest rows by cosine that are among its k nearest points of the map."""
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    places = torch.from_numpy(points).double()
    far = torch.eye(len(unit)) * 1e9
    by_features = (far - unit @ unit.T).topk(k, largest=False).indices.tolist()
    by_points = (far + torch.cdist(places, places)).topk(k, largest=False).indices.tolist()
    return float(np.mean([len({*a} & {*b}) / k for a, b in zip(by_features, by_points, strict=True)]))


def test_neighbours_stay_neighbours():
    features, labels = clusters(150)
    layout = map_layout(features)
    assert layout.points.shape == (150, 2)
    assert layout.points.dtype == np.float32
    chance = 10 / 149
    assert kept_neighbours(features, layout.points) > 5 * chance
    for kind in range(5):  # and each cluster is an island
        middle = layout.points[labels == kind].mean(0)
        distances = np.linalg.norm(layout.points - middle, axis=1)
        assert distances[labels == kind].mean() < distances[labels != kind].mean() / 2


def test_lengths_of_features_do_not_matter():
    features, _ = clusters(60)
    lengths = 2.0 ** torch.randint(-3, 4, (60, 1))
    assert np.array_equal(map_layout(features).points, map_layout(features * lengths).points)


def test_the_same_seed_gives_the_same_bytes():
    features, _ = clusters(60)
    first, second = map_layout(features, seed=3), map_layout(features, seed=3)
    assert first.points.tobytes() == second.points.tobytes()
    assert first.method == second.method
    assert "seed 3" in first.method


@pytest.fixture
def few_laid_out(monkeypatch):
    monkeypatch.setattr(module, "LAID_OUT", 100)


def test_a_large_set_is_laid_out_in_part_and_says_so(few_laid_out):
    features, labels = clusters(400)
    layout = map_layout(features, seed=1)
    assert "of 100 images that the seed drew from all 400" in layout.method
    assert "Each of the other 300" in layout.method
    places = torch.from_numpy(layout.points)
    same = np.mean(labels[(torch.cdist(places, places) + torch.eye(400) * 1e9).argmin(1).numpy()] == labels)
    assert same > 0.95  # by chance 0.2
    assert layout.points.tobytes() == map_layout(features, seed=1).points.tobytes()


def test_a_row_equal_to_a_laid_out_one_stands_beside_it_and_others_between_theirs():
    bank, points = torch.eye(4), np.array([[0, 0], [100, 0], [0, 100], [100, 100]], np.float32)
    queries = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0.5, 0, 0]], dtype=torch.float32)
    features, rows, others = torch.cat([bank, queries]), np.arange(4), np.arange(4, 7)
    placed = module._place(features, rows, others, points, np.random.default_rng(0))
    assert np.abs(placed[0]).max() < 1  # but for a small random step
    assert 40 < placed[1, 0] < 60
    assert placed[2, 0] < 20


def test_the_laid_out_part_is_drawn_from_the_whole_set_and_not_its_beginning(few_laid_out, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_lay_out", lambda unit, seed: (seen.append(unit), (unit[:, :2], "t-SNE"))[1])
    features = torch.zeros(1000, 3)
    features[:, 0], features[:, 1] = 1, torch.arange(1000) / 1000
    map_layout(features)
    numbers = np.sort(seen[0][:, 1] / seen[0][:, 0] * 1000)
    assert len(numbers) == 100
    assert numbers[0] < 100
    assert numbers[-1] > 900


def test_rows_with_equal_features_do_not_hide_each_other(few_laid_out):
    features, _ = clusters(50)
    layout = map_layout(features.repeat(4, 1))
    assert len(np.unique(layout.points, axis=0)) > 150


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 10, 11])
@pytest.mark.parametrize("d", [1, 2, 60])
def test_few_images_have_a_map(n, d):
    layout = map_layout(torch.randn(n, d))
    assert layout.points.shape == (n, 2)
    assert np.isfinite(layout.points).all()
    assert layout.method.endswith(".")


@pytest.mark.parametrize("n", [1, 2, 5, 30])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e30])
def test_equal_features_have_a_map(n, value):
    layout = map_layout(torch.full((n, 8), value))
    assert np.isfinite(layout.points).all()
    assert len(np.unique(layout.points, axis=0)) == n
    assert ("same direction" in layout.method) == (n > 1)


def test_some_rows_of_zeros_have_a_place(few_laid_out):
    features, _ = clusters(150)
    features[::7] = 0
    assert np.isfinite(map_layout(features).points).all()


def test_half_precision_and_wide_features():
    features, _ = clusters(40, d=80)
    layout = map_layout(features.bfloat16())
    assert "first 50 principal components" in layout.method
    assert kept_neighbours(features, layout.points) > 2 * 10 / 39


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    features = torch.randn(20, 4)
    features[[7, 9], 2] = value
    with pytest.raises(ValueError, match="2 of 20 rows hold NaN or infinity, row 7 first; leave these rows out"):
        map_layout(features)


@pytest.mark.parametrize(
    "features", [torch.zeros(0, 4), torch.zeros(4, 0), torch.zeros(4), torch.zeros(4, 4, dtype=torch.int64)]
)
def test_what_is_no_matrix_of_features_is_refused(features):
    with pytest.raises(ValueError, match="features must be a floating-point matrix with a row for each image, but are"):
        map_layout(features)
