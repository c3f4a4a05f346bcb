import json

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import structure


@pytest.fixture
def blobs():
    """Five tight directions in 16 dimensions, the fifth a small one."""
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(5), [100, 100, 100, 100, 12])
    return np.eye(16)[truth] + 0.04 * rng.normal(size=(len(truth), 16)), truth


def test_dbscan_finds_planted_islands():
    rng = np.random.default_rng(2)
    xy = np.concatenate([rng.normal(0, 0.1, (200, 2)), rng.normal(5, 0.05, (20, 2)), [[20, 20]]])
    labels = structure.dbscan(xy)
    assert set(labels[:200]) - {-1} == {0} and np.all(labels[200:220] == 1) and labels[220] == -1
    assert structure.dbscan(np.roll(xy, 30, axis=0))[50] == 0, "numbered by size, not by place in the file"


def test_clusters_are_numbered_by_size_whatever_they_were_called():
    labels = np.array([7, 7, -1, 3, 3, 3, 0, -1, 5, 5])
    expected = np.array([1, 1, -1, 0, 0, 0, 3, -1, 2, 2])  # 7 and 5 are alike in size, 7 is met first
    for names in ({}, {7: 0, 3: 9, 0: 4, 5: 1}, {7: 9, 3: 1, 0: 2, 5: 0}):
        renamed = np.array([names.get(name, name) for name in labels])
        np.testing.assert_array_equal(structure.by_size(renamed), expected)
    np.testing.assert_array_equal(structure.by_size(np.full(3, -1)), np.full(3, -1))


def test_clusters_and_noise_are_counted():
    assert structure.cluster_counts(np.array([0, 0, 2, -1])) == {"clusters": 2, "noise": 0.25}
    assert structure.cluster_counts(np.full(3, -1)) == {"clusters": 0, "noise": 1}


def test_no_number_of_clusters_to_try_is_refused(blobs):
    with pytest.raises(InputError, match="give most_clusters of at least 2"):
        structure.kmeans_sweep(blobs[0], range(2, 2))


@pytest.mark.parametrize("core_share", [0.5, 0.98])
def test_core_distance_is_the_least_radius_with_that_share_of_core_points(core_share):
    xy = np.random.default_rng(0).normal(size=(150, 2))
    eps = structure.core_distance(xy, 5, core_share)

    def share(radius):
        return len(DBSCAN(eps=radius, min_samples=5).fit(xy).core_sample_indices_) / len(xy)

    assert share(eps * (1 + 1e-9)) >= core_share > share(eps * (1 - 1e-9))


def test_one_point_is_enough_for_a_core():
    xy = np.random.default_rng(0).normal(size=(30, 2))
    labels = structure.dbscan(xy, structure.core_distance(xy, min_samples=1), min_samples=1)
    assert sorted(labels) == list(range(30))


def test_unrelated_labels_share_no_information():
    labels, truth = np.random.default_rng(0).integers(0, [[12], [6]], (2, 200))
    found = structure.cluster_purity(labels, truth)
    assert abs(found["adjusted_information"]) < 0.03 and abs(found["adjusted_rand"]) < 0.03


def test_small_islands_are_the_clusters_below_the_share():
    labels = np.repeat([0, 1, 2, -1], [86, 6, 5, 3])
    assert structure.small_islands(labels).tolist() == [2]
    assert structure.small_islands(labels, largest_share=0.06).tolist() == [1, 2]


def test_kmeans_sweep_chooses_the_planted_number(blobs):
    x, truth = blobs
    sweep = structure.kmeans_sweep(x[truth < 4], seed=3)
    assert sweep["chosen_k"] == 4 and list(sweep["ks"]) == list(range(2, 13))
    assert structure.cluster_purity(sweep["labels"], truth[truth < 4])["adjusted_rand"] == 1
    again = structure.kmeans_sweep(x[truth < 4], seed=3)
    assert np.array_equal(sweep["labels"], again["labels"])
    uneven = structure.kmeans_sweep(x[80:], ks=[5], seed=3)["labels"]
    assert np.bincount(uneven).tolist() == [100, 100, 100, 20, 12] and np.all(uneven[:20] == 3)


def test_silhouettes_are_sampled_when_there_are_many(blobs):
    from sklearn.metrics import silhouette_score

    x = structure.unit(blobs[0])
    sampled, full = (structure.kmeans_sweep(x, ks=[4], silhouette_sample=n) for n in (150, 10_000))
    assert sampled["silhouette_n"] == 150 and full["silhouette_n"] == len(x)
    assert full["silhouette"][0] == pytest.approx(silhouette_score(x, full["labels"]))
    assert sampled["silhouette"][0] == pytest.approx(full["silhouette"][0], abs=0.05)


def test_purity_by_hand():
    truth = np.array(["a", "a", "a", "b", "b", "c"])
    found = structure.cluster_purity([0, 0, 1, 1, 1, 1], truth)
    assert found["purity"] == pytest.approx(4 / 6) and found["majority"] == 0.5
    assert found == structure.cluster_purity([0, 0, 1, 1, 1, 1], truth.astype("S1"))


def test_islands_by_hand():
    labels = np.array([0] * 90 + [1] * 4 + [2] * 3 + [-1] * 3)
    artefact = np.zeros(100, bool)
    artefact[[0, 90, 91, 92, 97]] = True
    found = structure.islands(labels, artefact)
    assert found["best"] == 1 and [row["label"] for row in found["islands"]] == [1, 2]
    assert found["islands"][0] == {"label": 1, "n": 4, "purity": 0.75, "completeness": 0.6}
    assert found["all_islands"] == {"n": 7, "purity": 3 / 7, "completeness": 0.6}
    assert found["noise"] == {"n": 3, "purity": 1 / 3, "completeness": 0.2}
    assert found["chance"] == {"n": 100, "purity": 0.05, "completeness": 1}
    json.dumps(found)  # plain numbers, as metrics.json wants them


def test_no_artefacts_no_best_island():
    found = structure.islands(np.array([0] * 95 + [1] * 5), np.zeros(100, bool))
    assert found["best"] is None and found["all_islands"]["purity"] == 0


def test_outliers_are_the_planted_ones(blobs):
    rng = np.random.default_rng(4)
    x = np.concatenate([blobs[0], rng.normal(size=(5, 16))])
    truth = np.arange(len(x)) >= len(blobs[0])
    isolation = structure.outliers(x)
    found = structure.outlier_recall(isolation, truth, percent=2)
    assert found["n"] == 8 and found["found"] == 5 and found["total"] == 5 and found["auc"] == 1
    assert found["expected"] == pytest.approx(8 * 5 / len(x))
    assert found["enrichment"] == pytest.approx(len(x) / 8)


def test_outlier_distance_is_scikit_learns(blobs):
    from sklearn.neighbors import NearestNeighbors

    x = structure.unit(blobs[0])
    distance, _ = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(x).kneighbors()
    np.testing.assert_allclose(structure.outliers(x), distance.mean(1), atol=1e-7)


def test_p_value_of_found_outliers_is_that_of_random_draws():
    rng = np.random.default_rng(6)
    truth = np.arange(200) < 30
    isolation = -np.arange(200.0)
    isolation[4:20], isolation[30:46] = (
        isolation[30:46],
        isolation[4:20].copy(),
    )  # 4 of the 20 first are of the class
    found = structure.outlier_recall(isolation, truth, percent=10)
    assert (found["n"], found["found"]) == (20, 4)
    drawn = [truth[rng.permutation(200)[:20]].sum() for _ in range(20_000)]
    assert found["p_value"] == pytest.approx(np.mean(np.array(drawn) >= 4), abs=0.01)
    assert structure.outlier_recall(isolation, np.zeros(200, bool))["p_value"] == 1


def test_table_of_outliers_is_ranked_by_the_better_of_its_ranks(tmp_path):
    import pandas

    targetid = np.array([39633345008634465, 2, 3, 4])
    isolation = {"image features": np.array([0.1, 0.9, 0.5, 0.2]), "spectrum features": np.array([4.0, 1, 2, 3])}
    flags = {
        "split": np.array(["test", "test", "validation", "test"]),
        "redshift": np.array([0.123456, np.nan, 0.5, 0.25], np.float32),
        "artefact": np.array([b"", b"star", b"", b""]),
        "broad_line": np.array([1, 0, 0, 0]),
    }
    structure.write_outliers(tmp_path / "outliers.csv", targetid, isolation, flags)
    table = pandas.read_csv(tmp_path / "outliers.csv", keep_default_na=False)
    # Ranks by image 4, 1, 2, 3 and by spectrum 1, 4, 3, 2: the first two have a 1, the others a 2, with sums alike.
    assert table["TARGETID"].tolist() == [39633345008634465, 2, 3, 4]
    assert table["rank_image_features"].tolist() == [4, 1, 2, 3]
    assert table["rank_spectrum_features"].tolist() == [1, 4, 3, 2]
    np.testing.assert_allclose(table["isolation_image_features"], isolation["image features"])
    assert table["artefact"].tolist() == ["", "star", "", ""] and table["broad_line"].tolist() == [1, 0, 0, 0]
    assert table["split"].tolist() == ["test", "test", "validation", "test"]
    assert table["redshift"].astype(str).tolist() == ["0.123456", "", "0.5", "0.25"]
    assert [path.name for path in tmp_path.iterdir()] == ["outliers.csv"]
    structure.write_outliers(tmp_path / "outliers.csv", targetid, {"image": isolation["image features"]}, {})
    assert pandas.read_csv(tmp_path / "outliers.csv")["TARGETID"].tolist() == [2, 3, 4, 39633345008634465]


def test_unrelated_outliers_are_at_chance():
    rng = np.random.default_rng(5)
    found = structure.outlier_recall(rng.normal(size=20_000), rng.random(20_000) < 0.1)
    assert 0.5 < found["enrichment"] < 1.6 and abs(found["auc"] - 0.5) < 0.03


@pytest.mark.slow
def test_umap_repeats_and_separates(blobs):
    x, truth = blobs
    xy = structure.umap_2d(x, seed=6)
    assert xy.shape == (len(x), 2) and xy.tobytes() == structure.umap_2d(x, seed=6).tobytes()
    assert not np.array_equal(xy, structure.umap_2d(x, seed=7))
    assert structure.cluster_purity(structure.dbscan(xy, eps=0.5), truth)["purity"] > 0.95
