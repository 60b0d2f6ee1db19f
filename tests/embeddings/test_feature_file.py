"""Files of features: what is written is read back, other libraries read it, and what is damaged is refused."""

import json

import duckdb
import numpy as np
import polars
import pyarrow.parquet
import pytest

from feature_files import origin, written
from infomax.embeddings.feature_file import SUFFIXES, is_feature_file, read_features, write_features

NAMES = ["a/1.png", "a/ü,\n.png", "b/\U0001f600.png", "b/4.png", "5"]
LABELS = ["a", "a", "b", "b|c", ""]


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "none"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_written_is_read_back(tmp_path, features, suffix, labels, dtype):
    file, features = tmp_path / f"f{suffix}", features.astype(dtype)
    table = written(file, features, NAMES, labels)
    assert table.features.dtype == dtype
    np.testing.assert_array_equal(table.features, features)
    assert list(table.names) == NAMES
    assert table.labels == labels
    assert table.origin == origin(5, 7, precision="16" if dtype == np.float16 else "32")
    assert is_feature_file(file)
    assert {path.name for path in tmp_path.iterdir()} == {
        file.name,
        *([f"{file.name}.json"] if suffix == ".npy" else []),
    }


def test_other_libraries_read_parquet(tmp_path, features):
    file = tmp_path / "f.parquet"
    written(file, features, NAMES, LABELS)
    frame = polars.read_parquet(file)
    np.testing.assert_array_equal(frame["features"].to_numpy(), features)
    assert frame["name"].to_list() == NAMES
    rows = duckdb.sql(f"select label, features[2] from '{file}' order by label").fetchall()
    assert sorted(rows) == sorted(zip(LABELS, features[:, 1].tolist(), strict=True))
    metadata = json.loads(pyarrow.parquet.read_schema(file).metadata[b"infomax"])
    assert metadata["encoder_hash"] == "0123456789ab"
    assert metadata["preprocessing"]["size"] == 16


def test_numpy_reads_npz_and_npy(tmp_path, features):
    written(tmp_path / "f.npz", features, NAMES, LABELS)
    with np.load(tmp_path / "f.npz") as arrays:
        np.testing.assert_array_equal(arrays["features"], features)
        assert arrays["names"].tolist() == NAMES
        assert arrays["labels"].tolist() == LABELS
    written(tmp_path / "f.npy", features, NAMES)
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), features)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_of_a_file_that_could_not_be_finished(tmp_path, features, suffix):
    def parts():
        yield features[:2]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_features(tmp_path / f"f{suffix}", parts(), NAMES, None, lambda d: origin(5, d))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_is_refused(tmp_path, features, suffix):
    file = tmp_path / f"f{suffix}"
    written(file, features, NAMES)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"f\.\w+ cannot be read as features"):
        read_features(file)


def test_files_of_another_origin_are_refused(tmp_path, features):
    polars.DataFrame({"path": ["a"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no column name, but path; infomax embed writes such a file"):
        read_features(tmp_path / "a.parquet")
    polars.DataFrame({"name": ["a"], "features": [[1.0]]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="does not say which encoder"):
        read_features(tmp_path / "b.parquet")
    np.savez(tmp_path / "c.npz", train_x=features)
    with pytest.raises(ValueError, match="has no array features, but train_x"):
        read_features(tmp_path / "c.npz")
    assert not is_feature_file(tmp_path / "c.npz")
    np.save(tmp_path / "d.npy", features)
    with pytest.raises(ValueError, match=r"has no d\.npy\.json beside it"):
        read_features(tmp_path / "d.npy")
    with pytest.raises(ValueError, match="there are no features: .*infomax embed writes them"):
        read_features(tmp_path / "e.parquet")
    written(tmp_path / "f.npy", features, NAMES)
    np.save(tmp_path / "f.npy", features[:3])
    with pytest.raises(ValueError, match="is damaged"):
        read_features(tmp_path / "f.npy")
