"""The numbers of README, paper/RESULTS.md and benchmarks/SPEED.md are those of the runs kept beside them."""

import json

import pytest

from astroclip_nb.galaxies.robustness import DAMAGES
from astroclip_nb.paths import REPOSITORY, SHIPPED_WEIGHTS
from astroclip_nb.tables import SIDES, with_error

README, RESULTS, SPEED = (
    (REPOSITORY / page).read_text() for page in ("README.md", "paper/RESULTS.md", "benchmarks/SPEED.md")
)


def kept_run(name):
    """The metrics of each notebook of a run kept in paper/results, by the notebook's number."""
    kept = json.loads((REPOSITORY / "paper" / "results" / f"{name}.json").read_text())
    return {notebook[:2]: of["metrics"] for notebook, of in kept.items() if "metrics" in of}


@pytest.fixture(params=["default", "frozen", "large"])
def kept(request):
    return request.param, json.loads((REPOSITORY / "paper" / "results" / f"{request.param}.json").read_text())


def row(start, page=RESULTS):
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_zero_shot_scores_are_the_kept_ones(kept):
    name, metrics = kept
    found = metrics["06_properties"]["metrics"]
    named = {"redshift": "redshift", "log_mstar": "log stellar mass", "log_mstar_true": "the same, exact labels"}
    for quantity, words in named.items():
        cells = row(f"| {words}, `{name}`")
        assert cells[:3] == [with_error(found["zero_shot"][quantity][side]) for side in SIDES]
        linear = kept_run("default" if name == "frozen" else name)["06"]["linear"][quantity]  # of the same galaxies
        assert cells[3] == " / ".join(f"{linear[side]['r2']:.2f}" for side in SIDES)


def test_retrieval_is_the_kept_one(kept):
    name, metrics = kept
    found = metrics["05_retrieval"]["metrics"]
    cells = row(f"| own spectrum among {found['choices']:,}, `{name}`")
    linear = kept_run("default" if name == "frozen" else name)["05"]["linear"]  # of the same galaxies
    parts = found["image_to_spectrum"], linear["image_to_spectrum"], found["chance"]
    assert cells == [f"{part['recall@10']:.1%}" for part in parts]


def test_real_galaxies_and_hubble_are_those_of_the_default_run():
    metrics = json.loads((REPOSITORY / "paper" / "results" / "default.json").read_text())
    real = metrics["08_real_galaxies"]["metrics"]
    told = f"the median |Δz|/(1+z) is {real['median_error']:.3f}, the largest {real['largest_error']:.3f}."
    assert told in " ".join(RESULTS.split())
    tuned, asked = metrics["10_hubble_finetune"]["metrics"], metrics["11_hubble_retrieval"]["metrics"]
    for start, part, share in (
        ("| own caption among the best 5 %", "test", "5 %"),
        ("| own caption among the best 10 %", "unseen", "10 %"),
    ):
        scores = tuned["scores"][part]
        measured, oracle = (scores[name]["image"][share] for name in ("softmax", "class oracle"))
        assert row(start) == [f"{measured:.1%} ({share})", f"{oracle:.1%}"]
    unseen = tuned["parts"]["unseen"]["softmax"]
    assert (
        row("| the same by visible")[0] == f"{unseen['attributes alone']:.1%} / {unseen['name alone']:.1%} (10 %)"
    )
    assert row("| naming the kind")[0].startswith(
        f"{asked['kind_accuracy']['trained kinds']['trained']['top-1']:.1%} "
    )
    for start, mean in (
        ("| relevance of the ten", "mean_relevance"),
        ("| the same without the two", "mean_relevance_seen"),
    ):
        assert row(start)[0] == f"{asked[mean]['trained']:.1%} ({100 * asked[mean]['chance']:.0f} %)"
    assert len(asked["unseen_queries"]) == 2
    limits = asked["mean_relevance"]["TF-IDF over abstracts"], asked["mean_relevance"]["best possible"]
    assert "a precision@10 of {:.0%}; the best possible is {:.0%},".format(*limits) in RESULTS


@pytest.mark.parametrize(
    "name, told",
    [
        ("default", "level, {}, {} and {} of 48 lie within 0.05"),
        ("large", "(through the towers of `large`: {median:.3f} and {largest:.3f}; {}, {} and {})"),
    ],
)
def test_real_galaxies_made_noisier_are_the_kept_ones(name, told):
    metrics = json.loads((REPOSITORY / "paper" / "results" / f"{name}.json").read_text())
    real = metrics["08_real_galaxies"]["metrics"]
    assert [real["noisier"][level]["spectra"] for level in "321"] == [6, 6, 6]
    near = [round(48 * real["noisier"][level]["within_0.05"]) for level in "321"]
    told = told.format(*near, median=real["median_error"], largest=real["largest_error"])
    assert told in " ".join(RESULTS.split())


def test_damaged_spectra_are_those_of_the_default_run():
    kept = json.loads((REPOSITORY / "paper" / "results" / "default.json").read_text())
    found = kept["08_real_galaxies"]["metrics"]
    assert list(found["damaged"]) == list(DAMAGES) and found["n_with_redshift"] == 6
    for name, scores in found["damaged"].items():
        fit, real = (found[f"damaged_{by}"][name] for by in ("fit", "real"))
        near = [f"{scores['within_0.05']:.1%}", f"{scores['within_1000_km_s']:.0%}"]
        near += [f"{fit['within_0.05']:.1%}", f"{fit['within_1000_km_s']:.1%}"]
        assert row(f"| {name} |") == [
            with_error(scores),
            *near,
            f"{real['n'] * real['within_0.05']:.0f} of {real['n']}",
        ]


def test_scatter_outliers_and_coverage_are_those_of_large():
    found = json.loads((REPOSITORY / "paper" / "results" / "large.json").read_text())["06_properties"]["metrics"]
    ours = found["zero_shot"]["redshift"]["spectrum"]
    components = found["baselines"]["redshift"]["spectrum components k-NN"]
    scatter, outliers = ([row[name] for row in (components, ours)] for name in ("nmad", "outlier_fraction"))
    told = "(NMAD {:.4f} against {:.4f}), and {:.1f} % of outliers beyond 0.05 (1+z) against {:.1f} %."
    text = " ".join(RESULTS.split())
    assert told.format(*scatter, *(100 * share for share in outliers)) in text


def test_coverage_and_more_neighbours_are_those_of_the_kept_runs():
    text = " ".join(RESULTS.split())
    of = {name: kept_run(name)["06"] for name in ("default", "large")}
    held = [
        ", ".join(f"{100 * found['density'][kind]['coverage'][level]:.0f}" for level in ("50", "68", "95"))
        for kind in ("cross-modal", "cross-modal, InfoNCE")
        for found in of.values()
    ]
    told = "intervals hold {} % of the redshifts of `default` and {} % of `large` (binomial"
    assert told.format(*held[:2]) in text and "no such factor, it is {} and {} %.".format(*held[2:]) in text
    errors = [100 * (0.95 * 0.05 / found["n_test"]) ** 0.5 for found in of.values()]
    assert "standard errors at 95 %: {:.1f} and {:.1f})".format(*errors) in text
    large = of["large"]["density"]
    nearest, likelihood = (with_error(large[f"cross-modal{by}"]["mean"]) for by in ("", ", InfoNCE"))
    assert (
        f"as validation galaxies prefer ({large['cross-modal']['values']}), has R² = {nearest} cross-modal, "
        f"that of InfoNCE's weights {likelihood}, where" in text
    )


def test_shorter_spectra_are_the_kept_ones():
    r2 = {name: f"{row['r2']:.3f}" for name, row in kept_run("default")["08"]["narrower"].items()}
    told = f"R² = {r2['3800-9200']}, {r2['4500-8500']} and {r2['4000-7000']} (whole: {r2['3600-9824']})"
    assert f"test galaxies of `default` give {told}" in " ".join(RESULTS.split())


@pytest.mark.parametrize("column, file", [(0, "results"), (1, "results_amx")])
def test_speed_is_the_measured_one(column, file):
    results = json.loads((REPOSITORY / "benchmarks" / f"{file}.json").read_text())
    assert results["machine"]["amx_bf16"] == (file == "results_amx")
    for start, values in speeds(results).items():
        assert row(start, SPEED)[column] == " / ".join(values), start


@pytest.mark.parametrize("column, file", [(0, "results"), (1, "results_amx")])
def test_the_pieces_of_the_whole_job_are_the_measured_ones(column, file):
    job = json.loads((REPOSITORY / "benchmarks" / f"{file}.json").read_text())["whole_job_core_hours"]
    plain, fast = job["plain"], job["fast"]
    pieces = {
        "| plain: training": [f"{plain[name]:.1f}" for name in ("training", "validation")],
        "| here: reading": [f"{fast[name]:.3f}" for name in ("read", "make views")],
        "| here: encoding": [f"{fast[name]:.2f}" for name in ("encode images", "encode spectra")],
        "| here: training heads": [f"{fast[name]:.2f}" for name in ("train heads", "validate")],
    }
    for start, values in pieces.items():
        assert row(start, SPEED)[column] == " / ".join(values), start
    assert sum(plain.values()) / sum(fast.values()) == pytest.approx(job["ratio"])
    assert f"reading {job['disk_gb']['read']:.0f} GB of pairs" in SPEED
    assert f"on {job['disk_gb']['written']:.1f} GB of features" in SPEED


def speeds(results):
    """{beginning of a row: the ratios told in it} of what `benchmarks.bench` wrote."""
    ratio = {measured["what"]: f"{measured['ratio']:.2g}" for measured in results["rows"]}
    ratio |= {what: f"{float(value):.0f}" for what, value in ratio.items() if float(value) >= 10}
    job = results["whole_job_core_hours"]
    whole = {name: f"{value:.0f}" for name, value in job.items() if name.startswith("ratio")}
    return {
        "| training step": [ratio[f"Training step, {precision}"] for precision in ("fp32", "bf16")],
        "| the whole job": [whole["ratio"], whole["ratio_with_embeddings"]],
        "| with the four": [whole[f"ratio_four_spectrum_views{rest}"] for rest in ("", "_with_embeddings")],
        "| published ResNet-50": [
            ratio[f"Image encoder, published, bf16{plain}"] for plain in ("", " by autocast against ours")
        ],
        "| published Spender": [
            ratio[f"Spectrum encoder, published, {precision}"]
            for precision in ("fp32", "bf16", "bf16 by autocast against ours")
        ],
        "| rotation, flips": [ratio["Rotation, flip, crop"]],
        "| shuffled reading": [ratio[f"Images read shuffled, {file}"] for file in ("same file", "auto-chunked")],
        "| top 10 of": [ratio["Top 10 of 200,000"], ratio["16-NN regression, 40,000"]],
        "| UMAP, seeded": [ratio["UMAP, seeded, 2,000"], ratio["k-means and silhouettes, 10,000"]],
    }


def test_the_term_within_spectra_is_weighed_by_the_kept_run():
    kept = json.loads((REPOSITORY / "paper" / "results" / "default.json").read_text())
    told = []
    for name in ("as reported", "contrast within spectra too"):
        found = kept["12_ablations"]["metrics"]["variants"][name]
        image, spectrum, across = (found[f"redshift/{side}"]["r2"] for side in SIDES)
        told.append(f"{image:.2f} / {spectrum:.3f} / {across:.2f} and {100 * found['recall@10']:.1f} %")
    assert f"are {told[0]} without it, {told[1]} with it." in " ".join(RESULTS.split())
    found = kept["06_properties"]["metrics"]
    tried = kept["12_ablations"]["metrics"]["variants"]
    alone, null = (tried[name]["redshift/spectrum"]["r2"] for name in ("as reported", "shuffled pairs"))
    before = found["baselines"]["redshift"]["spectrum features before the heads"]["r2"]
    told = f"{before:.3f} before the heads of `default`, is {alone:.3f} after heads trained by it, and as low"
    assert f"{told}, {null:.3f}," in " ".join(RESULTS.split())
    with_heads = [found["zero_shot"][q]["spectrum"]["r2"] for q in ("redshift", "log_mstar")]
    before = [found["baselines"][q]["spectrum features before the heads"]["r2"] for q in ("redshift", "log_mstar")]
    (z, z_before), (mass, mass_before) = zip(with_heads, before, strict=True)
    text = " ".join(RESULTS.split())
    assert f"R² of redshift is {z:.3f} with them and {z_before:.3f} before them" in text
    assert f"of stellar mass {mass:.3f} and {mass_before:.3f}." in text


def test_the_shipped_towers_were_trained_on_so_many_pairs():
    stage, pairs = json.loads((SHIPPED_WEIGHTS / "spectrum.json").read_text()), 0
    while stage:
        pairs, stage = pairs + stage.get("data", {"train": 0})["train"], stage.get("before")
    assert f"had been trained on {pairs:,} other simulated pairs" in RESULTS
    assert f"on {pairs:,} other simulated pairs, none of which enters a score" in " ".join(README.split())


@pytest.mark.parametrize("name", ["frozen", "finetuned", "default"])
def test_what_lifts_the_scores_is_that_of_the_kept_runs(name):
    kept = json.loads((REPOSITORY / "paper" / "results" / f"{name}.json").read_text())
    found, recall = kept["06_properties"]["metrics"]["zero_shot"], kept["05_retrieval"]["metrics"]
    cells = [" / ".join(f"{found[q][side]['r2']:.2f}" for side in SIDES) for q in ("redshift", "log_mstar_true")]
    mean = sum(recall[way]["recall@10"] for way in ("image_to_spectrum", "spectrum_to_image")) / 2
    assert row(f"| `{name}`: ")[1:] == [*cells, f"{mean:.1%}"]
    assert kept["01_data"]["metrics"]["train"] == 7996


def test_ablations_are_those_of_large():
    found, text = kept_run("large")["12"]["variants"], " ".join(RESULTS.split())
    recall = {name: f"{of['recall@10']:.1%}" for name, of in found.items()}
    told = "{} with 1, {} with 2.74, {} with 15.5 as reported and {} learned"
    scales = [f"logit scale {name}" for name in ("1", "2.74")] + ["as reported", "logit scale learned"]
    assert len(found) == 16 and told.format(*[recall[name] for name in scales]) in text
    plain = [f"{n} dimensions" for n in (32, 64, 256, 512)] + [
        "batch of 128",
        "batch of 2048",
        "one view",
        "two views",
    ]
    plain = sorted(recall[name] for name in plain)
    assert f"or four): {plain[0]} to {plain[-1]}." in text
    assert f"as often, has {recall['a third of the pairs']}, a tenth {recall['a tenth of the pairs']}." in text
    images = {f"{of['redshift/image']['r2']:.2f}" for of in found.values()}
    assert images == {"0.78", "0.79"} and "from images is 0.78 to 0.79 in all" in text
    across = [found[name]["redshift/cross-modal"]["r2"] for name in ("logit scale 2.74", "as reported")]
    assert "R² {:.2f} with 2.74, {:.2f} with 15.5.".format(*across) in text


def test_sizes_are_the_kept_ones():
    kept = json.loads((REPOSITORY / "paper" / "results" / "sizes.json").read_text())["12_ablations"]
    for size in ("small towers", "published sizes"):
        found = kept["metrics"]["variants"][f"{size}, from scratch"]
        r2 = " / ".join(f"{found[f'redshift/{side}']['r2']:.2f}" for side in SIDES)
        assert f"{r2} and {100 * found['recall@10']:.1f} %" in RESULTS and f"or {found['steps']} steps" in RESULTS
        assert f"({found['n_parameters'] / 1e6:.1f} million" in RESULTS


def test_the_short_trial_of_full_is_the_kept_one():
    kept = json.loads((REPOSITORY / "paper" / "results" / "full_short.json").read_text())
    epochs = [kept[name]["parameters"][key] for name, key in (
        ("02_image_encoder", "image_epochs"), ("03_spectrum_encoder", "spectrum_epochs"), ("04_alignment", "epochs")
    )]  # fmt: skip
    assert epochs == [1, 2, 13]
    found = kept["05_retrieval"]["metrics"]
    recall, linear = (part["image_to_spectrum"]["recall@10"] for part in (found, found["linear"]))
    told = f"Recall@10 among {found['choices']:,} is {recall:.1%} (linear baseline {linear:.1%}, in an older form"
    assert told in " ".join(RESULTS.split())


def test_the_table_at_a_glance_is_of_the_kept_runs():
    default, frozen = kept_run("default"), kept_run("frozen")
    recall = default["05"], frozen["05"]
    parts = [recall[0]["chance"], *(of["image_to_spectrum"] for of in (recall[0]["linear"], *reversed(recall)))]
    assert row("| own spectrum among", README) == [f"{part['recall@1%']:.1%}" for part in parts]
    linear, *runs = default["06"]["linear"], frozen["06"]["zero_shot"], default["06"]["zero_shot"]
    for start, quantity, side in (
        ("| R² of redshift, from images", "redshift", "image"),
        ("| R² of redshift, from spectra", "redshift", "spectrum"),
        ("| R² of redshift, images among", "redshift", "cross-modal"),
        ("| R² of exact log stellar mass", "log_mstar_true", "cross-modal"),
    ):
        assert row(start, README)[1:] == [f"{of[quantity][side]['r2']:.2f}" for of in (linear, *runs)]


def test_what_the_readme_says_in_words_is_of_the_kept_runs():
    default, text = kept_run("default"), " ".join(README.split())
    images = kept_run("finetuned")["06"]["zero_shot"]["redshift"]["image"]["r2"]
    assert f"in the same minutes to {images:.2f} (`finetuned`)" in text
    median = default["06"]["zero_shot"]["redshift"]["spectrum"]["nmad"] / 1.4826
    fit = default["06"]["baselines"]["redshift"]["spectrum template fit"]["nmad"] / 1.4826
    assert f"embeddings is {median:.3f} (1+z), that of a fit {fit:.5f}." in text
    real = default["08"]
    assert f"a median of {real['median_error']:.3f} and a largest error of {real['largest_error']:.3f}." in text
    found = default["10"]["scores"]["test"]["softmax"]["image"]["5 %"]
    relevance = default["11"]["mean_relevance"]
    assert f"the own caption of {found:.0%} of held-out images" in text
    assert f"({relevance['TF-IDF over abstracts']:.0%} against {relevance['trained']:.0%} of the ten" in text
    oracle = default["10"]["scores"]["test"]["class oracle"]["image"]["5 %"]
    assert f"the kind of object would give {oracle:.0%};" in text
    unseen = [default["10"]["scores"]["unseen"][name]["image"]["10 %"] for name in ("softmax", "class oracle")]
    assert "({:.0%} against {:.0%}, best 10 %)".format(*unseen) in text
    ways = [default["05"][way] for way in ("image_to_spectrum", "spectrum_to_image")]
    assert {f"{way['recall@1']:.0%}" for way in ways} == {"12%"} and max(way["median_rank"] for way in ways) <= 10


def test_what_else_the_results_say_is_of_the_kept_runs():
    default, large, text = kept_run("default"), kept_run("large"), " ".join(RESULTS.split())
    nearest = [of["05"]["image_to_spectrum"]["recall@1%"] for of in (default, large)]
    assert "among the nearest 1 % it is {:.1%} in `default` and {:.1%} in `large`".format(*nearest) in text
    found = default["06"]
    within = found["zero_shot"]["redshift"]["spectrum"]["within_1000_km_s"]
    assert found["baselines"]["redshift"]["spectrum template fit"]["within_1000_km_s"] == 1
    assert f"find all {found['n_test']:,} of `default` within 1,000 km/s, the embeddings {within:.0%}" in text
    rows, shares = large["06"], []
    for of in (rows["baselines"]["redshift"]["spectrum template fit"], rows["zero_shot"]["redshift"]["spectrum"]):
        shares.append(of["within_1000_km_s"])
    assert "and of `large` {:.1%} and {:.0%} (templates".format(*shares) in text
    taught = [
        " and ".join(f"{found['baselines'][q][name]['r2']:.2f}" for q in ("redshift", "log_mstar_true"))
        for name in ("supervised ResNet-18", "spectrum CNN, supervised")
    ]
    trees = [found["baselines"][q]["photometry boosting"]["r2"] for q in ("redshift", "log_mstar_true")]
    assert "reach R² = {:.2f} (redshift) and {:.2f} (exact mass)".format(*trees) in text
    assert "ResNet-18 {}, a small CNN on spectra {}.".format(*taught) in text
    fast = [round(of["08"]["within_1000_km_s"] * of["08"]["n_with_redshift"]) for of in (default, large)]
    assert fast == [2, 5] and "Two of the six lie within 1,000 km/s (five by `large`)" in text
    structure = default["07"]
    odd, best = structure["outliers_features"], max(structure["silhouette"].values())
    by_original = structure["dbscan_original_eps"]
    told = f"({by_original['clusters']} at the original's radius of {by_original['eps']:.2f}, with"
    noise = f"{100 * by_original['noise']:.0f} % noise)"
    assert f"finds {structure['dbscan_clusters']} clusters {told} {noise}" in text
    small = structure["islands"]["all_islands"]
    assert round(small["purity"] * small["n"]) == 2 and "small islands hold two of the 55 artefacts" in text
    island = structure["islands_features"]["islands"][0]
    assert f"{island['purity']:.0%} of one island of {island['n']} galaxies are artefacts, a fifth of all" in text
    assert island["label"] == structure["islands_features"]["best"] and round(island["completeness"], 2) == 0.2
    embedded, alone = structure["outliers"], kept_run("frozen")["07"]
    told = f"of {odd['total']} images with an artefact, {odd['found']} are among the {odd['n']} most isolated"
    assert f"{told} by the features and {embedded['found']} by the embeddings." in text
    of_frozen = [alone[name]["found"] for name in ("outliers_features", "outliers")]
    assert "{} and {} of {} in `frozen`".format(*of_frozen, alone["outliers"]["n"]) in text
    auc = structure["outliers"]["auc"], structure["outliers_features"]["auc"]
    assert "stand out less (AUC {:.2f}, by the features {:.2f})".format(*auc) in text
    assert f"a silhouette of {best:.2f} at best, with {structure['kmeans_k']} clusters" in text
    unseen = default["11"]["kind_accuracy"]["unseen kinds"]["trained"]
    assert f"named rightly in {unseen['top-1']:.1%} of cases, of {unseen['choices']} names" in text


def test_the_readmes_speeds_are_rows_of_the_page_of_speeds():
    start = README.index("| | EPYC | Xeon |")
    lines = README[start : README.index("\n\n", start)].splitlines()
    assert len(lines) == 9 and set(lines) <= set(SPEED.splitlines())
