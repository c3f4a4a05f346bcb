"""Tables of the report, written as Markdown from what metrics.json holds."""

NAMES = {
    "redshift": "redshift",
    "log_mstar": "log stellar mass",
    "log_mstar_true": "log stellar mass, exact labels",
}
ORIGINS = {"astroclip": "DESI", "desi": "DESI", "hst": "Hubble"}  # of data, in words
SIDES = ("image", "spectrum", "cross-modal")
DENSITIES = {
    "image": "images",
    "spectrum": "spectra",
    "cross-modal": "nearest neighbours across",
    "cross-modal, InfoNCE": "InfoNCE across",
}
FEW = 100  # up to which galaxies are counted, not given as a share


def markdown_table(header, rows):
    """A Markdown table; the first column is text, the others are numbers and align right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def with_error(score):
    """ "0.71 ± 0.02" from the scores of one prediction, "0.971 ± 0.003" where that is known, "" from None."""
    if not score:
        return ""
    digits = 2 if score["r2_error"] >= 0.0095 else 3
    return f"{score['r2']:.{digits}f} ± {score['r2_error']:.{digits}f}"


def property_table(metrics):
    """Table 1 of the report: R2 by embedding, published numbers, and the other measures of a prediction."""
    header = ["property", "embedding", "original v1", "reproduction", "this run"]
    header += ["bias", "bias, lowest tenth", "bias, highest tenth", "NMAD", "outliers", "n"]
    rows = []
    for quantity, name in NAMES.items():
        for side in SIDES if quantity in metrics["zero_shot"] else ():
            score = metrics["zero_shot"][quantity][side]
            published = metrics["published"].get(f"{quantity}/{side}", {})
            numbers = [f"{published[who]:.2f}" if published else "" for who in ("original", "reproduction")]
            biases = [f"{score[name]:+.3f}" for name in ("bias", "bias_lowest", "bias_highest")]
            measures = [*biases, f"{score['nmad']:.4f}", f"{score['outlier_fraction']:.1%}"]
            rows.append([name, side, *numbers, f"**{with_error(score)}**", *measures, f"{score['n']:,}"])
    return markdown_table(header, rows)


def baseline_table(metrics):
    """Every method on the same galaxies and split: R2 of redshift and of mass."""
    quantities = [quantity for quantity in NAMES if quantity in metrics["zero_shot"]]
    header = ["method", "sees", *(NAMES[quantity] for quantity in quantities)]
    rows = []
    parts = {
        "zero_shot": "aligned embeddings, this run",
        "linear": "linear contrastive",
        "shuffled": "shuffled pairs",
    }
    for part, title in parts.items():
        for side in SIDES if part in metrics else ():
            rows.append([title, side, *(with_error(metrics[part][quantity][side]) for quantity in quantities)])
    for method in metrics.get("baselines", {}).get("redshift", {}):
        side = "spectrum" if method.startswith("spectrum") else "image"
        rows.append([method, side, *(with_error(metrics["baselines"][q].get(method)) for q in quantities)])
    return markdown_table(header, rows)


def coverage_table(density, n):
    """Coverage of the central intervals of each kind of redshift density, of ``n`` galaxies, and its error."""
    levels = list(next(iter(density.values()))["coverage"])
    rows = [
        [name, *(f"{100 * density[kind]['coverage'][level]:.1f}" for level in levels)]
        for kind, name in DENSITIES.items()
        if kind in density
    ]
    rows.append(["standard error if calibrated", *(f"{100 * binomial_error(level, n):.1f}" for level in levels)])
    return markdown_table(["densities", *(f"{level} %" for level in levels)], rows)


def binomial_error(percent, n):
    """Standard error of a share of ``n`` that is ``percent`` in truth."""
    share = int(percent) / 100
    return (share * (1 - share) / n) ** 0.5


def retrieval_table(metrics):
    """Recall of the right partner in both directions, beside the linear method and chance."""
    header = ["method", "query", "recall@1", "recall@5", "recall@10", "median rank"]
    rows = []
    parts = {"this run": metrics} | ({"linear contrastive": metrics["linear"]} if "linear" in metrics else {})
    for title, part in parts.items():
        for query, direction in (("image", "image_to_spectrum"), ("spectrum", "spectrum_to_image")):
            rows.append([title, query, *_recalls(part[direction])])
    rows.append(["chance", "either", *_recalls(metrics["chance"])])
    return markdown_table(header, rows)


def _recalls(row):
    return [*(f"{row[f'recall@{k}']:.1%}" for k in (1, 5, 10)), f"{row['median_rank']:.0f}"]


def provenance_table(provenance):
    """Versions, machine and commit of a run."""
    return markdown_table(["what", "version"], [[name, value] for name, value in provenance.items()])


def range_table(narrower):
    """One row per observed range of wavelengths: R2 and errors of redshift."""
    header = ["observed [Å]", "R² of redshift", "median error", "within 0.05", "within 1,000 km/s"]
    rows = [
        [name.replace("-", " to "), with_error(row), *_errors(row), _near(row)] for name, row in narrower.items()
    ]
    return markdown_table(header, rows)


def damage_table(damaged, real, fitted=()):
    """One row per kind of damage: R2 and errors of redshift; then those of ``real`` spectra, if there are any.

    damaged, real, fitted : {kind: scores}, the last of template fits to some of the same galaxies; a kind that left
    no spectrum any bin has empty cells.
    """
    header = ["spectra", "R² of redshift", "median error", "within 0.05", "within 1,000 km/s"]
    header += ["template fit: within 0.05", "within 1,000 km/s"] if fitted else []
    header += ["real: median error", "real: within 0.05", "real: largest error"] if real else []
    rows = []
    for name, row in damaged.items():
        cells = [name, with_error(row), *_errors(row), _near(row)]
        if fitted:
            cells += [_errors(fitted[name])[1], _near(fitted[name])] if name in fitted else [""] * 2
        if real:
            cells += [*_errors(real[name]), f"{real[name]['largest_error']:.4f}"] if name in real else [""] * 3
        rows.append(cells)
    return markdown_table(header, rows)


def _errors(row):
    """Median error and share within 0.05, which is "5 of 6" of a few."""
    n, share = row["n"], row["within_0.05"]
    return [f"{row['median_error']:.4f}", f"{round(share * n)} of {n}" if n <= FEW else f"{share:.1%}"]


def _near(row):
    """Share within 1,000 km/s."""
    return f"{row['within_1000_km_s']:.1%}"


def ablation_table(variants):
    """One row per variant: steps of training, the epoch kept, recall, and R2 of redshift and mass by embedding; the
    weights of both encoders where they were trained."""
    columns = [column for column in next(iter(variants.values())) if "/" in column]
    sized = any("n_parameters" in row for row in variants.values())
    header = ["variant", *["weights, 10⁶"] * sized, "steps", "epoch kept, from 0", "recall@10 [%]"]
    header += ["R² " + column.replace("log_mstar", "mass").replace("/", ", ") for column in columns]
    rows = [
        [
            name,
            *([f"{row['n_parameters'] / 1e6:.1f}" if "n_parameters" in row else ""] if sized else []),
            f"{row['steps']:,}",
            f"{row.get('kept_epoch', '')}",
            f"{100 * row['recall@10']:.1f} ± {100 * row['recall@10 error']:.1f}",
            *(with_error(row[column]) for column in columns),
        ]
        for name, row in variants.items()
    ]
    return markdown_table(header, rows)
