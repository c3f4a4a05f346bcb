"""How well images and words find each other: scores, and the baselines without which they mean little."""

import numpy as np

from ..retrieval import ranks, recall_at_percent, top_k
from .queries import HYPOTHESES, RELEVANT_KINDS

PERCENTS = (1, 5, 10, 20, 50)
# what is left of a caption, as a figure says it -> text of `Proposal.caption`
CAPTION_PARTS = {
    "whole caption": "summary", "objects and attributes": "objects", "attributes alone": "attributes",
    "name alone": "name", "use cases alone": "uses",
}  # fmt: skip

# PAPERCLIP (arXiv 2403.08851), real validation images and their summaries: top-1, and top-k % of all captions
PUBLISHED = {
    "softmax": {"top-1": 0.021, "5 %": 0.555, "10 %": 0.682, "20 %": 0.807, "50 %": 0.928},
    "abstracts": {"top-1": 0.015, "5 %": 0.530, "10 %": 0.664, "20 %": 0.798, "50 %": 0.909},
    "scratch": {"top-1": 0.006, "5 %": 0.295, "10 %": 0.437, "20 %": 0.607, "50 %": 0.833},
    "base": {"top-1": 0.001, "5 %": 0.069, "10 %": 0.121, "20 %": 0.231, "50 %": 0.554},
    "head": {"10 %": 0.48},
    "shuffled": {"10 %": 0.10},
}  # the head's and the shuffled number are within batches


def allowed_rank(percent, choices):
    """Largest rank that counts at top-k %: floor(k / 100 choices), as in PAPERCLIP."""
    return int(np.floor(percent / 100 * choices))


def scores_of_ranks(rank, choices):
    """Top-1 and top-k % of ranks (n,) among ``choices``."""
    levels = {f"{percent} %": recall_at_percent(rank, percent, choices) for percent in PERCENTS}
    return {"top-1": float(np.mean(rank <= 1)), **levels}


def scores(image, text, proposal):
    """Share of images whose own caption is among the best, per image and per unique proposal.

    image, text : (n, D), text the caption of each image's proposal; proposal : (n,) labels. Per image the
    choices are all n captions, repeated as images of one proposal are, ties counting half; per proposal they
    are the unique ones.
    """
    unique = len(np.unique(proposal))
    return {
        "image": scores_of_ranks(ranks(image, text), len(image)),
        "proposal": scores_of_ranks(ranks(image, text, proposal), unique),
    }


def chance_scores(proposal):
    """Expected scores of a random order: those of an oracle to whom all images are of one kind."""
    return oracle_scores(np.zeros(len(proposal), int), proposal)


def best_scores(proposal):
    """Scores of a model without a fault: the images of a proposal share their caption's rank, and so may miss."""
    same = np.unique(proposal, return_inverse=True)[1]
    exact = np.eye(same.max() + 1, dtype=np.float32)[same]
    return scores(exact, exact, proposal)


def oracle_scores(kind, proposal):
    """Expected scores of an oracle that knows the kind of every image and caption, and nothing else.

    kind, proposal : (n,). It ranks the captions of the right kind first, in random order: a score above it shows
    that more than the kind was learned. As for a model, identical captions share their rank, so only the image of a
    proposal with a single image can be first.
    """
    _, first, of_image, images = np.unique(proposal, return_index=True, return_inverse=True, return_counts=True)
    found = {}
    for level, kinds in (("image", kind), ("proposal", kind[first])):
        _, which, count = np.unique(kinds, return_inverse=True, return_counts=True)
        same = count[which] if level == "image" else count[which][of_image]
        share = {f"{p} %": float(np.minimum(1, allowed_rank(p, len(kinds)) / same).mean()) for p in PERCENTS}
        found[level] = {"top-1": float((1 / same).mean()), **share}
    found["image"]["top-1"] = float(((images[of_image] == 1) / same).mean())  # same: proposals of its kind
    return found


def score_table(pairs, kind, proposal, observations):
    """Rows of the table of one part of the data: {name: {"image": scores, "proposal": scores}}.

    pairs : model -> (image (n, D), text (n, D)); kind : (n,) true kinds, "" where not known; proposal : (n,).
    Chance, the best possible, the class oracle where kinds are known, and TF-IDF, which sees no image, come last.
    """
    table = {name: scores(image, text, proposal) for name, (image, text) in pairs.items()}
    table |= {"chance": chance_scores(proposal), "best possible": best_scores(proposal)}
    if (kind != "").all():
        table["class oracle"] = oracle_scores(kind, proposal)
    return table | {"TF-IDF, no image": tfidf_scores(observations, np.unique(proposal))}


def tfidf_vectors(corpus, *groups):
    """TF-IDF vectors of groups of texts, sparse (n, V) each, with the vocabulary of ``corpus``."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True, max_features=5000).fit(corpus)
    return [vectorizer.transform(texts) for texts in groups]


def tfidf_scores(observations, proposals):
    """Scores of finding a proposal's summary by its abstract with TF-IDF: words alone, no image is seen.

    proposals : indices (P,), each counted once.
    """
    abstracts, summaries = observations.captions("abstract"), observations.captions("summary")
    a, b = tfidf_vectors(abstracts, [abstracts[i] for i in proposals], [summaries[i] for i in proposals])
    known = (a.getnnz(1) > 0) & (b.getnnz(1) > 0)
    rank = np.full(len(proposals), float(len(proposals)))
    rank[known] = ranks(a[known].toarray(), b[known].toarray())
    return {"proposal": scores_of_ranks(rank, len(proposals))}


def is_relevant(kind, query):
    """Whether images of these kinds (n,) are what the query is about, (n,); False for a query of one's own."""
    return np.isin(kind, list(RELEVANT_KINDS.get(query, ())))


def unseen_queries(queries, hidden):
    """Those queries of which every relevant kind is among the ``hidden``, which were never trained on."""
    return [query for query in queries if RELEVANT_KINDS.get(query) and RELEVANT_KINDS[query] <= set(hidden)]


def mean_relevance(relevance, without=()):
    """Mean over the queries of {method: {query: share}}, some left out: {method: share}."""
    return {
        method: float(np.mean([share for query, share in shares.items() if query not in without]))
        for method, shares in relevance.items()
    }


def relevance(orders, kind, queries, k=10):
    """Share of the first ``k`` images of each order (Q, n) whose kind is what the query is about, by query."""
    return {
        query: float(is_relevant(kind[order[:k]], query).mean())
        for query, order in zip(queries, orders, strict=True)
    }


def best_relevance(kind, queries, k=10):
    """The highest `relevance` that any order of images of these kinds (n,) can have, by query."""
    k = min(k, len(kind))
    return {query: min(1.0, int(is_relevant(kind, query).sum()) / k) for query in queries}


def order_by_query(query_vectors, image, proposal):
    """Images from best to worst for each query, one of each proposal: (Q, number of proposals).

    query_vectors : (Q, D); image : (n, D); proposal : (n,) labels.
    """
    return one_per_proposal(top_k(query_vectors, image, len(image))[1], proposal)


def one_per_proposal(order, proposal):
    """Orders (Q, n) with only the first image of each proposal left, (Q, number of proposals)."""
    kept = []
    for row in order:
        _, first = np.unique(proposal[row], return_index=True)
        kept.append(row[np.sort(first)])
    return np.array(kept)


def order_by_tfidf(queries, observations, proposal):
    """As `order_by_query`, by TF-IDF of the query with the abstract of each image's proposal (n,).

    A query without a known word finds images at random.
    """
    abstracts = observations.captions("abstract")
    texts, wanted = tfidf_vectors(abstracts, abstracts, list(queries))
    similarity = (wanted @ texts.T).toarray()[:, proposal]
    blind = wanted.getnnz(1) == 0
    similarity[blind] = np.random.default_rng(0).random((blind.sum(), len(proposal)))
    return one_per_proposal(np.argsort(-similarity, axis=1, kind="stable"), proposal)


def classify(image, class_vectors, names, k=5):
    """The ``k`` best classes of each image by cosine, best first: names (n, k) str.

    image : (n, D); class_vectors : (C, D), of ``names`` (C of them).
    """
    index = top_k(image, class_vectors, min(k, len(names)))[1]
    return np.asarray(names)[index]


def kind_accuracy(image, name_vectors, names, kind):
    """Share of images whose true kind is named first, or among five, by cosine with the names' vectors.

    image : (n, D); name_vectors : (C, D), of ``names`` (C of them); kind : (n,) str. "commonest" is
    what a model gets that gives every image the name of the commonest kind.
    """
    best = classify(image, name_vectors, names)
    right = best == kind[:, None]
    commonest = np.unique(kind, return_counts=True)[1].max() / len(kind)
    rates = {"top-1": right[:, 0].mean(), "top-5": right.any(1).mean(), "commonest": commonest}
    return {name: float(rate) for name, rate in rates.items()} | {"choices": len(names)}


def hypothesis_accuracy(image, vectors, kind, category):
    """Zero-shot accuracy over HYPOTHESES, by category of the image's proposal.

    image : (n, D); vectors : (H, D), one per hypothesis; kind, category : (n,) str. An image is right where the
    first (one of the first five) hypotheses holds for its kind. Returns rows of dicts with category, images,
    top-1, top-5 and chance (top-1 of a hypothesis drawn at random); the last is of "all".
    """
    holds = {k: np.array([k in h.kinds for h in HYPOTHESES]) for k in np.unique(kind)}
    best = classify(image, vectors, np.arange(len(HYPOTHESES)))
    right = np.stack([holds[k][row] for k, row in zip(kind, best, strict=True)])
    chance = np.array([holds[k].mean() for k in kind])
    rows = []
    for name in [*sorted(set(category)), "all"]:
        some = (category == name) | (name == "all")
        rates = {
            "top-1": right[some, 0].mean(),
            "top-5": right[some].any(1).mean(),
            "chance": chance[some].mean(),
        }
        rows.append({"category": name, "images": int(some.sum()), **{k: float(v) for k, v in rates.items()}})
    return rows


def hypotheses_of(best, kind):
    """Which of the named hypotheses (n, k) hold for the true kind (n,) of their image: flags (n, k)."""
    holds = {h.text: h.kinds for h in HYPOTHESES}
    return np.array([[k in holds[text] for text in row] for row, k in zip(best, kind, strict=True)])
