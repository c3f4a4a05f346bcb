"""Pairs files made from spectra and cut-outs of a survey."""

import numpy as np
import pytest
from test_cutouts import write_cutout
from test_surveys import write_coadd, write_redrock

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import surveys
from astroclip_nb.galaxies.pairs import open_pairs


@pytest.fixture
def observed(tmp_path):
    """Three galaxies with spectra, cut-outs of two of them and of one other."""
    targetid = 39627000000000000 + np.arange(3)
    redrock = write_redrock(tmp_path / "r.fits", targetid)
    spectra = surveys.read_spectra(write_coadd(tmp_path / "c.fits"), redrock)
    (tmp_path / "cutouts").mkdir()
    for value, name in enumerate([39627000000000002, 39627000000000000, 5]):
        write_cutout(tmp_path / "cutouts" / f"{name}.fits", np.full((3, 160, 160), value + 1))
    (tmp_path / "cutouts" / "readme.fits").write_text("not a galaxy")
    return spectra, tmp_path / "cutouts", tmp_path / "pairs" / "pairs.h5"


def test_spectra_and_cutouts_matched(observed):
    spectra, folder, path = observed
    report = surveys.pairs_from_survey(spectra, surveys.cutouts_in(folder), path)
    assert report == {"pairs": 2, "without_image": 1, "without_spectrum": 1, "unusable_image": 0}
    with open_pairs(path) as pairs:
        assert (pairs.targetid - 39627000000000000).tolist() == [0, 2]
        assert pairs.read("image", [0, 1])[:, 0, 0, 0].tolist() == [2, 1]
        np.testing.assert_array_equal(pairs.read("spectrum", [0, 1]), spectra["spectrum"][[0, 2]])
        np.testing.assert_allclose(pairs.catalogue["redshift"], [0.1, 0.4])
        assert set(pairs.catalogue) == {"redshift", "mag_g", "ebv"} and pairs.attributes["origin"] == "desi"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spectrum": lambda x: x[1:], "ivar": lambda x: x[1:]}, "'spectrum' has 2 rows and targetid 3"),
        ({"redshift": lambda x: np.append(x, 0.2)}, "'redshift' has 4 rows and targetid 3"),
        ({"ivar": lambda x: 0 * x}, "the spectrum of TARGETID 39627000000000000 has no valid bin"),
        ({"ebv": lambda x: np.ma.array([1, 2, 3], mask=[0, 1, 0])}, "'ebv' has masked int64 values; fill them"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(observed, change, said):
    spectra, folder, path = observed
    spectra = {name: change.get(name, np.asarray)(values) for name, values in spectra.items()}
    with pytest.raises(InputError, match=said):
        surveys.pairs_from_survey(spectra, surveys.cutouts_in(folder), path)
    assert not path.exists()


def test_columns_are_written_as_a_pairs_file_takes_them(observed):
    """Text as bytes, masked numbers as unknown, masked flux as masked, and no redshift as an unknown one."""
    spectra, folder, path = observed
    del spectra["redshift"]
    spectra["field"] = np.array(["north", "south", "south"])
    spectra["ebv"] = np.ma.array([0.1, 0.2, 0.3], mask=[0, 0, 1])
    spectra["spectrum"] = np.where(np.arange(7781) < 9, np.nan, spectra["spectrum"])
    spectra["ivar"] = np.where(np.arange(7781) < 9, 0, spectra["ivar"])
    surveys.pairs_from_survey(spectra, surveys.cutouts_in(folder), path)
    with open_pairs(path) as pairs:
        assert pairs.catalogue["field"].tolist() == [b"north", b"south"]
        np.testing.assert_array_equal(pairs.catalogue["ebv"], [0.1, np.nan])
        assert np.isnan(pairs.catalogue["redshift"]).all()
        assert (pairs.read("spectrum", [0])[0, :9] == 0).all()


def test_a_galaxy_with_a_bad_cutout_is_left_out(observed):
    spectra, folder, path = observed
    whole = (folder / "39627000000000002.fits").read_bytes()
    (folder / "39627000000000002.fits").write_bytes(whole[:50_000])
    with pytest.warns(UserWarning, match="1 of 2 cut-outs are left out.* .*39627000000000002.fits is cut off"):
        report = surveys.pairs_from_survey(spectra, surveys.cutouts_in(folder), path)
    assert report == {"pairs": 1, "without_image": 1, "without_spectrum": 1, "unusable_image": 1}
    with open_pairs(path) as pairs:
        assert pairs.targetid.tolist() == [39627000000000000]
    path.unlink()
    (folder / "39627000000000000.fits").write_text("no overlap")  # the service's answer outside of the survey
    with pytest.raises(InputError, match="None of 2 cut-outs can be used, the first since .*000.fits is not"):
        surveys.pairs_from_survey(spectra, surveys.cutouts_in(folder), path)
    assert not path.exists()
    (folder / "39627000000000002.fits").write_bytes(whole)
    with pytest.raises(InputError, match="None of 3 spectra has a cut-out"):
        surveys.pairs_from_survey(spectra, {1: path}, path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        surveys.cutouts_in(folder / "nowhere")
