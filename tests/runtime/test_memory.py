"""The memory that a process may use and take, on machines with control groups and without."""

import pytest

from infomax.runtime import memory
from infomax.runtime.memory import _limits, available_memory, machine_memory
from linux_files import V2_MOUNTS, write_machine

V1_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
35 31 0:32 /docker/x /sys/fs/cgroup/cpu,memory rw,relatime - cgroup cgroup rw,cpu,memory
"""


def test_the_tightest_group_counts_and_copies_of_files_are_free(tmp_path):
    folders = {
        "sys/fs/cgroup/slice/job": {"memory.max": "max", "memory.current": "700"},
        "sys/fs/cgroup/slice": {
            "memory.max": "1000",
            "memory.current": "900",
            "memory.stat": "anon 500\ninactive_file 300\n",
        },
    }
    assert list(_limits(write_machine(tmp_path, "0::/slice/job\n", V2_MOUNTS, **folders))) == [(1000, 400)]


@pytest.mark.parametrize(("controllers", "folder"), [("memory", "memory/docker/x"), ("cpu,memory", "cpu,memory")])
def test_groups_of_version_1(tmp_path, controllers, folder):
    groups = f"3:cpuset:/elsewhere\n2:{controllers}:/docker/x\n"
    files = {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "1200"}
    root = write_machine(tmp_path, groups, V1_MOUNTS, **{f"sys/fs/cgroup/{folder}": files})
    assert list(_limits(root)) == [(1000, 0)]


def test_a_limit_of_the_own_group_is_all_the_memory_there_is(tmp_path, monkeypatch):
    files = {"memory.max": "1000", "memory.current": "900"}
    root = write_machine(tmp_path, "0::/slice/job\n", V2_MOUNTS, **{"sys/fs/cgroup/slice/job": files})
    monkeypatch.setattr(memory, "_limits", lambda: _limits(root))
    assert (machine_memory(), available_memory()) == (1000, 100)


def test_without_groups_the_machine_decides(tmp_path):
    assert list(_limits(tmp_path)) == []
    assert 0 < available_memory() <= machine_memory()
