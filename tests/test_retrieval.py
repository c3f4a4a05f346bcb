import time

import numpy as np
import pytest
import torch

from astroclip_nb import retrieval
from astroclip_nb.errors import InputError


@pytest.fixture
def pairs():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(400, 16))
    return a.astype(np.float32), (a + 0.8 * rng.normal(size=a.shape)).astype(np.float32)


def cosine_matrix(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b.T / np.sqrt((a**2).sum(1))[:, None] / np.sqrt((b**2).sum(1))


def naive_ranks(score):
    own = np.diag(score)[:, None]
    better, tied = (score > own + 1e-12).sum(1), (abs(score - own) <= 1e-12).sum(1) - 1
    return 1 + better + tied / 2


@pytest.mark.parametrize("exclude_self", [False, True])
def test_top_k_is_the_full_sort(pairs, exclude_self):
    score = cosine_matrix(*pairs)
    if exclude_self:
        np.fill_diagonal(score, -np.inf)
    similarity, index = retrieval.top_k(*pairs, 7, exclude_self)
    assert np.array_equal(index, np.argsort(-score, axis=1, kind="stable")[:, :7])
    np.testing.assert_allclose(similarity, np.take_along_axis(score, index, 1), atol=2e-7)


def test_top_k_ties_go_to_the_lower_index_however_many_there_are():
    rng = np.random.default_rng(2)
    distinct = rng.normal(size=(6, 9)).astype(np.float32)
    kind = rng.permutation(np.repeat(np.arange(6), 50))  # far more duplicates than spare candidates
    similarity, index = retrieval.top_k(distinct, distinct[kind], 60)
    for query in range(6):
        assert np.array_equal(index[query, :50], np.flatnonzero(kind == query))
        assert np.array_equal(index[query, 50:], np.flatnonzero(kind == kind[index[query, 50]])[:10])


def test_top_k_of_the_whole_gallery_and_too_many(pairs):
    a, b = pairs
    _, index = retrieval.top_k(a[:3], b, len(b))
    assert np.array_equal(np.sort(index, 1), np.tile(np.arange(len(b)), (3, 1)))
    with pytest.raises(InputError, match="between 1 and the 399"):
        retrieval.top_k(b, b, 400, exclude_self=True)


@pytest.mark.parametrize("search", [retrieval.top_k, retrieval.nearest])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_a_search_in_parts_is_the_search_in_one(pairs, search, exclude_self, monkeypatch):
    whole = search(pairs[1], pairs[1], 7, exclude_self)
    monkeypatch.setattr(retrieval, "_TILE", (7, 24))
    for one, other in zip(search(pairs[1], pairs[1], 7, exclude_self), whole, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("count", [31, 32, 33, 400])
@pytest.mark.parametrize("width", [1, 3, 20, 31])
@pytest.mark.parametrize("tile", [(256, 1024), (7, 8), (50, 24)])
def test_the_scan_is_pytorchs_topk(pairs, count, width, tile, monkeypatch):
    """In one tile or many, the last one full or not, by the maxima of groups or, where they are most, without."""
    monkeypatch.setattr(retrieval, "_TILE", tile)
    queries, gallery = torch.from_numpy(pairs[0]), torch.from_numpy(pairs[1][:count])
    score, index = retrieval.scanner(pairs[1][:count], "cosine")(pairs[0], width)
    expected = (queries @ gallery.T).topk(width)
    np.testing.assert_allclose(score, expected.values, rtol=1e-5, atol=1e-5)
    assert np.array_equal(index, expected.indices)
    score, index = retrieval.scanner(pairs[1][:count], "euclidean")(pairs[0], width)
    expected = (-torch.cdist(queries.double(), gallery.double()).square()).topk(width)
    np.testing.assert_allclose(score, expected.values, atol=1e-4)
    assert np.array_equal(index, expected.indices)


def test_where_there_is_a_gpu_it_searches(pairs, monkeypatch):
    monkeypatch.setattr("astroclip_nb.retrieval.pick_device", lambda: torch.device("cuda"))
    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device.type) or tensor)
    retrieval.scanner(pairs[1], "cosine")
    assert moved == ["cuda"]


def test_nearest_is_exact_where_the_gallery_is_far_longer_than_the_query():
    rng = np.random.default_rng(3)
    direction = retrieval.unit(rng.normal(size=(3000, 8)))
    gallery = (direction * (1000 + 1e-3 * rng.random((3000, 1)))).astype(np.float32)  # 1e6 +- 1, to float32's 0.06
    distance = np.linalg.norm(gallery.astype(np.float64), axis=1)
    _, index = retrieval.nearest(np.zeros((1, 8), np.float32), gallery, 5)
    assert np.array_equal(index[0], np.argsort(distance, kind="stable")[:5])


def test_top_k_separates_cosines_that_float32_cannot():
    angle = np.array([3e-4, 1e-4, 2e-4, 0.0])  # cosines differ by 1e-8, float32 resolves 6e-8
    gallery = np.stack([np.cos(angle), np.sin(angle)], 1)
    _, index = retrieval.top_k(np.array([[1.0, 0.0]]), np.repeat(gallery, 20, 0), 80)
    assert np.array_equal(index[0] // 20, np.repeat([3, 1, 2, 0], 20))


def test_search_multiplies_in_float32_whatever_the_user_asked_for(pairs):
    """The precision while it searches, and that the user's is back afterwards, also after an error."""
    before, seen = torch.get_float32_matmul_precision(), []
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.MonkeyPatch.context() as patch:
            product = torch.bmm
            patch.setattr(torch, "bmm", lambda *a: seen.append(torch.get_float32_matmul_precision()) or product(*a))
            retrieval.top_k(*pairs, 3)
        assert set(seen) == {"highest"} and torch.get_float32_matmul_precision() == "medium"
        with pytest.raises(ValueError):
            retrieval.scanner(pairs[1], "cosine")(pairs[0][:, 1:], 3)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("search", [retrieval.top_k, retrieval.nearest])
def test_what_cannot_be_searched_is_refused(pairs, search):
    a, b = pairs
    with pytest.raises(InputError, match=r"one length.*\(400, 16\) and \(400, 15\)"):
        search(a, b[:, 1:], 3)
    broken = a.copy()
    broken[7, 2] = np.nan
    for one, other in ((broken, b), (b, broken)):
        with pytest.raises(InputError, match="NaN|row 7 has nan"):
            search(one, other, 3)


def test_nearest_takes_read_only_arrays(pairs):
    fixed = pairs[1].copy()
    fixed.flags.writeable = False
    assert np.array_equal(retrieval.nearest(fixed, fixed, 3)[1], retrieval.nearest(pairs[1], pairs[1], 3)[1])


def test_zero_vector_is_named(pairs):
    broken = pairs[0].copy()
    broken[5] = 0
    with pytest.raises(InputError, match="row 5"):
        retrieval.top_k(broken, pairs[1], 1)


def test_nearest_is_scipys(pairs):
    from scipy.spatial.distance import cdist

    a, b = pairs[0] + 100, pairs[1] + 100  # far from the origin, where float32 expansions cancel
    full = cdist(a.astype(np.float64), b.astype(np.float64))
    distance, index = retrieval.nearest(a, b, 5)
    assert np.array_equal(index, np.argsort(full, 1, kind="stable")[:, :5])
    np.testing.assert_allclose(distance, np.sort(full, 1)[:, :5], rtol=1e-12)


def test_ranks_are_the_naive_oracles(pairs):
    score = cosine_matrix(*pairs)
    rank = retrieval.ranks(*pairs)
    assert np.array_equal(rank, naive_ranks(score))
    assert retrieval.recall_at(rank, 1) == np.mean(score.argmax(1) == np.arange(len(score)))


def test_ranks_do_not_depend_on_block_size(pairs, monkeypatch):
    rank = retrieval.ranks(*pairs)
    monkeypatch.setattr(retrieval, "_BLOCK", 1000)
    assert np.array_equal(rank, retrieval.ranks(*pairs))


def test_identical_partners_share_the_middle_rank(pairs):
    a, b = pairs
    collapsed = np.tile(b[:1], (len(b), 1))
    assert np.all(retrieval.ranks(a, collapsed) == (len(b) + 1) / 2)
    assert retrieval.recall_at(retrieval.ranks(a, collapsed), 10) == 0


@pytest.mark.parametrize("swap", [False, True])
def test_grouped_ranks_are_the_naive_oracles(pairs, swap):
    rng = np.random.default_rng(3)
    names = rng.choice([f"proposal {i}" for i in range(60)], 400)
    _, group = np.unique(names, return_inverse=True)
    a, b = pairs[0], pairs[1][group]  # a caption repeats for all images of its proposal
    if swap:
        a, b = b, a
    best = np.stack([cosine_matrix(a, b[group == g]).max(1) for g in range(group.max() + 1)], 1)
    own = best[np.arange(400), group][:, None]
    expected = 1 + (best > own + 1e-12).sum(1) + ((abs(best - own) <= 1e-12).sum(1) - 1) / 2
    assert np.array_equal(retrieval.ranks(a, b, names), expected)


def test_random_embeddings_reach_chance():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(2, 2000, 8))
    found = retrieval.summary(a, b)
    for key, level in found["chance"].items():
        error = 0.03 if key == "median_rank" else 4 * np.sqrt(level * (1 - level) / 2000) / level
        for direction in ("image_to_spectrum", "spectrum_to_image"):
            assert abs(found[direction][key] / level - 1) < error, key
    cosines = retrieval.unit(a) @ retrieval.unit(b).T
    right = np.diag(cosines)
    assert found["cosine_right"] == pytest.approx(right.mean())
    assert found["cosine_wrong"] == pytest.approx((cosines.sum() - right.sum()) / (2000 * 1999), abs=1e-7)


def test_percent_counts_whole_places():
    rank = np.array([1, 2, 3, 4.5, 70])
    assert retrieval.recall_at_percent(rank, 5, 79) == 0.6  # floor(3.95) = 3
    assert retrieval.chance(79)["recall@5%"] == 3 / 79


def test_right_and_shuffled_cosines(pairs):
    a, b = pairs
    right, shuffled = retrieval.pair_cosines(a, b, seed=5)
    np.testing.assert_allclose(right, np.diag(cosine_matrix(a, b)), atol=1e-6)
    assert abs(shuffled.mean()) < 0.05 < 0.5 < right.mean()
    assert np.array_equal(shuffled, retrieval.pair_cosines(a, b, seed=5)[1])
    # A shuffled pair is never a right one: with a = b orthonormal every shuffled cosine is 0.
    assert np.all(retrieval.pair_cosines(np.eye(30), np.eye(30), seed=6)[1] == 0)


def test_each_direction_is_named_for_its_query():
    """One image stands for many spectra: they find it, but it cannot find them all."""
    rng = np.random.default_rng(8)
    spectrum = rng.normal(size=(60, 8))
    image = spectrum + 0.05 * rng.normal(size=spectrum.shape)
    image[:40] = image[0]
    found = retrieval.summary(image, spectrum)
    score = cosine_matrix(image, spectrum)
    for direction, matrix in (("image_to_spectrum", score), ("spectrum_to_image", score.T)):
        rank = naive_ranks(matrix)
        assert found[direction]["recall@1"] == np.mean(rank <= 1)
        assert found[direction]["median_rank"] == np.median(rank)
    assert found["image_to_spectrum"]["median_rank"] != found["spectrum_to_image"]["median_rank"]


def test_perfect_alignment(pairs):
    found = retrieval.summary(pairs[0], 3 * pairs[0])
    assert found["image_to_spectrum"]["recall@1"] == found["spectrum_to_image"]["recall@1"] == 1
    assert found["cosine_right"] == pytest.approx(1)


@pytest.mark.slow
def test_exact_search_beats_the_full_sort_on_200k():
    rng = np.random.default_rng(7)
    gallery = retrieval.unit(rng.normal(size=(200_000, 128)).astype(np.float32))
    queries = gallery[:200]
    started = time.perf_counter()
    full = np.argsort(-(queries @ gallery.T), axis=1, kind="stable")[:, :16]
    sort_time, started = time.perf_counter() - started, time.perf_counter()
    _, index = retrieval.top_k(queries, gallery, 16)
    assert np.array_equal(index, full)
    assert sort_time > 3 * (time.perf_counter() - started)  # 5 and more on a quiet machine
