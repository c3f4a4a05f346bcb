"""Tables of HubbleCLIP as Markdown, from what notebooks 10 and 11 recorded."""

from ..tables import markdown_table
from .evaluation import PERCENTS

COLUMNS = ("top-1", *(f"{percent} %" for percent in PERCENTS))
PUBLISHED_COLUMNS = ("top-1", "5 %", "10 %", "20 %", "50 %")
UNTRAINED_HEAD = "head on a frozen, untrained image tower"
PUBLISHED_ONLY = {
    "base": "CLIP before training",
    "head": "head on frozen CLIP",
    "abstracts": "CLIP trained on abstracts",
    "scratch": "CLIP from scratch",
}
UNSEEN = " (kept out of training)"
PARTS = {"test": "held-out proposals", "unseen": "unseen kinds of object"}


def _number(row, column, digits=3):
    """A number of a row, "" where there is none."""
    return f"{row[column]:.{digits}f}" if row.get(column) is not None else ""


def retrieval_table(metrics, part="test", level="image"):
    """Share of images whose own caption is among the best, by variant and baseline.

    metrics : of notebook 10; part : "test" or "unseen"; level : "image" or "proposal". Published numbers are beside
    the test images, for which alone they exist; those without a counterpart in this run have rows of their own.
    """
    published = dict(metrics["published"]) if (part, level) == ("test", "image") else {}
    published_columns = PUBLISHED_COLUMNS if published else ()
    header = [f"{PARTS[part]}, per {level} ({metrics['origin']})", *COLUMNS]
    header += [f"published (CLIP), {column}" for column in published_columns]

    def row(title, ours, theirs):
        return [
            title,
            *(_number(ours, name) for name in COLUMNS),
            *(_number(theirs, name) for name in published_columns),
        ]

    rows = []
    for name, levels in metrics["scores"][part].items():
        if level in levels:
            untrained = name == "head" and metrics["baseline"] == "untrained"  # the published head is CLIP's
            theirs = {} if untrained else published.pop(name, {})
            rows.append(row(UNTRAINED_HEAD if untrained else name, levels[level], theirs))
    rows += [row(f"{PUBLISHED_ONLY.get(name, name)}, published only", {}, of) for name, of in published.items()]
    return markdown_table(header, rows)


def relevance_table(metrics):
    """Share of the best ten images that are what each query is about; then the mean, and that of the queries for a
    kind that was trained on."""
    names, unseen = list(metrics["relevance"]), metrics["unseen_queries"]
    rows = [
        [query + UNSEEN * (query in unseen), *(_number(metrics["relevance"][name], query, 2) for name in names)]
        for query in metrics["relevance"][names[0]]
    ]
    means = {"mean": "mean_relevance"} | ({"mean of the others": "mean_relevance_seen"} if unseen else {})
    for title, mean in means.items():
        rows.append([f"**{title}**", *(f"**{metrics[mean][name]:.2f}**" for name in names)])
    return markdown_table([f"query ({metrics['origin']})", *names], rows)


def zero_shot_table(metrics):
    """Accuracy of naming the true kind of an image among all kinds' names, by model."""
    rates = ("top-1", "top-5", "commonest")
    rows = [
        [case, model, row["choices"], *(_number(row, name) for name in rates), f"{1 / row['choices']:.3f}"]
        for case, by_model in metrics["kind_accuracy"].items()
        for model, row in by_model.items()
    ]
    header = [f"images ({metrics['origin']})", "model", "names", "top-1", "top-5", "commonest kind", "chance"]
    return markdown_table(header, rows)
