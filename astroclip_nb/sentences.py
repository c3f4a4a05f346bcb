"""Sentences of the report and the notebooks, written from what metrics.json holds."""

import math

from .tables import DENSITIES, binomial_error, with_error

ACROSS, WITHIN = "as reported", "contrast within spectra too"  # ablations, by their names


def coverage_verdict(density, n):
    """Sentences on which coverages, of ``n`` galaxies, are more than two standard errors off."""
    off, total = {}, 0
    for kind, name in DENSITIES.items():
        for level, share in density[kind]["coverage"].items() if kind in density else ():
            total += 1
            excess = (share - int(level) / 100) / binomial_error(level, n)
            if abs(excess) > 2:
                off.setdefault((level, "wide" if excess > 0 else "narrow"), []).append(name)
    within = total - sum(map(len, off.values()))
    told = f"Within two standard errors of the nominal are {within} of the {total} coverages (19 of 20 by chance)."
    for (level, how), names in sorted(off.items()):
        told += f" The {level} % intervals are too {how} for {', '.join(names)}."
    return told


def auc_error(auc, positive, n):
    """Standard error of an AUC with ``positive`` of ``n`` in the class, by Hanley & McNeil (1982)."""
    one, two, negative = auc / (2 - auc), 2 * auc**2 / (1 + auc), n - positive
    if not positive * negative:
        return math.nan
    spread = auc * (1 - auc) + (positive - 1) * (one - auc**2) + (negative - 1) * (two - auc**2)
    return (max(spread, 0) / (positive * negative)) ** 0.5


def through_heads(probes, score):
    """How much the heads change a ``score`` of probes on average over all quantities, for each side, in words."""
    of = {(row["quantity"], row["representation"]): row[score] for row in probes}
    told = []
    for side, how in (("image", "for images"), ("spectrum", "for spectra"), ("joint", "jointly")):
        pairs = [
            (value, of.get((quantity, f"{side} features")))
            for (quantity, name), value in of.items()
            if name == side
        ]
        changes = [after - before for after, before in pairs if None not in (after, before)]
        if changes:
            told.append(f"{sum(changes) / len(changes):+.2f} {how}".replace("-", "\N{MINUS SIGN}"))
    return ", ".join(told)


def artefacts_on_islands(found):
    """What the small islands of a map hold of the artefacts, in words: ``found`` as `structure.islands` has it."""
    islands = sorted(found["islands"], key=lambda one: -one["n"])
    if not islands:
        return "there is no small island"
    named = "the only small island holds" if len(islands) == 1 else f"the {len(islands)} small islands hold"
    if not found["all_islands"]["completeness"]:
        sizes = [f"{one['n']:,}" for one in islands]
        return f"{named} none of the artefacts (galaxies in each: {', '.join(_shortened(sizes))})"
    shares = [
        f"{one['purity']:.0%} of {one['n']:,}" if one["purity"] else f"none of {one['n']:,}" for one in islands
    ]
    return (
        f"{named} {found['all_islands']['completeness']:.0%} of the artefacts, at a purity of "
        f"{found['all_islands']['purity']:.0%} (artefacts in each: {', '.join(_shortened(shares))})"
    )


def _shortened(names, most=8):
    return [*names[:most], f"{len(names) - most} more"] if len(names) > most else names


def correlated_noise(damaged, binning, correlated, step=0.8):
    """A sentence on what correlated noise adds to spectra that an encoder sees in bins of ``binning``; "" without.

    correlated : bins of the running mean that correlates it; step : of the spectra, in A.
    """
    if not any("correlated" in name for name in damaged):
        return ""
    width = max(binning, 4)
    where = f"Over {step * width:g} Å" + (", a bin of the encoder," if binning == width else "")
    white, also = noise_growth(width, 1), noise_growth(width, correlated)
    return (
        f"Half the signal to noise is meant for single bins of {step:g} Å. {where} the white noise makes the "
        f"variance {white:.3g} times as large and the correlated noise {also:.3g} times, if the noise before is "
        "independent from bin to bin; over the width of a line, too, the correlated one is more."
    )


def noise_growth(width, correlated):
    """Factor on the variance of a mean over ``width`` bins, to each of which three times its variance is added.

    What was there is independent from bin to bin; what is added is a running mean over ``correlated`` bins.
    """
    bins = range(width)
    return 1 + 3 * sum(max(0, 1 - abs(i - j) / correlated) for i in bins for j in bins) / width


def costliest_damage(damaged):
    """A sentence that names the kind of damage with the lowest R2, and that of the whole spectra; "" of nothing."""
    kinds = {name: row for name, row in damaged.items() if name != "whole"}
    if not kinds or "whole" not in damaged:
        return ""
    worst = min(kinds, key=lambda name: kinds[name]["r2"])
    return (
        f'The lowest R², {with_error(kinds[worst])}, is that of "{worst}"; whole spectra have '
        f"{with_error(damaged['whole'])}."
    )


def effect_within_spectra(variants):
    """A sentence on what contrast within spectra changes, by the ablations; "" where these lack one of both."""
    pair = [variants[name] for name in (ACROSS, WITHIN) if "redshift/spectrum" in variants.get(name, {})]
    if len(pair) < 2:
        return ""
    recall = [f"{100 * row['recall@10']:.1f} ± {100 * row['recall@10 error']:.1f} %" for row in pair]
    r2 = [with_error(row["redshift/spectrum"]) for row in pair]
    return (
        f"In section 7 contrast within spectra changes recall@10 from {recall[0]} to {recall[1]}, and R² of "
        f"redshift from spectra from {r2[0]} to {r2[1]}."
    )


def spectra_without_it(before, variants):
    """A sentence on redshifts from spectra ``before`` heads (scores) and after those without contrast within them;
    "" where one of them is not known."""
    after = {name: variants.get(name, {}).get("redshift/spectrum") for name in (ACROSS, "shuffled pairs")}
    if not before or None in after.values():
        return ""
    return (
        f"R² of redshift from spectra is {with_error(before)} before the heads. After heads of "
        f"section 7 trained across the two alone it is {with_error(after[ACROSS])}; after those of shuffled pairs, "
        f"which cannot learn what images show, {with_error(after['shuffled pairs'])}."
    )
