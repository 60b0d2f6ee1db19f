"""Quotas are read from files as Linux, Docker and Kubernetes write them, and a user's own variables stay."""

import os
import subprocess
import sys
from math import inf

import pytest
import torch

from infomax.data.loading.workers import worker_count
from infomax.data.sources.folders import open_folder
from infomax.runtime import threads
from infomax.runtime.ranks import run_ranks
from infomax.runtime.threads import (
    COUNT_VARIABLES,
    WAIT_VARIABLES,
    available_cores,
    core_count,
    cores_of_this_process,
    quota_in_cores,
    set_thread_variables,
    thread_variables_in_children,
    threads_within_quota,
    user_environment,
)
from linux_files import V2_MOUNTS, write_machine
from started import write_rank_variables

POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4ba1.slice/cri-containerd-9f3c.scope"
READ_ONLY = "ro,nosuid,nodev,noexec,relatime"
V1_GROUPS = """\
12:memory:/docker/9f3c
11:cpuset:/docker/9f3c
5:cpu,cpuacct:/docker/9f3c
1:name=systemd:/docker/9f3c
0::/system.slice/containerd.service
"""
V1_MOUNTS = f"""\
730 729 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755,inode64
741 730 0:32 /docker/9f3c /sys/fs/cgroup/cpu,cpuacct {READ_ONLY} master:15 - cgroup cgroup rw,cpu,cpuacct
742 730 0:33 /docker/9f3c /sys/fs/cgroup/cpuset {READ_ONLY} master:16 - cgroup cgroup rw,cpuset
"""
V1_ON_HOST = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
SESSION = "user.slice/user-1000.slice"
CPU = "sys/fs/cgroup/cpu"


def of_v1(quota: int, period: int = 100_000) -> dict[str, str]:
    return {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "mounts", "folders", "cores"),
    [
        pytest.param("0::/\n", V2_MOUNTS, {"sys/fs/cgroup": "50000 100000\n"}, 0.5, id="v2, a container"),
        pytest.param("0::/\n", V2_MOUNTS, {"sys/fs/cgroup": "max 100000\n"}, inf, id="v2, no limit"),
        pytest.param("0::/\n", V2_MOUNTS, {}, inf, id="v2, the first group, which has no file"),
        pytest.param(
            f"0::/{SESSION}/session-2.scope\n",
            V2_MOUNTS,
            {
                f"sys/fs/cgroup/{SESSION}/session-2.scope": "max 100000\n",
                f"sys/fs/cgroup/{SESSION}": "150000 100000\n",
                "sys/fs/cgroup/user.slice": "4000000 1000000\n",
            },
            1.5,
            id="v2, a limit of a group above",
        ),
        pytest.param(
            f"0::{POD}/sub\n",
            f"35 25 0:30 {POD} /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n",
            {"sys/fs/cgroup/sub": "max 100000\n", "sys/fs/cgroup": "200000 100000\n"},
            2.0,
            id="v2, a group mounted in a container that sees its whole path",
        ),
        pytest.param(
            "0::/../../init.scope\n",
            V2_MOUNTS,
            {"sys/fs/cgroup": "100000 100000\n", "sys": "10000 100000\n"},
            1.0,
            id="v2, a group outside",
        ),
        pytest.param(V1_GROUPS, V1_MOUNTS, {f"{CPU},cpuacct": of_v1(250_000)}, 2.5, id="v1, a container"),
        pytest.param(V1_GROUPS, V1_MOUNTS, {f"{CPU},cpuacct": of_v1(-1)}, inf, id="v1, no limit"),
        pytest.param(
            V1_GROUPS, V1_MOUNTS, {"sys/fs/cgroup/cpuset": of_v1(50_000)}, inf, id="v1, files of another controller"
        ),
        pytest.param(
            "1:cpu:/lab/job\n0::/\n",
            V1_ON_HOST,
            {f"{CPU}/lab/job": of_v1(200_000), f"{CPU}/lab": of_v1(30_000, 20_000), CPU: of_v1(-1)},
            1.5,
            id="v1 and v2, a limit of a group above",
        ),
        pytest.param(
            "0::/a\n",
            "35 25 0:30 / /mnt/my\\040groups rw - cgroup2 cgroup rw\n",
            {"mnt/my groups/a": "75000 50000\n"},
            1.5,
            id="a space in the mount point",
        ),
        pytest.param("0::/\n", V2_MOUNTS, {"sys/fs/cgroup": "all of it\n"}, inf, id="what is no number"),
        pytest.param("", "", {}, inf, id="no groups"),
    ],
)
def test_the_quota_is_the_least_of_the_groups_limits(tmp_path, groups, mounts, folders, cores):
    assert quota_in_cores(write_machine(tmp_path, groups, mounts, **folders)) == cores


def test_a_system_without_proc_has_no_quota(tmp_path):
    assert quota_in_cores(tmp_path) == inf


@pytest.fixture
def cores(monkeypatch):
    """Returns a function that gives this machine eight cores and a quota, and leaves no variable set."""
    for name in (*COUNT_VARIABLES, *WAIT_VARIABLES, "PYTHON_CPU_COUNT", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def set_cores(quota: float) -> None:
        monkeypatch.setattr(threads, "_own_quota", lambda: quota)

    monkeypatch.setattr(threads, "cores_to_run_on", lambda: 8)
    monkeypatch.setattr(threads, "_set_here", {})
    set_cores(inf)
    with pytest.MonkeyPatch.context() as patch:  # restores what the functions set
        for name in (*COUNT_VARIABLES, *WAIT_VARIABLES):
            patch.setenv(name, "")
            patch.delenv(name)
        yield set_cores


def variables() -> dict[str, str]:
    return {name: os.environ[name] for name in (*COUNT_VARIABLES, *WAIT_VARIABLES) if name in os.environ}


@pytest.mark.parametrize(("quota", "available", "count"), [(inf, 8, 8), (0.5, 0.5, 1), (1.5, 1.5, 2), (64, 8, 8)])
def test_cores_are_those_of_the_quota(cores, quota, available, count):
    cores(quota)
    assert (available_cores(), core_count(), cores_of_this_process()) == (available, count, count)


def test_pythons_own_number_of_cores_goes_first(cores, monkeypatch):
    cores(2)
    monkeypatch.setenv("PYTHON_CPU_COUNT", "3")
    assert core_count() == 3
    monkeypatch.setenv("PYTHON_CPU_COUNT", "default")
    assert core_count() == 2
    monkeypatch.setitem(sys._xoptions, "cpu_count", "5")
    assert core_count() == 5


def test_ranks_share_cores_and_workers(cores, monkeypatch, tmp_path):
    (tmp_path / "a.png").touch()
    images = open_folder("photos", tmp_path).pretraining
    cores(6)
    assert worker_count(images, None) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as torchrun sets it
    assert worker_count(images, None) == 1
    assert worker_count(images, 3) == 3


def test_the_command_sets_how_threads_wait_and_as_many_as_the_quota_allows(cores):
    set_thread_variables()
    waits = {"GOMP_SPINCOUNT": str(threads.SPIN_COUNT), "KMP_BLOCKTIME": str(threads.BLOCK_TIME)}
    assert variables() == waits  # without a quota, OpenMP counts the cores right
    cores(1.5)
    set_thread_variables()
    assert variables() == {"OMP_NUM_THREADS": "2", **waits}
    assert not user_environment().keys() & variables().keys()


@pytest.mark.parametrize("name", COUNT_VARIABLES)
def test_a_users_number_of_threads_stays(cores, monkeypatch, name):
    cores(1)
    monkeypatch.setenv(name, "7")
    set_thread_variables()
    with thread_variables_in_children():
        assert {key: value for key, value in variables().items() if key in COUNT_VARIABLES} == {name: "7"}
    torch.set_num_threads(3)
    with threads_within_quota():
        assert torch.get_num_threads() == 3
    assert user_environment()[name] == "7"


@pytest.mark.parametrize("name", WAIT_VARIABLES)
def test_a_users_way_of_waiting_stays(cores, monkeypatch, name):
    monkeypatch.setenv(name, "0")
    set_thread_variables()
    with thread_variables_in_children():
        assert {key: value for key, value in variables().items() if key in WAIT_VARIABLES} == {name: "0"}
    assert user_environment()[name] == "0"


def test_processes_that_python_starts_get_the_variables_and_python_itself_none(cores):
    cores(5)
    with thread_variables_in_children():
        assert variables()["OMP_NUM_THREADS"] == "5"
        assert variables()["GOMP_SPINCOUNT"] == str(threads.SPIN_COUNT)
    assert not variables()
    set_thread_variables()
    before = variables()
    with thread_variables_in_children():
        assert variables() == before
    assert variables() == before


def test_torch_in_anothers_process_keeps_to_the_quota_for_a_while(cores):
    cores(2)
    torch.set_num_threads(3)
    with threads_within_quota():
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3
    assert not variables()


def test_import_sets_no_variable():
    code = "import os; before = dict(os.environ); import infomax, infomax.cli; print(before == dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_first_use_of_a_function_sets_how_threads_wait_unless_torch_has_read_that():
    code = """
import os, sys
import infomax
before = dict(os.environ)
sys.modules["torch"] = sys
infomax.Run
print(before == dict(os.environ))
del sys.modules["torch"]
infomax.StepReport
print(*[f"{key}={value}" for key, value in os.environ.items() if key not in before])
"""
    environment = {key: value for key, value in os.environ.items() if key not in (*COUNT_VARIABLES, *WAIT_VARIABLES)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"True\nGOMP_SPINCOUNT={threads.SPIN_COUNT} KMP_BLOCKTIME={threads.BLOCK_TIME}\n"


@pytest.mark.process
def test_started_ranks_get_the_variables(cores, tmp_path):
    cores(2)
    run_ranks(write_rank_variables, 2, tmp_path)
    for rank in "01":
        assert (tmp_path / rank).read_text() == f"2 {threads.SPIN_COUNT} 2 1"
    assert not variables()


STATISTICS = """\
cpu  900 0 0 9000 0 0 0 0 0 0
cpu0 100 10 20 9000 50 3 2 5 7 0
cpu1 300 0 0 9000 0 0 0 0 0 0
cpu2 5000 0 0 9000 0 0 0 0 0 0
intr 17 0
"""


def test_the_time_of_others_is_that_of_this_process_s_cores(tmp_path, monkeypatch):
    (tmp_path / "stat").write_text(STATISTICS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    monkeypatch.setattr(os, "times", lambda: (0.5, 0.25, 0.0, 0.0, 9.0))
    seconds = (100 + 10 + 20 + 3 + 2 + 5 + 300) / os.sysconf("SC_CLK_TCK")
    assert threads._seconds_of_others(tmp_path / "stat") == pytest.approx(seconds - 0.75)
    assert threads._seconds_of_others(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("busy", "load", "used", "fewer"),
    [
        pytest.param(3.8, 4.0, 4, 1, id="all cores are busy: one thread remains"),
        pytest.param(2.2, 9.0, 4, 2, id="two are free"),
        pytest.param(0.3, 9.0, 4, None, id="what keeps a part of a core busy changes nothing"),
        pytest.param(3.8, 0.2, 4, None, id="what began a moment ago may end in a moment"),
        pytest.param(2.2, 9.0, 2, None, id="there are no more threads than free cores"),
    ],
)
def test_a_line_says_how_many_threads_suit_a_busy_machine(cores, monkeypatch, busy, load, used, fewer):
    monkeypatch.setattr(threads, "cores_to_run_on", lambda: 4)
    monkeypatch.setattr(threads, "_first_times", [(10.0, 100.0)])
    monkeypatch.setattr(threads, "_seconds_of_others", lambda: 100.0 + 2 * busy)
    monkeypatch.setattr(threads.time, "monotonic", lambda: 12.0)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    line = threads.describe_busy_machine(used)
    assert line is None if fewer is None else f"OMP_NUM_THREADS={fewer} is faster" in (line or "")
    if fewer is not None:
        assert f"other processes keep {busy:.1f} of 4 cores busy, and {used} threads wait" in (line or "")
        assert "GOMP_SPINCOUNT=1000 before Python starts" in (line or "")
        monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
        assert "GOMP_SPINCOUNT" not in (threads.describe_busy_machine(used) or "")
    monkeypatch.setenv("OMP_NUM_THREADS", str(used))
    assert threads.describe_busy_machine(used) is None
