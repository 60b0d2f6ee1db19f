"""The notebooks are kept without outputs; their cells run in CI on fewer images, and as they stand in a kernel."""

import ast
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
PATIENCE = 600  # seconds for a cell on a busy machine; all cells of a notebook take one or two minutes

FEWER = {
    "judge-a-timm-model": {'data="digits"': 'data="few"'},
    "one-loss": {"load_digits()": "load_digits(n_class=4)", "epochs, batch = 30, 256": "epochs, batch = 2, 128"},
    "own-images": {"load_digits()": "load_digits(n_class=2)", "epochs=10": "epochs=1"},
}
"""Texts of the notebooks, and what they are replaced by so that the cells take seconds."""


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


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Makes the working folder of a notebook, with 40 images of two digits."""
    digits = load_digits(n_class=2)
    for number, (pixels, label) in enumerate(zip(digits.images[:40], digits.target[:40], strict=True)):
        file = tmp_path / "few" / str(label) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(file)
    monkeypatch.chdir(tmp_path)


@pytest.mark.process
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_cells_of_a_notebook_run_in_their_order(notebook, few, monkeypatch):
    """On few images and without a kernel, so that CI can run it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = "\n".join("".join(cell["source"]) for cell in code_cells(notebook))
    for text, fewer in FEWER[notebook.stem].items():
        assert text in source
        source = source.replace(text, fewer)
    names: dict = {"__name__": "__main__"}
    exec(compile(source, notebook.name, "exec"), names)
    if notebook.stem == "one-loss":
        assert torch.isfinite(names["loss"])
    else:
        assert names["features"].shape == (len(names["names"]), names["features"].shape[1])
        assert {row.representation for row in names["rows"]} >= {"raw pixels"}


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
