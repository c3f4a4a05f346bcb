"""Exact nearest neighbours and the scores of cross-modal retrieval.

Cosines are of unit vectors: x.y / (|x| |y|). Nothing here is approximate: PyTorch scans the whole gallery in
float32, on the GPU where there is one, and the best are rescored in float64; the order is that of a full float64
sort, ties by index.
"""

import numpy as np

from .device import full_float32, is_cuda, pick_device
from .errors import InputError

KS, PERCENTS = (1, 5, 10), (1, 5, 10)  # of recall, in places and in percent of all choices
_SPARE = 8  # candidates fetched beyond k, for float64 rescoring to choose from
_FLOAT32_ERROR = 4e-6  # bound on the error of a float32 product of unit vectors of a few thousand dimensions
_BLOCK = 2**24  # float64 numbers held at a time, 128 MB; on a GPU as many as a tile has
_TILE, _TILE_OF_GPU = (256, 1024), (4096, 65536)  # queries and gallery vectors whose products are held: 1 MB, 1 GB
_GROUP = 8  # gallery vectors of which only the best product is kept at first


def unit(x):
    """Rows of ``x`` (N, D) at unit length, float32 or float64 as given; InputError on zero or NaN rows."""
    x = np.asarray(x)
    x = x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if not np.all(np.isfinite(length) & (length > 0)):
        row = int(np.flatnonzero(~(np.isfinite(length) & (length > 0)))[0])
        raise InputError(f"Vectors need a finite length above zero; row {row} has {length[row, 0]}.")
    return x / length


def top_k(queries, gallery, k, exclude_self=False):
    """The ``k`` gallery vectors of largest cosine with each query.

    queries : (Q, D); gallery : (N, D); exclude_self : query i is gallery row i and may not find itself.
    Returns similarity (Q, k) float64, descending, and index (Q, k) int64; ties go to the lower index.
    """
    return _search(unit(queries), unit(gallery), k, "cosine", exclude_self)


def nearest(queries, gallery, k, exclude_self=False):
    """The ``k`` gallery points nearest to each query: Euclidean distance (ascending) and index, (Q, k)."""
    score, index = _search(np.asarray(queries), np.asarray(gallery), k, "euclidean", exclude_self)
    return np.sqrt(-score), index


def _search(queries, gallery, k, metric, exclude_self):
    """Largest scores: cosine, or minus the squared distance. Rescored in float64, (Q, k) each."""
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise InputError(
            f"Queries and gallery need vectors of one length, (Q, D) and (N, D); got {queries.shape} and "
            f"{gallery.shape}."
        )
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        raise InputError("Vectors to search with or among hold a NaN or an infinity; leave those rows out.")
    available = len(gallery) - exclude_self
    if not 1 <= k <= available:
        raise InputError(f"k must lie between 1 and the {available} vectors that can be found; got {k}.")
    scan = scanner(gallery, metric)
    score = np.empty((len(queries), k))
    index = np.empty((len(queries), k), np.int64)
    pending, width = np.arange(len(queries)), k + exclude_self + _SPARE
    while len(pending):
        width = min(width, len(gallery))
        step = int(np.clip(_BLOCK // (width * gallery.shape[1]), 1, 4096))
        unsettled = []
        for rows in np.array_split(pending, -(-len(pending) // step)):
            itself = rows if exclude_self else None
            score[rows], index[rows], settled = _candidates(scan, queries[rows], gallery, k, width, metric, itself)
            unsettled.append(rows[~settled])
        pending, width = np.concatenate(unsettled), 8 * width
    return score, index


def scanner(gallery, metric):
    """scan(queries, width): the best ``width`` of ``gallery`` (N, D) for each query in float32, best first.

    It gives cosines or minus squared distances, and indices, (Q, width) each. Sorting would take longer than
    multiplying, and so would writing all products to memory: they are made a tile at a time, of which only the
    maxima of groups of vectors are kept. The best ``width`` lie in the ``width`` groups with the largest maxima,
    whose products are then made again.
    """
    import torch

    device = pick_device()
    at_once, tile = _TILE_OF_GPU if is_cuda(device) else _TILE
    gallery = torch.from_numpy(np.array(gallery, np.float32)).to(device)
    if metric == "euclidean":  # |q|^2 - |q - g|^2 = (q, 1).(2 g, -|g|^2), a product too
        gallery = torch.cat([2 * gallery, -gallery.square().sum(1, keepdim=True)], 1)
    n, length = gallery.shape
    tile = min(tile, -(-n // _GROUP) * _GROUP)
    lanes = tile // _GROUP  # groups of a tile: every lanes-th of its vectors, from the j-th on, are the j-th

    def group_maxima(some):
        maxima = torch.empty((len(some), -(-n // tile) * lanes), device=device)
        scores = torch.empty((len(some), _GROUP, lanes), device=device)
        for number, part in enumerate(gallery.split(tile)):
            scores.flatten(1)[:, len(part) :] = -torch.inf
            _product(some, part, scores.flatten(1)[:, : len(part)])
            torch.amax(scores, 1, out=maxima[:, number * lanes : (number + 1) * lanes])
        return maxima

    def best(some, width):
        square = some.square().sum(1, keepdim=True)
        if metric == "euclidean":
            some = torch.cat([some, torch.ones_like(square)], 1)
        if width * _GROUP < n:
            group = group_maxima(some).topk(width, sorted=False).indices[:, :, None]
            member = group // lanes * tile + group % lanes + lanes * torch.arange(_GROUP, device=device)
            member = member.flatten(1)
            vectors = gallery.index_select(0, member.clamp(max=n - 1).flatten()).unflatten(0, member.shape)
            scores = torch.bmm(vectors, some[:, :, None])[:, :, 0]
            score, place = scores.masked_fill_(member >= n, -torch.inf).topk(width)
            index = member.gather(1, place)
        else:
            score, index = (some @ gallery.T).topk(width)
        return score if metric == "cosine" else score - square, index

    @torch.inference_mode()
    @full_float32()  # the rescoring relies on the error of the products
    def scan(queries, width):
        each = width * _GROUP * length if width * _GROUP < n else n  # numbers that a query takes beside the tile
        rows = int(np.clip(max(_BLOCK, at_once * tile) // each, 1, at_once))
        found = [best(some, width) for some in torch.from_numpy(queries).to(device).split(rows)]
        return tuple(torch.cat(part).cpu().numpy() for part in zip(*found, strict=True))

    return scan


def _product(a, b, out):
    """The products of a (Q, D) and b (n, D), into ``out`` (Q, n).

    On the CPU by NumPy, on the same memory: its OpenBLAS takes a fifth less time than PyTorch's MKL does on AMD's.
    """
    if is_cuda(a.device):
        a.mm(b.T, out=out)
    else:
        np.matmul(a.numpy(), b.numpy().T, out=out.numpy())


def _candidates(scan, queries, gallery, k, width, metric, itself):
    """Best ``k`` of ``width`` float32 candidates, and whether no vector left out could be among them."""
    fetched, index = scan(np.ascontiguousarray(queries, np.float32), width)
    found, wanted = gallery[index].astype(np.float64), queries.astype(np.float64)
    size = np.sqrt(np.einsum("qd,qd->q", wanted, wanted))
    if metric == "cosine":
        score = np.einsum("qkd,qd->qk", found, wanted)
    else:
        found -= wanted[:, None]
        score = -np.einsum("qkd,qkd->qk", found, found)
    if itself is not None:
        score[index == itself[:, None]] = -np.inf
    order = np.lexsort((index, -score))[:, :k]
    score, index = np.take_along_axis(score, order, 1), np.take_along_axis(index, order, 1)
    if metric == "euclidean":  # who is left out and nearer than the k-th is no longer than this
        size = 2 * size + np.sqrt(-score[:, -1])
    settled = (score[:, -1] > fetched[:, -1] + _FLOAT32_ERROR * size**2) | (width == len(gallery))
    return score, index, settled


def ranks(a, b, groups=None):
    """Rank of the true partner: ``b[i]`` among all rows of ``b`` by cosine with ``a[i]``; 1 is best.

    a, b : (N, D); groups : (N,) labels where several rows share one partner (the images of one proposal).
    Then the rank is that of the own group among the unique groups, a group scoring as its best row.
    Returns (N,) float64; every tie counts half a place, so identical captions cannot flatter the result.
    """
    a, b = unit(a).astype(np.float64), unit(b).astype(np.float64)
    if a.shape != b.shape:
        raise InputError(f"Partners must have one shape; got {a.shape} and {b.shape}.")
    own, starts = np.arange(len(b)), None
    if groups is not None:
        _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
        b = b[np.argsort(own, kind="stable")]
        starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    result = np.empty(len(a))
    step = max(1, _BLOCK // len(b))
    for start in range(0, len(a), step):
        rows = np.arange(start, min(start + step, len(a)))
        score = a[rows] @ b.T
        if starts is not None:
            score = np.maximum.reduceat(score, starts, axis=1)
        score -= score[np.arange(len(rows)), own[rows]][:, None]
        # Equal vectors may differ by rounding where the product is computed in tiles.
        better = np.count_nonzero(score > 1e-12, axis=1)
        tied = np.count_nonzero(score >= -1e-12, axis=1) - better - 1
        result[rows] = 1 + better + tied / 2
    return result


def recall_at(ranks, k):
    """Share of queries whose partner ranks at ``k`` or better."""
    return float(np.mean(np.asarray(ranks) <= k))


def recall_at_percent(ranks, percent, choices):
    """Share of queries whose partner ranks within ``floor(percent / 100 * choices)``, as in PAPERCLIP."""
    return recall_at(ranks, np.floor(percent / 100 * choices))


def chance(choices):
    """What random ranking among ``choices`` candidates gives, with the keys of `summary`'s directions."""
    levels = {f"recall@{k}": min(k, choices) / choices for k in KS}
    levels |= {f"recall@{p}%": float(np.floor(p / 100 * choices) / choices) for p in PERCENTS}
    return levels | {"median_rank": (choices + 1) / 2}


def pair_cosines(a, b, seed=0):
    """Cosines of right pairs (N,) and wrong ones (N,): every row of ``a`` with another's partner, seeded."""
    a, b = unit(a).astype(np.float64), unit(b).astype(np.float64)
    cycle = np.random.default_rng(seed).permutation(len(a))
    wrong = np.empty(len(a), np.int64)
    wrong[cycle] = np.roll(cycle, 1)  # one cycle through all rows, so no row meets its own partner
    return np.einsum("nd,nd->n", a, b), np.einsum("nd,nd->n", a, b[wrong])


def summary(image, spectrum):
    """Both directions of retrieval between partners (N, D), as one dict of plain numbers.

    Keys: ``choices`` (N), ``image_to_spectrum``, ``spectrum_to_image`` and ``chance`` (each a dict of recall@k,
    recall@p%, median_rank), and the mean cosines of the N right pairs and of all N (N - 1) others,
    ``cosine_right`` and ``cosine_wrong``.
    """
    n, a, b = len(image), unit(image).astype(np.float64), unit(spectrum).astype(np.float64)
    right, every = np.sum(a * b), a.sum(0) @ b.sum(0)
    result = {"choices": n, "chance": chance(n)}
    for source, target, direction in ((a, b, "image_to_spectrum"), (b, a, "spectrum_to_image")):
        rank = ranks(source, target)
        row = {f"recall@{k}": recall_at(rank, k) for k in KS}
        row |= {f"recall@{p}%": recall_at_percent(rank, p, n) for p in PERCENTS}
        result[direction] = row | {"median_rank": float(np.median(rank))}
    return result | {"cosine_right": float(right / n), "cosine_wrong": float((every - right) / (n * (n - 1)))}
