"""Neighbours, maps and clusters of embeddings: the libraries' own calls and this project's."""

import numpy as np

from astroclip_nb import retrieval
from astroclip_nb.galaxies import properties, structure

from .measure import alternate, row
from .plain import full_argsort, kmeans_sweep, seeded_umap


def neighbours(quick, repeats):
    """Exact top-k and k-NN regression against a full sort and scikit-learn's brute force."""
    from sklearn.neighbors import KNeighborsRegressor

    n, some, many = (2000, 32, 64) if quick else (200_000, 512, 2048)
    rng = np.random.default_rng(0)
    gallery = retrieval.unit(rng.normal(size=(n, 128)).astype(np.float32))
    queries = retrieval.unit(rng.normal(size=(many, 128)).astype(np.float32))
    asked = queries[:some]
    blocks = [asked[start : start + 64] for start in range(0, some, 64)]  # cosines of all and their order: GBs
    top = alternate({
        "plain": lambda: sum(len(full_argsort(block, gallery, 10)[1]) for block in blocks),
        "fast": lambda: len(retrieval.top_k(asked, gallery, 10)[1]),
    }, repeats)  # fmt: skip

    train, y = gallery[: n // 5], rng.normal(size=n // 5)
    brute = KNeighborsRegressor(16, weights="distance", algorithm="brute").fit(train, y)
    knn = alternate({
        "plain": lambda: len(brute.predict(queries)),
        "fast": lambda: len(properties.knn_predict(train, y, queries)),
    }, repeats)  # fmt: skip
    return [
        row(f"Top 10 of {n:,}", "queries/s", top, 5, f"the same {some} queries; plain: 64 at a time"),
        row(f"16-NN regression, {n // 5:,}", "queries/s", knn, 1.5, "plain: scikit-learn, brute force"),
    ]


def maps(quick, repeats):
    """UMAP and the choice of the number of clusters, as the libraries' users would call them."""
    n = 300 if quick else 10_000
    rng = np.random.default_rng(0)
    x = retrieval.unit(rng.normal(size=(8, 32))[rng.integers(0, 8, n)] + 0.5 * rng.normal(size=(n, 32)))
    some, ks = x[: n // 5], range(4, 9)
    umap = alternate({
        "plain": lambda: len(seeded_umap(some)),
        "fast": lambda: len(structure.umap_2d(some)),
    }, min(repeats, 3))  # fmt: skip
    sweep = alternate({
        "plain": lambda: len(kmeans_sweep(x, ks)),
        "fast": lambda: len(structure.kmeans_sweep(x, ks)["ks"]),
    }, min(repeats, 3))  # fmt: skip
    return [
        row(f"UMAP, seeded, {len(some):,}", "galaxies/s", umap, 1, "plain: umap-learn's own call"),
        row(f"k-means and silhouettes, {n:,}", "k/s", sweep, 1, "fast: silhouettes of 5,000, seeded"),
    ]
