"""The observations file, its split, previews from disk, and the simulator behind the offline default."""

import re
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from PIL import Image

from astroclip_nb.errors import InputError
from astroclip_nb.hubble.observations import (
    Observations,
    from_previews,
    simulate_observations,
    square_preview,
    write_observations,
)
from astroclip_nb.hubble.proposals import Proposal
from astroclip_nb.hubble.queries import DRAFT_QUERIES, HYPOTHESES, PAPERCLIP_QUERIES, RELEVANT_KINDS
from astroclip_nb.hubble.simulate.detector import INSTRUMENTS, observe
from astroclip_nb.hubble.simulate.kinds import all_kinds
from astroclip_nb.hubble.simulate.proposals import kind_shares, preview, propose
from astroclip_nb.hubble.simulate.scene import Scene
from astroclip_nb.hubble.simulate.words import ATTRIBUTES
from astroclip_nb.hubble.summaries import check_summary
from astroclip_nb.splits import split_of


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    path = tmp_path_factory.mktemp("hubble") / "observations.h5"
    simulate_observations(path, 40, seed=3, progress=False)
    return Observations(path)


def test_simulated_file(simulated):
    assert simulated.origin == "simulated" and simulated.seed == 3 and not simulated.problems
    assert len(simulated.proposals) == 40 and 40 < len(simulated) <= 280
    assert simulated.images().shape == (len(simulated), 128, 128)
    rows = np.array([5, 2, 5, 0])
    assert np.array_equal(simulated.images(rows), simulated.images()[rows])
    for proposal in simulated.proposals:
        check_summary(proposal.summary)
        assert proposal.summariser == "simulated" and proposal.truth["kind"] in all_kinds()


def test_no_images_and_no_pixels_are_refused(tmp_path):
    with pytest.raises(InputError, match="max_images is 0; give every proposal at least one"):
        simulate_observations(tmp_path / "x.h5", 3, seed=1, max_images=0, progress=False)
    with pytest.raises(InputError, match="size is 0 pixels"):
        from_previews(tmp_path / "x.h5", [], tmp_path, size=0)


@pytest.mark.parametrize("size", [-4, 0, 2, 126])
def test_a_size_that_no_camera_can_bin_is_refused_before_anything_is_drawn(tmp_path, size):
    with pytest.raises(InputError, match=f"size is {size} pixels, expected a multiple of 4"):
        simulate_observations(tmp_path / "o.h5", 40, seed=3, size=size, progress=False)
    assert not (tmp_path / "o.h5").exists()


def test_split_is_by_proposal_and_stays(simulated):
    split = split_of(simulated.id)
    of_image = split[simulated.proposal]
    ids = [set(simulated.id[simulated.proposal][of_image == name]) for name in ("train", "validation", "test")]
    assert all(ids) and len(set.union(*ids)) == sum(map(len, ids)) == 40
    assert simulated.split_sizes == dict(zip(("train", "validation", "test"), map(len, ids), strict=True))
    order = np.random.default_rng(0).permutation(40)
    assert np.array_equal(split_of(simulated.id[order][:20]), split[order][:20])


def test_same_seed_same_bytes_and_each_proposal_alone(simulated, tmp_path):
    simulate_observations(tmp_path / "again.h5", 40, seed=3, progress=False)
    again = Observations(tmp_path / "again.h5")
    assert np.array_equal(again.images(), simulated.images()) and again.fingerprint == simulated.fingerprint
    assert again.proposals == simulated.proposals
    number = simulated.proposals[17].id
    alone = propose(3, number)
    assert alone.abstract == simulated.proposals[17].abstract
    first = np.flatnonzero(simulated.proposal == 17)[0]
    assert np.array_equal(preview(alone, 3, 0), simulated.images([first])[0])
    assert not np.array_equal(preview(alone, 4, 0), preview(alone, 3, 0))


def test_captions_say_what_is_drawn():
    kinds = all_kinds()
    assert len(kinds) >= 30 and len({kind.category for kind in kinds.values()}) == 8
    assert np.isclose(kind_shares(kinds).sum(), 1)
    for number in range(60):
        proposal = propose(0, number)
        objects = proposal.summary["objects_and_phenomena"]
        assert objects[0] in proposal.kind.names
        truth = {phrase for axis, value in proposal.look.items() for phrase in ATTRIBUTES[axis][value]}
        assert set(objects[1:]) <= truth
        for axis in proposal.kind.axes:
            assert any(phrase in proposal.abstract for phrase in ATTRIBUTES[axis][proposal.look[axis]])


def test_captions_name_no_camera_filter_or_depth():
    """What every image shows, whatever its object, would be matched instead of the object."""
    cameras = [name.split("/")[0] for name in INSTRUMENTS]
    unwanted = [*cameras, *(phrase for axis in ("filter", "depth") for phrases in ATTRIBUTES[axis].values()
                            for phrase in phrases)]  # fmt: skip
    for number in range(200):
        proposal = propose(1, number)
        said = f"{proposal.abstract} {proposal.summary}".lower()
        assert not [word for word in unwanted if word.lower() in said]
        assert proposal.instrument in proposal.title


def test_use_cases_name_no_kind():
    """So a kind kept out of training is not named in the captions of others, nor are use cases a second name."""
    kinds = all_kinds().values()
    names = {name.lower().removesuffix("s").removesuffix("ie") for kind in kinds for name in kind.names}
    goals = {goal.lower() for kind in kinds for goal in kind.goals}
    assert not [(name, goal) for name in names for goal in goals if re.search(rf"\b{re.escape(name)}", goal)]


def test_fingerprint_changes_with_the_words(simulated, tmp_path):
    other = [replace(simulated.proposals[0], abstract="Other words."), *simulated.proposals[1:]]
    previews = zip(simulated.id[simulated.proposal], simulated.images(), strict=True)
    write_observations(tmp_path / "o.h5", other, previews, size=128, origin="simulated", seed=3)
    assert Observations(tmp_path / "o.h5").fingerprint != simulated.fingerprint


@pytest.mark.parametrize(
    "name, row, value",
    [("image", -1, 0), ("proposal/category", 7, "Other"), ("proposal/truth", 7, '{"kind": "other"}')],
)
def test_fingerprint_changes_with_all_that_training_reads(simulated, tmp_path, name, row, value):
    """The last image, the category that begins an abstract's caption, the kind that may be kept out."""
    shutil.copy(simulated.path, tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file[name][row] = value
    assert Observations(tmp_path / "o.h5").fingerprint != simulated.fingerprint


def test_every_kind_draws_every_look():
    rng = np.random.default_rng(0)
    for kind in all_kinds().values():
        for value in range(5):
            axes = {**{axis: ATTRIBUTES[axis] for axis in kind.axes}, "field": ATTRIBUTES["field"]}
            look = {axis: list(values)[value % len(values)] for axis, values in axes.items()}
            scene = Scene(64, look, rng)
            kind.draw(scene)
            assert all(np.isfinite(layer).all() for layer in (scene.old, scene.young, scene.gas))
            assert (scene.transmission >= 0).all() and (scene.transmission <= 1.0001).all()
            assert scene.points or (scene.old + scene.young + scene.gas).max() > 0.1


def test_instruments_leave_their_marks():
    def shown(instrument, band, depth="deep"):
        scene = Scene(128, {"field": "plain"}, np.random.default_rng(1))
        scene.sersic("old", 1.0, 10, 1)
        scene.sersic("gas", 1.0, 10, 1, x0=20)
        return observe(scene, instrument, band, depth)

    for name, instrument in INSTRUMENTS.items():
        image = shown(name, instrument.filters[0])
        assert image.dtype == np.uint8 and image[0, 0] == 255  # white outside the footprint
    assert (shown("WFPC2", "broad-band") == 255).mean() > (shown("ACS/WFC", "broad-band") == 255).mean() + 0.03
    broad, narrow = (shown("WFC3/UVIS", band).astype(int) for band in ("broad-band", "narrow-band"))
    assert narrow[64, 84] - narrow[64, 64] > broad[64, 84] - broad[64, 64]  # line emission against stars
    deep, short = (shown("ACS/WFC", "broad-band", depth)[90:110, 40:60] for depth in ("deep", "snapshot"))
    assert short.std() > 1.5 * deep.std()


def test_stars_keep_their_place_and_brightness():
    scene = Scene(128, {}, np.random.default_rng(0))
    scene.star(2.0, 10.5, -20.5)
    from astroclip_nb.hubble.simulate.detector import light

    image = light(scene, INSTRUMENTS["ACS/WFC"], "broad-band")
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert (row, column) == (43, 74)  # -20.5 + 64 - 0.5, 10.5 + 64 - 0.5
    assert np.isclose(image.max(), 2.0 * (1 + 2 * INSTRUMENTS["ACS/WFC"].spikes), rtol=0.01)


def test_hypotheses_and_queries():
    kinds = set(all_kinds())
    assert 70 <= len(HYPOTHESES) <= 95 and len({h.text for h in HYPOTHESES}) == len(HYPOTHESES)
    assert set().union(*(h.kinds for h in HYPOTHESES)) == kinds
    for query in (*DRAFT_QUERIES, *PAPERCLIP_QUERIES):
        assert RELEVANT_KINDS[query] and RELEVANT_KINDS[query] <= kinds


def _proposals(*ids):
    return [Proposal(number, "Galaxies", 20, "Title", "Abstract.") for number in ids]


def test_a_programme_under_several_ids_stays_in_one_split(tmp_path):
    """Real ones have one abstract then; simulated proposals may share the words of a template."""
    ids = list(range(12055, 12079))
    assert len(set(split_of(ids))) == 3
    proposals = [Proposal(n, "Galaxies", 18, "PHAT", "Map  the disk\nof M31.") for n in ids[:-2]]
    proposals += [
        Proposal(n, "Galaxies", 18, "Other", words) for n, words in zip(ids[-2:], ("Else.", ""), strict=True)
    ]
    previews = [(n, np.zeros((8, 8), np.uint8)) for n in ids]
    together = [*split_of([ids[0]] * 22), *split_of(ids[-2:])]
    for origin, expected in (("hst", together), ("simulated", split_of(ids))):
        write_observations(tmp_path / "o.h5", proposals, previews, size=8, origin=origin)
        observations = Observations(tmp_path / "o.h5")
        assert observations.split.tolist() == list(expected)
        assert sum(observations.split_sizes.values()) == 24


def test_square_preview(tmp_path):
    Image.fromarray(np.zeros((40, 100), np.uint8)).save(tmp_path / "wide.png")
    square = square_preview(tmp_path / "wide.png", 50)
    assert square.shape == (50, 50)
    assert (square[:15] == 255).all() and (square[35:] == 255).all() and (square[15:35] == 0).all()
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(InputError, match="bad.jpg does not decode"):
        square_preview(tmp_path / "bad.jpg")


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    square = square_preview(tmp_path / "half.png", 8)
    assert (square[:4] == 0).all() and (square[4:] == 255).all()


def test_image_of_more_than_8_bits_is_refused(tmp_path):
    Image.fromarray(np.linspace(0, 60000, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep.png holds more than 8 bits a pixel \(I;16\)"):
        square_preview(tmp_path / "deep.png")


def test_previews_with_faults_lose_nothing_else(tmp_path):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(np.full((60, 60), 40 * number, np.uint8)).save(tmp_path / str(number) / "a.png")
    whole = (tmp_path / "1" / "a.png").read_bytes()
    (tmp_path / "2" / "b.png").write_bytes(whole[: len(whole) // 2])
    problems = from_previews(tmp_path / "o.h5", _proposals(1, 2, 3), tmp_path, size=32, progress=False)
    assert len(problems) == 2
    assert (
        "b.png does not decode" in problems[0] and problems[1] == "Proposal 3 has no usable image and is left out."
    )
    observations = Observations(tmp_path / "o.h5")
    assert observations.problems == problems and observations.origin == "hst"
    assert observations.id.tolist() == [1, 2] and observations.images()[:, 16, 16].tolist() == [40, 80]


def test_no_image_left_says_why_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no folder <proposal ID> for any of 1 proposals"):
        from_previews(tmp_path / "none.h5", _proposals(7), tmp_path / "nowhere", progress=False)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "a.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(InputError, match="No image is left of 1 proposals.*a.jpg does not decode"):
        from_previews(tmp_path / "none.h5", _proposals(7), tmp_path, progress=False)
    assert not (tmp_path / "none.h5").exists()


def test_previews_of_every_usual_suffix_and_nothing_else(tmp_path):
    (tmp_path / "7").mkdir()
    for i, name in enumerate(("a.jpg", "b.JPG", "c.jpeg", "d.png")):
        Image.fromarray(np.full((32, 32), 50 * i, np.uint8)).save(tmp_path / "7" / name)
    (tmp_path / "7" / "manifest.json").write_text("{}")
    assert from_previews(tmp_path / "o.h5", _proposals(7), tmp_path, size=32, progress=False) == []
    assert Observations(tmp_path / "o.h5").images()[:, 16, 16].tolist() == [0, 50, 100, 150]


def test_image_larger_than_pillow_opens_is_told(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((40, 100), np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="large.png does not decode as an image .*exceeds limit"):
        square_preview(tmp_path / "large.png")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(InputError, match="missing.h5 does not exist; make it with notebook 09"):
        Observations(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match="text.h5 is not an observations file"):
        Observations(tmp_path / "text.h5")
    write_observations(tmp_path / "o.h5", _proposals(1), [(1, np.zeros((8, 8), np.uint8))], size=8, origin="hst")
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file["proposal_id"][:] = 2
    with pytest.raises(InputError, match="needs the ID of exactly one"):
        Observations(tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(InputError, match="is astroclip-observations 2, expected astroclip-observations 1; make"):
        Observations(tmp_path / "o.h5")
