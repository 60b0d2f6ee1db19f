"""How much memory is left: of the machine, and of the control groups that hold the process."""

import pytest

from infomax.runtime.memory import _left_in_control_groups, available_memory, machine_memory


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)


def test_the_tightest_group_counts_and_copies_of_files_are_free(tmp_path):
    (tmp_path / "membership").write_text("0::/slice/job\n")
    root = tmp_path / "groups"
    write(root / "slice" / "job", memory__max="max", memory__current="700")
    write(root / "slice", memory__max="1000", memory__current="900", memory__stat="anon 500\ninactive_file 300\n")
    assert list(_left_in_control_groups(tmp_path / "membership", root)) == [400]


@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_groups_of_version_1(tmp_path, controllers):
    (tmp_path / "membership").write_text(f"3:cpuset:/elsewhere\n2:{controllers}:/docker/x\n")
    root = tmp_path / "groups"
    write(root / "memory", memory__limit_in_bytes="1000", memory__usage_in_bytes="1200")
    assert list(_left_in_control_groups(tmp_path / "membership", root)) == [0]


def test_without_groups_the_machine_decides(tmp_path):
    assert list(_left_in_control_groups(tmp_path / "none", tmp_path)) == []
    assert 0 < available_memory() <= machine_memory()
