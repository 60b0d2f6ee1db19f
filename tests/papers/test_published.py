"""Checks published results against each other, and against numbers that were read from the papers a second time."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from infomax.data.sources.named import NAMED_DATASETS
from infomax.papers.published import DATA, METRICS, PROTOCOLS, Conditions, find_numbers, table, tables
from infomax.recipes.corinfomax import CorInfoMaxSettings
from infomax.recipes.mira import MiraSettings
from infomax.recipes.mveb import MvebSettings

IDS = (
    *(f"mira-{number}" for number in range(1, 16)),
    *(f"corinfomax-{number}" for number in (1, 2, *range(4, 12))),  # Table 3 has settings
    "carl-1",
    *("mveb-1", "mveb-2", "mveb-3", "mveb-4-linear", "mveb-4-finetune", "mveb-5", "mveb-6", "mveb-7"),
    *(f"mveb-text-{section}" for section in ("6.2", "7.2", "7.3", "7.5", "7.6")),
)


def rows(name, **conditions):
    """Returns the table's rows with these conditions: a dictionary from column to value for each method."""
    t = table(name)
    return {
        row.method: dict(zip((c.name for c in t.columns), row.values, strict=True))
        for row in t.rows
        if all(getattr(row.conditions, key) == value for key, value in conditions.items())
    }


def shared(first, second):
    """Yields the numbers that two tables should have in common, because method and column have the same names."""
    for method in first.keys() & second.keys():
        for column in first[method].keys() & second[method].keys():
            if None not in (first[method][column], second[method][column]):
                yield f"{method}, {column}", first[method][column], second[method][column]


def test_every_table_is_there():
    assert tuple(t.id for t in tables()) == IDS


def test_names_of_data_sets_are_the_librarys():
    assert set(DATA) == {*NAMED_DATASETS, "coco", "average"}
    assert {c.data for t in tables() for c in t.columns} == set(DATA)
    assert {c.protocol for t in tables() for c in t.columns} == set(PROTOCOLS)
    assert {c.metric for t in tables() for c in t.columns} == set(METRICS)


def test_names_of_conditions_are_the_recipes():
    """The number of a method of ours can be compared with a recipe by the names of its settings."""
    settings = {"MIRA": MiraSettings(), "CorInfoMax": CorInfoMaxSettings(), "MVEB": MvebSettings()}
    method_settings = {"dimension", "prototypes", "iterations", "attraction", "entropy_weight"}
    used = {
        (n.row.method, name)
        for n in find_numbers()
        for name in method_settings
        if getattr(n.conditions, name) is not None
    } - {("VICReg", "dimension")}
    assert {name for _, name in used} == method_settings
    for method, name in used:
        assert hasattr(settings[method], name), (method, name)


@pytest.mark.parametrize("name", ["mira-5", "mveb-4-linear", "mveb-4-finetune"])
def test_printed_averages_are_the_rows_means(name):
    half = 0.005 if name == "mira-5" else 0.05
    for method, row in rows(name).items():
        *numbers, average = row.values()
        assert abs(sum(numbers) / 11 - average) < 1.1 * half, method  # a tenth for the rounding of the eleven


def test_mveb_quotes_the_transfer_results_that_mira_quotes():
    pairs = list(shared(rows("mira-5"), rows("mveb-4-linear")))
    assert len(pairs) == 5 * 11
    for cell, fine, coarse in pairs:
        assert abs(fine - coarse) <= 0.05 + 1e-9, cell


def test_mveb_quotes_the_few_label_results_that_mira_quotes():
    mveb = {m: {c.replace("Top ", "Top-"): v for c, v in row.items()} for m, row in rows("mveb-3").items()}
    pairs = list(shared(rows("mira-4"), mveb))
    assert len(pairs) == 4 * 4
    for cell, in_first, in_second in pairs:
        assert in_first == in_second, cell


def test_both_quote_solo_learn_alike_on_cifar():
    pairs = [p for p in shared(rows("mira-7"), rows("corinfomax-10")) if "CIFAR" in p[0]]
    assert len(pairs) == 5 * 4
    for cell, in_first, in_second in pairs:
        assert in_first == in_second, cell


def test_corinfomax_quotes_the_best_of_its_sources():
    names = {"CIFAR-10": "CIFAR-10 Top-1", "CIFAR-100": "CIFAR-100 Top-1", "IN-100 ResNet-18": "ImageNet-100 Top-1"}
    first = {m: {names.get(c, c): v for c, v in row.items()} for m, row in rows("corinfomax-1").items()}
    first["MoCo v2+"], first["W-MSE"] = first["MoCo v2"], first["W-MSE 2"]
    below = [pair for pair in shared(first, rows("corinfomax-10")) if pair[1] < pair[2]]
    assert below == [("SimCLR, ImageNet-100 Top-1", 77.04, 77.48)]  # as printed, against its caption
    assert len(list(shared(first, rows("corinfomax-10")))) == 8 * 3


def test_sensitivities_of_corinfomax_pass_through_its_best_run():
    best = rows("corinfomax-1")["CorInfoMax"]["CIFAR-100"]
    paper = {"attraction": 1000, "batch_size": 512, "learning_rate": 0.5, "dimension": 128}
    for number, (name, value) in zip((4, 5, 6, 7), paper.items(), strict=True):
        sweep = [n for n in find_numbers(method="CorInfoMax", data="cifar100") if n.table.id == f"corinfomax-{number}"]
        value_at = {getattr(n.conditions, name): n.value for n in sweep}
        assert value_at[value] == best == max(value_at.values())


def test_the_same_run_has_the_same_number_in_each_table():
    mira = rows("mira-1", multi_crop=True)["MIRA"]["400"]
    assert mira == rows("mira-2")["MIRA"]["Top-1"] == rows("mira-12", epochs=400)["MIRA"]["Linear"]
    assert list(rows("mira-3")["MIRA"].values()) == list(rows("mira-12", epochs=400)["MIRA"].values())[1:]
    for crops in (False, True):
        ablated = rows("mira-6", multi_crop=crops, moving_average=True, epochs=200)["MIRA"]["Top-1"]
        assert ablated == rows("mira-1", multi_crop=crops)["MIRA"]["200"]
    assert rows("mira-6", moving_average=False)["SwAV"]["Top-1"] == rows("mira-1", multi_crop=False)["SwAV"]["200"]
    large = rows("mira-8", batch_size=4096)
    assert large["SwAV"]["Top-1"] == rows("mira-1", multi_crop=False)["SwAV"]["100"]
    assert large["MIRA"]["Top-1"] == rows("mira-1", multi_crop=False)["MIRA"]["100"]
    assert rows("mira-14", prototypes=3000)["MIRA"]["Linear"] == rows("mira-15", epochs=100)["MIRA"]["30it"]
    assert rows("mira-15", epochs=400)["MIRA"]["30it"] == rows("mira-9", multi_crop=False)["MIRA"]["400"]
    two, many = rows("mveb-1", multi_crop=False), rows("mveb-1", multi_crop=True)
    assert many["MVEB"]["Top-1"] == rows("mveb-2", backbone="resnet50")["MVEB"]["Top-1"]
    for method in ("SimCLR", "BYOL", "MVEB"):
        assert two[method]["Top-1"] == rows("mveb-7")[method]["ResNet-50 (23M)"]
    assert rows("mveb-6")["MVEB"]["1024"] == rows("mveb-text-7.2", moving_average=False)["MVEB"]["Top-1"]


def test_differences_that_the_papers_state_in_words():
    small, large = rows("mira-8", batch_size=512), rows("mira-8", batch_size=4096)
    assert large["MIRA"]["Top-1"] - large["SwAV"]["Top-1"] == pytest.approx(2.9)
    assert small["MIRA"]["Top-1"] - small["SwAV"]["Top-1"] == pytest.approx(6)
    fewest = rows("mira-6", moving_average=False)
    assert fewest["MIRA"]["Top-1"] - fewest["SwAV"]["Top-1"] == pytest.approx(1.3)
    knn = rows("mira-3")
    assert knn["MIRA"]["100%"] - knn["DINO"]["100%"] == pytest.approx(1.2)
    assert knn["MIRA"]["10%"] - knn["DINO"]["10%"] == pytest.approx(1.4)
    transfer = rows("mira-5")
    others = [row for method, row in transfer.items() if method not in ("MIRA", "Supervised")]
    won = [c for c, value in transfer["MIRA"].items() if value > max(row[c] for row in others) and c != "avg."]
    assert len(won) == 9
    assert transfer["MIRA"]["avg."] - max(row["avg."] for row in others) == pytest.approx(0.9, abs=0.05)
    multi = rows("mveb-1", multi_crop=True)
    assert multi["MVEB"]["Top-1"] - multi["UniGrad"]["Top-1"] == pytest.approx(1.4)
    assert multi["MVEB"]["Top-1"] > rows("mveb-text-6.2")["Supervised"]["Top-1"]
    assert all(a <= b for a, b in pairwise(rows("mveb-6")["MVEB"].values()))


def test_spread_is_around_the_single_runs():
    """MIRA's Tables 10 and 11 repeat evaluations of its Tables 2, 4 and 5."""
    means = {**rows("mira-10")["MIRA"], **rows("mira-11")["MIRA"]}
    linear, few, transfer = rows("mira-2")["MIRA"], rows("mira-4")["MIRA"], rows("mira-5")["MIRA"]
    single = {**{f"Linear {c}": v for c, v in linear.items()}, **{f"Semi {c}": v for c, v in few.items()}, **transfer}
    for column, mean in means.items():
        assert abs(mean - single[column]) <= 0.41 + 1e-9, column
    assert means["Cars"] == pytest.approx(single["Cars"] - 0.41)


def test_looser_metrics_and_more_labels_have_higher_numbers():
    """Top-5 contains top-1; a lower overlap finds more objects; more labels help."""
    rank = {"mask_ap50": 2, "mask_ap75": 1, "mask_ap": 0, "box_ap50": 2, "box_ap75": 1, "box_ap": 0}
    rank |= {"top1": 0, "top5": 1}
    share = {"1percent": 0, "10percent": 1, "": 2}
    compared = 0
    for t in tables():
        for row in t.rows:
            cells = [(c, v) for c, v in zip(t.columns, row.values, strict=True) if v is not None and c.metric in rank]
            for a, x in cells:
                for b, y in cells:
                    if (a.data, a.protocol, a.conditions) != (b.data, b.protocol, b.conditions):
                        continue
                    if (a.subset == b.subset and rank[a.metric] < rank[b.metric]) or (
                        a.metric == b.metric and share[a.subset] < share[b.subset]
                    ):
                        compared += 1
                        assert x < y, f"{t.id}, {row.method}: {a.name} {x}, {b.name} {y}"
    assert compared > 150


@pytest.mark.parametrize(
    ("metric", "low", "high"),
    [
        *(("top1", 24, 98), ("top5", 48, 100), ("mean_per_class", 38, 97), ("map11", 71, 86), ("mean", 72, 86)),
        *(("box_ap", 38, 43), ("box_ap50", 59, 63), ("mask_ap", 34, 39), ("mask_ap50", 56, 60)),
    ],
)
def test_numbers_are_plausible(metric, low, high):
    numbers = [n for n in find_numbers(metric=metric) if n.conditions.entropy_weight is None]  # the collapsed run
    assert numbers
    for n in numbers:
        assert low < n.value < high, (n.table.id, n.column.name, n.row.method)


# Read from the papers, not from the TOML files.
@pytest.mark.parametrize(
    ("name", "method", "column", "conditions", "value"),
    [
        ("mira-1", "TWIST", "800", {"multi_crop": True}, 74.1),
        ("mira-1", "MoCo v3", "100", {"multi_crop": False}, 68.9),
        ("mira-4", "SwAV", "10% Top-1", {}, 70.2),
        ("mira-7", "MIRA", "CIFAR-10 Top-1", {}, 93.02),
        ("mira-8", "MIRA", "GPU memory", {"batch_size": 512, "moving_average": True}, 73),
        ("mira-12", "MIRA", "k-NN (1%)", {"epochs": 800}, 48.2),
        ("mira-13", "MoCo", "AP75 mk", {}, 37.6),
        ("mira-14", "MIRA", "k-NN (10%)", {"prototypes": 300}, 49.5),
        ("corinfomax-1", "CorInfoMax", "Tiny-IN", {}, 54.86),
        ("corinfomax-1", "BYOL", "IN-100 ResNet-50", {}, 78.76),
        ("corinfomax-2", "CorInfoMax", "10% of samples", {}, 64.36),
        ("corinfomax-8", "CorInfoMax", "2048-2048-1024", {}, 102.1),
        ("corinfomax-9", "CorInfoMax", "512", {"batch_size": 512}, 1.27),
        ("corinfomax-10", "W-MSE", "ImageNet-100 Top-5", {}, 91.22),
        ("carl-1", "CARL", "CIFAR-100 200", {}, 46.23),
        ("carl-1", "SimCLR", "CIFAR-100 200", {}, 47.29),
        ("mveb-1", "MVEB", "Top-5", {"crops": "2x224+6x96"}, 93.3),
        ("mveb-2", "MAE", "Top-1", {"backbone": "vit-l"}, 76.0),
        ("mveb-3", "MVEB", "10% Top 5", {}, 91.5),
        ("mveb-4-finetune", "SimCLR", "Cars", {}, 83.8),
        ("mveb-5", "UniGrad", "AP mask 50", {}, 59.7),
        ("mveb-6", "SimSiam", "4096", {}, 64.0),
        ("mveb-7", "MoCo v3", "ViT-s (21M)", {}, 72.5),
        ("mveb-text-7.5", "BYOL", "Hours", {}, 89),
        ("mveb-text-7.6", "MVEB", "Top-1", {}, 90.42),
    ],
)
def test_a_number_of_the_papers(name, method, column, conditions, value):
    assert rows(name, **conditions)[method][column] == value


@pytest.mark.parametrize(
    ("paper", "digest"),
    [("MIRA", "ccbb842ba93c"), ("CorInfoMax", "6dcfd76cfd86"), ("CARL", "53bb47e57045"), ("MVEB", "3cefb8078909")],
)
def test_no_number_changes_unnoticed(paper, digest):
    """All numbers were compared with the papers; a correction has to change the digest too."""
    numbers = [[t.id, [(row.values, row.deviations) for row in t.rows]] for t in tables() if t.paper == paper]
    assert hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:12] == digest


def test_only_numbers_that_could_not_be_read_well_are_uncertain():
    uncertain = {(t.id, row.method) for t in tables() for row in t.rows if row.uncertain}
    garbled = {("corinfomax-11", "MoCo v2"), ("corinfomax-11", "CorInfoMax")}
    assert uncertain == garbled | {("carl-1", "MoCo v2"), ("carl-1", "CARL")}


def test_metrics_of_transfer_are_those_of_the_data_sets():
    means = {"aircraft", "caltech101", "flowers", "pets"}
    for t in tables():
        for c in t.columns:
            if c.protocol.startswith("transfer") and c.data != "average":
                assert c.metric == ("mean_per_class" if c.data in means else "map11" if c.data == "voc2007" else "top1")


def test_numbers_have_the_conditions_of_row_and_column():
    (n,) = [n for n in find_numbers(method="MIRA", data="voc2007") if n.deviation is not None]
    assert (n.table.id, n.value, n.deviation, n.column.metric) == ("mira-11", 84.1, 0, "map11")
    assert (n.conditions.backbone, n.conditions.epochs, n.conditions.runs) == ("resnet50", 400, 4)
    carl = find_numbers(method="CARL", protocol="linear", data="cifar100", metric="top1", subset="")
    assert [(n.value, n.deviation, n.conditions.epochs) for n in carl] == [(46.23, 0.64, 200)]
    assert {n.column.subset for n in find_numbers(protocol="finetune")} == {"1percent", "10percent"}
    assert [n.value for n in find_numbers(protocol="knn", method="MIRA", subset="1percent")][:3] == [47.8, 47.8, 48.2]
    assert find_numbers(data="photographs of mine") == find_numbers(protocol="detection", data="cifar10") == ()


def test_row_and_column_never_set_the_same_condition():
    for n in find_numbers():
        names = [{k for k, v in vars(c).items() if v is not None} for c in (n.column.conditions, n.row.conditions)]
        assert not set.intersection(*names), n.table.id
        assert {k for k, v in vars(n.conditions).items() if v is not None} == set.union(*names)


def test_a_wrong_name_is_answered_with_the_right_ones():
    with pytest.raises(ValueError, match="mira-1, .*, mveb-text-7.6, but is 'mira5'; did you mean mira-5?"):
        table("mira5")
    with pytest.raises(ValueError, match="did you mean linear?"):
        find_numbers(protocol="linaer")
    with pytest.raises(ValueError, match="did you mean Barlow Twins?"):
        find_numbers(method="BarlowTwins")
    with pytest.raises(ValueError, match="subset must be one of"):
        find_numbers(subset="100percent")


def test_a_table_that_does_not_fit_is_refused():
    t = table("mira-3")
    (row, *_), column = t.rows, t.columns[0]
    with pytest.raises(ValueError, match="mira-3, BYOL: 3 columns need as many values, not 2"):
        replace(t, rows=(replace(row, values=(64.8, 57.4)),))
    with pytest.raises(ValueError, match="top1 must be from 0 to 100, but is 648"):
        replace(t, rows=(replace(row, values=(648.0, 57.4, 45.2)),))
    with pytest.raises(ValueError, match="12.8 is no standard deviation of None"):
        replace(t, rows=(replace(row, values=(None, 57.4, 45.2), deviations=(12.8, None, None)),))
    with pytest.raises(ValueError, match="paper must be one of"):
        replace(t, paper="MIRE")
    for wrong in ({"protocol": "k-nn"}, {"data": "cifar-10"}, {"metric": "top-1"}, {"subset": "1%"}):
        with pytest.raises(ValueError, match="must be one of"):
            replace(column, **wrong)
    with pytest.raises(ValueError, match="epochs must be int . None, but is '100'"):
        Conditions(epochs="100")


def test_reading_needs_no_torch():
    code = "import sys; from infomax.papers.published import tables; tables(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
