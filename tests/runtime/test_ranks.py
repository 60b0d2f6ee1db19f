"""Ranks that are started on this machine: how they end is what they report."""

import pytest

from infomax.runtime.ranks import run_ranks
from started import crash_when_all_is_done


@pytest.mark.process
def test_a_crash_of_the_interpreter_after_the_end_is_no_failure(tmp_path):
    run_ranks(crash_when_all_is_done, 2, tmp_path, "")
    assert {file.name for file in tmp_path.iterdir()} == {"0", "1"}


@pytest.mark.process
def test_a_crash_of_the_interpreter_hides_no_error(tmp_path):
    with pytest.raises(ValueError, match="no such image"):
        run_ranks(crash_when_all_is_done, 2, tmp_path, "no such image")
