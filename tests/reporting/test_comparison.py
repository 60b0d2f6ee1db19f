"""Our results stand in a column of a published table if the encoder was trained for it, and in no other."""

import json
from collections import defaultdict
from dataclasses import replace
from itertools import count

import pytest

from infomax.evaluation.protocols.knn import KnnRow
from infomax.evaluation.results import append_result
from infomax.evaluation.rows import FinetuneRow, LinearRow, TransferFinetuneRow, TransferRow
from infomax.papers import published
from infomax.papers.published import Conditions
from infomax.recipes import registry
from infomax.recipes.conditions import recipe_conditions
from infomax.recipes.customise import customise
from infomax.recipes.method_spec import MethodSpec
from infomax.reporting.comparison import report, telling_conditions
from infomax.runs.run_folder import create_run_folder

COMMON = {"representation": "trained encoder", "encoder": "0", "classes": 10, "test_images": 100, "seconds": 1.0}
IMAGES = 5000
FINETUNE = {"backbone_rate": 0.1, "head_rate": 0.1, "schedule": "cosine", "weight_decay": 0.0, "seed": 0, "ranks": 1}
TRANSFER = {"validation": 0.5, "train_images": 80, "validation_images": 20}


@pytest.fixture
def folders(tmp_path):
    """Returns a function that names a new folder of the run."""
    numbers = count()
    return lambda: tmp_path / f"run{next(numbers)}"


def make_run(folder, recipe, *, data, **more):
    data = {"data": data, "images": IMAGES, "fingerprint": "0", **more}
    return create_run_folder(folder, recipe, data=data, launch={}, overwrite=False)


def keep(run, row_class, *, taken=None, recipe="", **fields):
    """Adds a row as ``infomax evaluate`` does, of the encoder that was taken after so many steps, or after the last."""
    taken = run.recipe.steps(IMAGES) if taken is None else taken
    origin = {"recipe": recipe or run.recipe_title, "trained_steps": taken}
    append_result(run.path / "results.jsonl", row_class(**{"metric": "top1", **COMMON, **origin, **fields}))


def our_line(run, table):
    """Returns the words of our line in a published table and its cells by column; none if there is no line."""
    (shown,) = report(run.path, table=table).published
    lines = [line for line in shown.rows if line[0].text.startswith("ours:")]
    if not lines:
        return "", {}
    (line,) = lines
    names = [column.name for column in published.table(table).columns]
    return line[0].text, {name: cell.text for name, cell in zip(names, line[1:], strict=True) if cell.text.strip()}


def groups():
    """Returns the columns of all tables that measure the same, if there are several."""
    for table in published.tables():
        alike = defaultdict(list)
        for column in table.columns:
            alike[column.protocol, column.data, column.metric, column.subset].append(column)
        for (protocol, *_), columns in alike.items():
            if len(columns) > 1 and protocol == "linear":
                yield table, columns


GROUPS = list(groups())
GROUP_NAMES = [f"{table.id}, {columns[0].data}" for table, columns in GROUPS]
NAMES = {  # the setting of each condition; the others are handled by hand
    "epochs": "epochs",
    "batch_size": "batch_size",
    "learning_rate": "optimizer.learning_rate",
    "backbone": "encoder.backbone",
    **{name: f"method.{name}" for name in ("dimension", "prototypes", "iterations", "attraction", "entropy_weight")},
}
OTHERS = {
    "epochs": 7,
    "schedule_epochs": 7,
    "batch_size": 48,
    "learning_rate": 0.123,
    "backbone": "small",
    "dimension": 48,
    "prototypes": 33,
    "iterations": 7,
    "attraction": 3.0,
    "entropy_weight": 0.5,
    "moving_average": 0.9,
}


def recipe_of(table, columns, column):
    """Returns a recipe with the conditions of a column, made of one that has a number in the table."""
    numbers = [(n, e) for e in registry.experiments().values() for n in e.numbers() if n.table is table]
    recipes = [e.recipe() for n, e in numbers if n.column in columns]
    recipe = recipes[0] if recipes else registry.get_recipe(table.paper.lower(), column.data)
    wanted = {k: v for k, v in vars(column.conditions).items() if k in NAMES and v is not None}
    if column.conditions.schedule_epochs:
        wanted["epochs"] = column.conditions.schedule_epochs
    if "backbone" in wanted:
        wanted["backbone"] = wanted["backbone"].replace("vit-s", "vit_small")
    return customise(recipe, overrides=[f"{NAMES[key]}={value}" for key, value in wanted.items()])


def taken_at(recipe, column):
    """Returns the steps after which the encoder of a column was taken."""
    return recipe.steps(IMAGES) * column.conditions.epochs // recipe.epochs if column.conditions.epochs else None


def filled(folder, table, columns, column, recipe, *, data=None, taken=None):
    run = make_run(folder, recipe, data=data or column.trained_on)
    keep(run, LinearRow, taken=taken, data=column.data, probe=column.probe or None, top1=0.5, top5=0.6)
    _, cells = our_line(run, table.id)
    return cells.keys() & {c.name for c in columns if c.metric == "top1"}


def test_the_tables_whose_columns_differ_in_conditions_are_known():
    tables = {table.id for table, _ in GROUPS}
    assert tables >= {"mira-1", "mira-9", "mira-15", "carl-1", "mveb-6", "mveb-7", "corinfomax-1"}
    assert tables >= {f"corinfomax-{number}" for number in (4, 5, 6, 7)}


@pytest.mark.parametrize(("table", "columns"), GROUPS, ids=GROUP_NAMES)
def test_a_run_fills_the_column_that_it_was_trained_for_alone(folders, table, columns):
    for column in columns:
        recipe = recipe_of(table, columns, column)
        assert filled(folders(), table, columns, column, recipe, taken=taken_at(recipe, column)) == {column.name}


@pytest.mark.parametrize(("table", "columns"), GROUPS, ids=GROUP_NAMES)
def test_a_run_that_differs_in_a_telling_condition_fills_none(folders, table, columns):
    column = columns[-1]
    recipe, telling = recipe_of(table, columns, column), telling_conditions(table, column)
    taken = taken_at(recipe, column)
    assert telling
    for condition in telling:
        if condition == "data":
            assert filled(folders(), table, columns, column, recipe, taken=taken, data="digits") == set()
        elif condition == "method":
            other = next(spec for spec in registry.METHODS.values() if spec.paper != table.paper)
            changed = replace(recipe, method=other.settings(), name=next(iter(other.recipes)))
            assert filled(folders(), table, columns, column, changed) == set()
        else:
            name = NAMES["epochs" if condition == "schedule_epochs" else condition]
            changed = customise(recipe, overrides=[f"{name}={OTHERS[condition]}", "optimizer.warmup_epochs=0"])
            assert filled(folders(), table, columns, column, changed) == set()


def test_a_condition_by_which_columns_differ_is_stated_by_all_of_them():
    for table in published.tables():
        for column in table.columns:
            assert None not in telling_conditions(table, column).values(), (table.id, column.name)


def test_a_table_of_several_data_sets_has_runs_on_their_own_alone():
    """Whatever the protocol: MIRA's Table 7 has online classifiers on CIFAR and one afterwards on ImageNet-100."""
    for table in published.tables():
        trained_on = {column.trained_on for column in table.columns}
        for column in table.columns:
            told = telling_conditions(table, column).get("data")
            assert told == (column.trained_on if len(trained_on) > 1 else None), (table.id, column.name)
            transferred = column.protocol in ("transfer", "transfer-finetune", "detection", "segmentation")
            assert column.trained_on == ("imagenet" if transferred else column.data)
    assert "data" in telling_conditions(published.table("mira-7"), published.table("mira-7").columns[0])


def test_a_single_column_that_names_a_setting_is_filled_by_that_setting_alone(folders):
    """Sec. 7.3 of MVEB prints one number, of a weight that lets the encoder collapse."""
    column = {"data": "imagenet", "probe": "mveb", "top1": 0.5, "top5": 0.6}
    for name, expected in (("imagenet_entropy_0001", {"0.001"}), ("imagenet_batch_1024", set())):
        run = make_run(folders(), registry.get_recipe("mveb", name), data="imagenet")
        keep(run, LinearRow, **column)
        assert our_line(run, "mveb-text-7.3")[1].keys() == expected


def test_an_encoder_that_nothing_is_known_of_stands_where_columns_do_not_differ(folders):
    file = folders()
    row = {**COMMON, "representation": "timm:resnet50", "metric": "top1", "top1": 0.5, "top5": 0.6}
    append_result(file, LinearRow(**row, data="imagenet"))
    assert "ours: timm:resnet50, logistic regression" in str(report(file, table="mira-2"))
    for table in ("mira-1", "mira-9", "mira-15", "mira-12"):
        assert "ours:" not in str(report(file, table=table)), table


def test_an_unfinished_run_does_not_stand_for_a_finished_one(folders):
    """CARL's Table 1 has encoders of before the end of a run of 200 epochs; MIRA's has none."""
    run = make_run(folders(), registry.get_recipe("carl", "cifar10"), data="cifar10")
    fields = {"data": "cifar10", "probe": "carl", "top1": 0.5, "top5": 0.6}
    keep(run, LinearRow, taken=run.recipe.steps(IMAGES) // 4, **fields)
    words, cells = our_line(run, "carl-1")
    assert (cells.keys(), "950 of 3800 steps" in words) == ({"CIFAR-10 50"}, True)
    short = make_run(folders(), customise(run.recipe, epochs=50), data="cifar10")
    keep(short, LinearRow, **fields)
    assert our_line(short, "carl-1") == ("", {})
    mira = make_run(folders(), registry.get_recipe("mira", "imagenet_400"), data="imagenet")
    keep(mira, LinearRow, taken=100, data="imagenet", probe="mira", top1=0.5, top5=0.6)
    assert our_line(mira, "mira-1") == ("", {})
    assert "100 of 400 steps" in our_line(mira, "mira-2")[0]
    assert f"{mira.path.name}: mira/imagenet_400, unfinished: 100 of 400 steps" in str(report(mira.path))
    assert "unfinished" not in str(report(short.path))


def test_a_row_from_before_the_run_was_changed_or_extended_stands_in_no_column_that_conditions_tell(folders):
    fields = {"data": "imagenet", "probe": "mira", "top1": 0.5, "top5": 0.6}
    recipe = registry.get_recipe("mira", "imagenet_200")
    run = make_run(folders(), recipe, data="imagenet")
    keep(run, LinearRow, recipe="mira/imagenet_100", **fields)
    assert our_line(run, "mira-1") == ("", {})
    assert "mira/imagenet_100" in our_line(run, "mira-2")[0]
    extended = make_run(folders(), recipe, data="imagenet", extended=[{"step": 100, "epochs": 100}])
    keep(extended, LinearRow, **fields)
    for table in ("mira-1", "mira-2"):
        assert our_line(extended, table) == ("", {})


def test_a_baselines_line_stands_below_the_row_of_its_method(folders):
    simclr = make_run(folders(), registry.get_recipe("simclr", "cifar10"), data="cifar10")
    keep(simclr, LinearRow, data="cifar10", probe="corinfomax", top1=0.5, top5=0.6)
    short = make_run(folders(), customise(registry.get_recipe("simclr", "cifar10"), epochs=3), data="cifar10")
    keep(short, LinearRow, data="cifar10", probe="mira", top1=0.4, top5=0.6)
    other = make_run(folders(), registry.get_recipe("mira", "cifar10"), data="cifar10")
    keep(other, LinearRow, data="cifar10", probe="corinfomax", top1=0.3, top5=0.6)
    (shown,) = report(other.path, simclr.path, short.path, table="corinfomax-10").published
    words = [line[0].text for line in shown.rows]
    place = words.index("SimCLR")
    assert words[place + 1].startswith(f"ours: {simclr.path.name}, simclr/cifar10")
    assert words[place + 2].startswith(f"ours: {short.path.name}, simclr/cifar10, ")
    assert ", epochs=3, " in words[place + 2]
    assert words[place + 2].endswith("mira")  # the probe
    assert words[place + 3] == "SimSiam"
    assert words[-1].startswith(f"ours: {other.path.name}, mira/cifar10")  # the table has no row of MIRA
    cells = {column.name: cell.text for column, cell in zip(shown_columns(), shown.rows[place + 1][1:], strict=True)}
    assert (cells["CIFAR-10 Top-1"], cells["CIFAR-100 Top-1"]) == ("50.0", "")
    elsewhere = make_run(folders(), registry.get_recipe("simclr", "cifar10"), data="digits")
    keep(elsewhere, LinearRow, data="cifar10", probe="corinfomax", top1=0.5, top5=0.6)
    assert our_line(elsewhere, "corinfomax-10") == ("", {})  # its columns are of encoders trained on the same data


def shown_columns():
    return published.table("corinfomax-10").columns


def test_the_line_says_what_no_condition_tells(folders):
    recipe = customise(
        registry.get_recipe("mira", "cifar10"),
        backbone="resnet34",
        overrides=["method.beta=0.5", "seed=3", "method.prototypes=100", "method.momentum=0.9"],
    )
    run = make_run(folders(), recipe, data="digits")
    keep(run, LinearRow, data="imagenet", probe="mira-lars", epochs=3, top1=0.5, top5=0.6)
    words, _ = our_line(run, "mira-2")
    assert words.removeprefix(f"ours: {run.path.name}, ").split(", ") == [
        "mira/cifar10",
        "resnet34",
        "trained on digits",
        "1000 epochs",
        "method.prototypes=100",
        "method.beta=0.5",
        "method.momentum=0.9",
        "mira-lars",
    ]
    words, _ = our_line(run, "mira-14")
    assert "100 prototypes" in words
    assert "method.prototypes" not in words
    assert "probe of 3 epochs" in words


def test_many_changes_are_counted(folders):
    recipe = registry.get_recipe("mira", "imagenet_multicrop_400")
    run = make_run(folders(), customise(recipe, views="moco"), data="imagenet")
    keep(run, LinearRow, data="imagenet", probe="mira", top1=0.5, top5=0.6)
    words, _ = our_line(run, "mira-1")
    assert " other settings" in words
    assert "no multi-crop" in words
    assert "views." not in words


SEARCH = {"penalty": 1.0, "penalties": (1.0, 1.0, 1), "solver": "exact", "converged": True}
TUNED = {"setting": "transfer", "learning_rate": 0.1, "weight_decay": 0.0, "tried": (), "grid": 20, "steps": 5000}
TUNED |= {"batch_size": 64, "seed": 0, "precision": "32", "ranks": 1}


@pytest.mark.parametrize(
    ("table", "row_class", "fields"),
    [
        ("mira-5", TransferRow, SEARCH),
        ("mveb-4-linear", TransferRow, SEARCH),
        ("mveb-4-finetune", TransferFinetuneRow, TUNED),
    ],
)
def test_an_average_is_filled_if_all_its_parts_are_there(folders, table, row_class, fields):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
    *parts, average = published.table(table).columns
    scores = [0.5 + i / 100 for i in range(len(parts))]
    for column, score in zip(parts, scores, strict=True):
        assert column is not parts[-1] or average.name not in our_line(run, table)[1]
        keep(run, row_class, data=column.data, **TRANSFER, **fields, **{"metric": column.metric, column.metric: score})
    words, cells = our_line(run, table)
    assert cells[average.name] == f"{100 * sum(scores) / len(scores):.1f}"
    assert "trained on" not in words
    keep(run, row_class, data="dtd", **TRANSFER, **fields, metric="top1", top1=1.0)
    assert float(our_line(run, table)[1][average.name]) > float(cells[average.name])


def test_evaluations_with_several_seeds_stand_by_their_mean_and_deviation(folders):
    run = make_run(folders(), registry.get_experiment("mira/imagenet_multicrop_400").recipe(), data="imagenet")
    fields = {"data": "imagenet", "probe": "mira", "augmentation": True, "epochs": 100, "batch_size": 1024}
    searched = {**fields, "learning_rates": (0.2, 0.3, 0.4, 0.8, 1.2, 1.6)}
    for seed, top1 in enumerate((0.70, 0.71, 0.72, 0.75)):
        keep(run, LinearRow, **searched, learning_rate=0.2 + 0.1 * (seed % 2), seed=seed, top1=top1, top5=0.9)
    for other in ({**searched, "epochs": 7}, {**fields, "learning_rate": 0.1}):
        keep(run, LinearRow, **{"learning_rate": 0.2, **other}, seed=0, top1=0.5, top5=0.6)
    words, cells = our_line(run, "mira-10")
    assert cells["Linear Top-1"] == "72.0 ± 2.16"
    assert cells["Linear Top-5"] == "90.0 ± 0.00"
    assert "mean of 4 seeds of the evaluation" in words
    ours = report(run.path).results[0].text()
    assert all(f"{run.path.name}, seed {seed} " in ours for seed in range(4))


def test_columns_with_other_numbers_of_seeds_are_no_means_of_the_most(folders):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
    fields = {**TRANSFER, "penalty": 1.0, "penalties": (1e-6, 1e5, 45), "solver": "exact", "converged": True}
    for data, seed in (("cars", 0), ("cars", 1), ("cars", 2), ("dtd", 0)):
        keep(run, TransferRow, data=data, **fields, seed=seed, top1=0.5)
    assert "mean of 1 to 3 seeds of the evaluation" in our_line(run, "mira-11")[0]


def test_runs_in_folders_of_the_same_name_have_lines_of_their_own(tmp_path):
    places = [tmp_path / "a" / "out", tmp_path / "b" / "out", tmp_path / "other"]
    for place, top1 in zip(places, (0.51, 0.52, 0.53), strict=True):
        place.parent.mkdir(exist_ok=True)
        run = make_run(place, registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
        keep(run, LinearRow, data="imagenet", probe="mira", top1=top1, top5=0.6)
    shown = report(*places, places[0], table="mira-2")
    lines = [(line[0].text.split(",")[0], line[1].text) for line in shown.published[0].rows[-3:]]
    assert lines == [("ours: a/out", "51.0"), ("ours: b/out", "52.0"), ("ours: other", "53.0")]
    whole = report(*places, places[0])
    assert len(whole.results[0].rows) == 3
    assert [line.partition(":")[0] for line in whole.origins] == ["a/out", "b/out", "other"]


def test_encoders_that_were_kept_fill_the_columns_by_epoch_and_stand_for_no_whole_run(folders):
    run = make_run(folders(), registry.get_recipe("carl", "cifar10"), data="cifar10")
    steps = run.recipe.steps(IMAGES)
    fields = {"data": "cifar10", "probe": "carl", "top5": 0.6}
    for epoch in (50, 100, 150, None):  # the last one is evaluated last, or first
        taken = steps if epoch is None else steps * epoch // 200
        keep(run, LinearRow, taken=taken, epoch=epoch, **fields, top1=(epoch or 200) / 1000)
    words, cells = our_line(run, "carl-1")
    names = [f"CIFAR-10 {epoch}" for epoch in (50, 100, 150, 200)]
    assert cells == dict(zip(names, ["5.0", "10.0", "15.0", "20.0"], strict=True))
    assert "steps" not in words
    (table,) = report(run.path).results
    name = run.path.name
    assert [line[0].text for line in table.rows] == [*(f"{name}, epoch {epoch}" for epoch in (50, 100, 150)), name]
    assert "unfinished" not in str(report(run.path))
    mira = make_run(folders(), registry.get_recipe("mira", "imagenet_400"), data="imagenet")
    taken = {"taken": mira.recipe.steps(IMAGES) // 4, "epoch": 100}
    keep(mira, LinearRow, data="imagenet", probe="mira", top1=0.7, top5=0.8)
    keep(mira, LinearRow, **taken, data="imagenet", probe="mira", top1=0.5, top5=0.6)
    for paper in published.tables():
        _, cells = our_line(mira, paper.id)
        assert set(cells.values()) <= {"70.0", "80.0"}, paper.id


def test_an_encoder_that_its_run_trained_further_is_named_by_its_step(folders):
    run = make_run(folders(), registry.get_recipe("carl", "cifar10"), data="cifar10")
    steps, name = run.recipe.steps(IMAGES), run.path.name
    (run.path / "encoder.json").write_text(json.dumps({"steps": steps}))
    fields = {"data": "cifar10", "probe": "carl", "top5": 0.6}
    keep(run, LinearRow, **fields, top1=0.5)
    keep(run, LinearRow, **fields, top1=0.4, taken=1000, recipe="carl/cifar10 with epochs=20")
    shown = report(run.path)
    assert [line[0].text for line in shown.results[0].rows] == [f"{name}, step 1,000", name]
    assert sorted(line.partition(":")[0] for line in shown.origins) == [name, f"{name}, step 1,000"]
    (run.path / "encoder.json").write_text(json.dumps({"steps": 1000}))  # now it is the run's newest
    assert [line[0].text for line in report(run.path).results[0].rows] == [name, name]


def test_a_table_alone_says_why_a_run_has_no_line(folders):
    run = make_run(folders(), registry.get_recipe("carl", "cifar10"), data="cifar10")
    run = make_run(folders(), customise(run.recipe, epochs=50), data="cifar10")
    keep(run, LinearRow, data="cifar10", probe="carl", top1=0.5, top5=0.6)
    keep(run, KnnRow, data="photos", k=20, temperature=0.07, top1=0.5, top5=0.6)
    name = run.path.name
    for table, reason in (
        ("mira-2", "its results are knn of photos and linear of cifar10; the columns are linear of imagenet"),
        ("carl-1", "the column CIFAR-10 50 is of a run of 200 epochs; it has a run of 50 epochs"),
    ):
        shown = report(run.path, table=table)
        assert (shown.results, shown.origins) == ((), ())
        assert str(shown).startswith(f"{published.table(table).paper}, ")
        assert f"no line of {name}: {reason}" in shown.published[0].notes, shown.published[0].notes
    assert "no line of" not in str(report(run.path))
    assert "leave-one-out" not in str(report(run.path))


def test_an_average_is_that_of_the_means_over_seeds(folders):
    run = make_run(folders(), registry.get_experiment("mira/imagenet_multicrop_400").recipe(), data="imagenet")
    fixed = {**TRANSFER, "penalty": 1.0, "penalties": (1.0, 1.0, 1), "solver": "exact", "converged": True}
    for column in published.table("mira-5").columns[:-1]:
        for seed in range(2):
            scores = {"top1": 0.4 + 0.2 * seed, column.metric: 0.4 + 0.2 * seed}
            keep(run, TransferRow, **fixed, data=column.data, seed=seed, **{**scores, "metric": column.metric})
    _, cells = our_line(run, "mira-5")
    assert cells["avg."] == "50.0"
    assert cells["DTD"] == "50.0 ± 14.14"


def test_a_fine_tuning_by_the_setting_for_another_share_is_named(folders):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
    fields = {**FINETUNE, "precision": "32", "epochs": 20, "steps": 100, "top1": 0.5, "top5": 0.6, "data": "imagenet"}
    keep(run, FinetuneRow, **fields, setting="mira-10", batch_size=256, subset_file="10percent.txt")
    assert "mira-1" not in our_line(run, "mira-4")[0].removeprefix("ours: ").replace("mira/", "")
    keep(run, FinetuneRow, **fields, setting="mira-10", batch_size=64, subset_file="1percent.txt")
    assert "mira-10" in our_line(run, "mira-4")[0]


def test_labels_of_a_share_that_no_paper_has_are_not_all_labels(folders):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
    neighbours = {"data": "imagenet", "top1": 0.5, "top5": 0.6, "k": 20, "temperature": 0.07}
    keep(run, KnnRow, **neighbours, subset_file="mine/half.txt")
    assert our_line(run, "mira-3") == ("", {})
    keep(run, KnnRow, **neighbours, subset_file="lists/10percent.txt")
    assert our_line(run, "mira-3")[1].keys() == {"10%"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"learning_rate": 0.3, "epochs": 100, "batch_size": 1024, "augmentation": True}, []),
        ({"learning_rate": 1.2}, ["probe at rate 1.2"]),
        ({"learning_rate": 1.2, "learning_rates": (0.2, 0.3, 0.4, 0.8, 1.2, 1.6)}, []),  # as a sweep does
        ({"learning_rate": 1.2, "learning_rates": (0.3, 1.2)}, ["probe at rate 1.2", "the best of 2"]),
        ({"epochs": 10, "batch_size": 64}, ["probe of 10 epochs", "probe by batches of 64"]),
        ({"augmentation": False}, ["probe without augmentation"]),
        ({"probe": "mveb"}, ["mveb"]),
        ({"probe": None}, ["logistic regression"]),
    ],
)
def test_the_line_says_what_was_changed_in_the_papers_probe(folders, changes, words):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet")
    keep(run, LinearRow, **{"data": "imagenet", "probe": "mira", "top1": 0.5, "top5": 0.6, **changes})
    line = our_line(run, "mira-2")[0].split(", ")
    assert line[-len(words) :] == words if words else line[-1] == "400 epochs"


def test_neighbours_of_a_run_on_other_images_say_so(folders):
    run = make_run(folders(), registry.get_recipe("mira", "imagenet_multicrop_400"), data="imagenet", classes="ten.txt")
    keep(run, KnnRow, data="imagenet", top1=0.5, top5=0.6, k=20, temperature=0.07)
    assert "trained on imagenet, classes ten.txt" in our_line(run, "mira-3")[0]


def test_the_conditions_of_a_recipe_have_all_that_its_method_knows():
    """Each setting of a method that a table names as a condition is known of its recipes."""
    for name, experiment in registry.experiments().items():
        conditions, numbers = recipe_conditions(experiment.recipe()), experiment.numbers()
        for number in numbers:
            telling = telling_conditions(number.table, number.column)
            ours = {**vars(conditions), "method": number.row.method, "data": experiment.data}
            assert {key: ours[key] for key in telling} == telling, (name, number.table.id, number.column.name)


def test_a_method_with_conditions_that_there_are_not_is_refused():
    spec = registry.METHODS["carl"]
    known = vars(spec)
    with pytest.raises(ValueError, match="the method carl: CarlSettings has no clusters"):
        MethodSpec(**{**known, "conditions": {"clusters": "prototypes"}})
    with pytest.raises(ValueError, match="the method carl: Conditions has no clusters"):
        MethodSpec(**{**known, "conditions": {"prototypes": "clusters"}})
    assert {*Conditions.__dataclass_fields__} >= {*spec.conditions.values()}
