"""The notebooks are kept without outputs, and run as they stand where there is no network."""

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
PATIENCE = 600  # seconds for a cell on a busy machine; all cells of a notebook take one or two minutes


def code_cells(notebook: Path) -> list[dict]:
    """Returns the cells of a notebook that hold code."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_python_and_has_no_outputs(notebook):
    cells = code_cells(notebook)
    assert cells
    for cell in cells:
        ast.parse("".join(cell["source"]))
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})


def test_all_notebooks_are_linked():
    page = (Path(__file__).parents[1] / "docs" / "README.md").read_text()
    assert len(NOTEBOOKS) == 3
    assert [notebook.name for notebook in NOTEBOOKS if f"(notebooks/{notebook.name})" not in page] == []


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_as_it_stands(notebook, tmp_path, monkeypatch):
    """In a kernel, as a user runs it: uv run --group test --group notebooks pytest -m slow tests/test_notebooks.py"""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    client = nbclient.NotebookClient(
        nbformat.read(notebook, 4), timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}}
    )
    executed = client.execute()
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
