"""The shape of an embedding: maps, clusters, islands and outliers."""

import csv
import warnings

import numpy as np

from ..errors import InputError
from ..paths import replacing
from ..retrieval import nearest, unit

ORIGINAL_EPS = 0.20  # DBSCAN's radius in the report that this package reimplements, in units of its UMAP plane


def umap_2d(x, seed=0):
    """UMAP of ``x`` (N, D) by cosine; (N, 2) float32. The seed makes it repeat bit for bit on one machine."""
    warnings.filterwarnings("ignore", "IProgress not found")  # of tqdm in a notebook without widgets
    import umap

    reducer = umap.UMAP(
        n_components=2,
        n_neighbors=min(15, len(x) - 1),
        min_dist=0.1,
        metric="cosine",
        random_state=seed,
        n_jobs=1,
    )
    return reducer.fit_transform(np.asarray(x, np.float32))


def by_size(labels):
    """Labels (N,) with the clusters numbered by falling size from 0, equal ones as they are met; noise stays -1."""
    labels = np.asarray(labels)
    found, first, counts = np.unique(labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    renumbered = np.full(len(labels), -1)
    for number, name in enumerate(found[order][found[order] >= 0]):
        renumbered[labels == name] = number
    return renumbered


def core_distance(xy, min_samples=5, core_share=0.98):
    """The least DBSCAN radius that makes ``core_share`` of the points of a map ``xy`` (N, 2) core points: float.

    No radius suits all maps, whose scale is UMAP's and whose density grows with the number of galaxies.
    """
    from sklearn.neighbors import NearestNeighbors

    n = min(min_samples, len(xy))  # the point itself is the first of them, as in DBSCAN
    distance, _ = NearestNeighbors(n_neighbors=n).fit(xy).kneighbors(xy)
    return max(float(np.quantile(distance[:, -1], core_share, method="inverted_cdf")), 1e-6)  # DBSCAN takes no 0


def dbscan(xy, eps=ORIGINAL_EPS, min_samples=5):
    """Density clusters of a map ``xy`` (N, 2): labels (N,), numbered by size, -1 for noise."""
    from sklearn.cluster import DBSCAN

    return by_size(DBSCAN(eps=eps, min_samples=min_samples).fit_predict(xy))


def cluster_counts(labels):
    """How many clusters there are in DBSCAN's labels (N,), and the share of noise (-1): a dict of plain numbers."""
    return {"clusters": len(np.unique(labels[labels >= 0])), "noise": float(np.mean(labels == -1))}


def small_islands(labels, largest_share=0.05):
    """The clusters that hold at most ``largest_share`` of all galaxies: their labels, noise (-1) not among them."""
    found, counts = np.unique(labels, return_counts=True)
    return found[(found >= 0) & (counts <= largest_share * len(labels))]


def kmeans_sweep(x, ks=range(2, 13), seed=0, silhouette_sample=5000):
    """k-means for each number of clusters, judged by the silhouette.

    x : (N, D), scaled to unit length first, so that Euclidean clusters are clusters in cosine. Silhouettes
    cost N^2: above ``silhouette_sample`` galaxies they are of one seeded random sample, the same for every k.
    Returns dict: ks, silhouette, inertia (K,); chosen k (largest silhouette) and its labels (N,), numbered by
    size; silhouette_n.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    x, ks = unit(x), list(ks)
    if not ks:
        raise InputError("k-means needs a number of clusters to try; give most_clusters of at least 2.")
    sample = np.random.default_rng(seed).permutation(len(x))[:silhouette_sample]
    fits = [KMeans(k, n_init=4, random_state=seed).fit(x) for k in ks]
    silhouette = np.array([silhouette_score(x[sample], fit.labels_[sample]) for fit in fits])
    best = int(np.argmax(silhouette))
    return {
        "ks": np.array(ks),
        "silhouette": silhouette,
        "inertia": np.array([fit.inertia_ for fit in fits]),
        "chosen_k": ks[best],
        "labels": by_size(fits[best].labels_),
        "silhouette_n": len(sample),
    }


def cluster_purity(labels, truth):
    """How well clusters (N,) recover classes ``truth`` (N,).

    purity : share of galaxies in the majority class of their cluster, to be read beside ``majority``, the
    share of the largest class, which one cluster for all would reach; adjusted_rand and adjusted_information, of
    the mutual kind : 0 on average for unrelated labels, 1 for the same.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
    from sklearn.metrics.cluster import contingency_matrix

    truth = np.unique(truth, return_inverse=True)[1]  # scikit-learn refuses the bytes of an HDF5 column
    table = contingency_matrix(truth, labels)
    return {
        "purity": float(table.max(0).sum() / len(truth)),
        "majority": float(table.sum(1).max() / len(truth)),
        "adjusted_rand": float(adjusted_rand_score(truth, labels)),
        "adjusted_information": float(adjusted_mutual_info_score(truth, labels)),
    }


def islands(labels, artefact, largest_share=0.05):
    """Where the artefacts are among DBSCAN's small islands.

    labels : (N,) from `dbscan`; artefact : (N,) bool; islands are those of `small_islands`. Each set is given as
    dict(n, purity: share of it that are artefacts, completeness: share of all artefacts in it). Returns dict:
    ``islands``, a list with ``label`` by falling number of artefacts; ``best``, the label of largest F1 (None
    where there is no artefact in an island); ``all_islands``, ``noise`` and ``chance`` (everything: purity is the
    base rate).
    """
    labels, artefact = np.asarray(labels), np.asarray(artefact, bool)

    def share(members):
        n, hit, total = (int(np.count_nonzero(x)) for x in (members, members & artefact, artefact))
        return {"n": n, "purity": hit / max(n, 1), "completeness": hit / max(total, 1)}

    small = small_islands(labels, largest_share)
    rows = [{"label": int(label)} | share(labels == label) for label in small]
    rows.sort(key=lambda row: (-row["completeness"], -row["purity"]))

    def f1(row):
        return 2 * row["purity"] * row["completeness"] / (row["purity"] + row["completeness"] or 1)

    best = max(rows, key=f1, default=None)
    return {
        "islands": rows,
        "best": best["label"] if best and f1(best) > 0 else None,
        "all_islands": share(np.isin(labels, small)),
        "noise": share(labels == -1),
        "chance": share(np.ones(len(labels), bool)),
    }


def outliers(x, k=10):
    """Isolation (N,): mean distance of each row of x (N, D), at unit length, to its ``k`` nearest neighbours."""
    x = unit(x)
    return nearest(x, x, k, exclude_self=True)[0].mean(1)


def outlier_recall(isolation, truth, percent=1.0):
    """How many of a rare class ``truth`` (N,) bool are among the ``percent`` most isolated galaxies.

    Returns dict: n looked at, found, total, expected by chance, p_value (the chance that as many or more are among
    n galaxies drawn at random, hypergeometric), enrichment (found / expected), and auc, the chance that one of the
    class is more isolated than another galaxy (0.5: unrelated; NaN where there is only one class).
    """
    from scipy.stats import hypergeom
    from sklearn.metrics import roc_auc_score

    truth = np.asarray(truth, bool)
    n = max(1, round(percent / 100 * len(truth)))
    found = int(truth[np.argsort(-isolation, kind="stable")[:n]].sum())
    total = int(truth.sum())
    expected = n * total / len(truth)
    return {
        "n": n,
        "found": found,
        "total": total,
        "expected": expected,
        "p_value": float(hypergeom.sf(found - 1, len(truth), total, n)),
        "enrichment": found / expected if total else float("nan"),
        "auc": float(roc_auc_score(truth, isolation)) if 0 < total < len(truth) else float("nan"),
    }


def write_outliers(path, targetid, isolation, flags):
    """Write a ranked table of N galaxies as CSV, the most isolated of any space first.

    isolation : {space: (N,) from `outliers`}, each a column and its rank (1: most isolated) another; flags : {name:
    (N,) bytes, str or numbers}, what is known of them, empty where a number is NaN. Galaxies are in order of the
    best of their ranks, then of the sum: with two spaces the first of each stand at the top, whatever their
    rank in the other.
    """
    order = {space: np.argsort(-values, kind="stable") for space, values in isolation.items()}
    rank = {space: np.argsort(rows) + 1 for space, rows in order.items()}
    ranks = np.stack(list(rank.values()))
    columns = {"TARGETID": targetid}
    for space, values in isolation.items():
        name = space.replace(" ", "_")
        columns |= {f"isolation_{name}": [f"{value:.6g}" for value in values], f"rank_{name}": rank[space]}
    for name, values in flags.items():
        if values.dtype.kind == "f":
            columns[name] = [f"{value:.6g}" if np.isfinite(value) else "" for value in values]
        else:
            columns[name] = values.astype(str) if values.dtype.kind == "S" else values
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [column[row] for column in columns.values()] for row in np.lexsort((ranks.sum(0), ranks.min(0)))
        )
