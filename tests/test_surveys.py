"""Survey FITS files: real ones where they are at hand, small ones in their layouts otherwise."""

import numpy as np
import pytest
from astropy.io import fits

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import surveys
from astroclip_nb.galaxies.resampling import on_grid

COADD, REDROCK = "coadd-4-80613-thru20210324.fits", "redrock-4-80613-thru20210324.fits"
ARMS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}


# DESI


def test_real_coadd_against_its_arms(shared_data):
    found = surveys.read_spectra(shared_data / COADD, shared_data / REDROCK)
    assert found["targetid"].tolist() == [39633345008634465]
    assert found["redshift"][0] == pytest.approx(0.36874, abs=1e-5)
    dust = 2.165 * fits.getdata(shared_data / COADD, "FIBERMAP")["EBV"][0]
    assert found["mag_r"][0] == pytest.approx(22.5 - 2.5 * np.log10(5.947273) - dust, abs=1e-5)
    total, weight = np.zeros(7781), np.zeros(7781)
    with fits.open(shared_data / COADD) as file:
        for arm, (first, count) in ARMS.items():
            assert file[f"{arm}_WAVELENGTH"].data[0] == first and on_grid(file[f"{arm}_WAVELENGTH"].data)
            flux, ivar = (file[f"{arm}_{name}"].data[0].astype(float) for name in ("FLUX", "IVAR"))
            for j in range(count):
                k = round((first - 3600) / 0.8) + j
                total[k] += flux[j] * ivar[j]
                weight[k] += ivar[j]
    np.testing.assert_allclose(found["spectrum"][0], total / weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["ivar"][0], weight, rtol=1e-5)


def test_real_table_of_spectra(shared_data):
    path = shared_data / "desihigh-bgs-spectra.fits"
    found = surveys.read_spectra(path, shared_data / "desihigh-bgs-zbest.fits")
    np.testing.assert_allclose(found["redshift"], [0.12528, 0.08682, 0.10380, 0.18970, 0.25996], atol=1e-5)
    table = fits.getdata(path, 1)
    rows = {}
    for wavelength, flux in zip(table["WAVELENGTH"], table["TARGET35191325330508629"], strict=True):
        rows.setdefault(round((wavelength - 3600) / 0.8), []).append(flux)
    expected = [np.mean(rows[k]) for k in range(7781)]
    np.testing.assert_allclose(found["spectrum"][2], expected, rtol=1e-4, atol=1e-5)
    assert (found["ivar"] > 0).all() and np.isnan(surveys.read_spectra(path)["redshift"]).all()


def test_errors_of_a_table_without_any_are_those_of_its_scatter(tmp_path):
    flux = 3 + np.random.default_rng(0).normal(0, 0.5, 7781)
    flux[100:110] = np.nan
    columns = {"WAVELENGTH": 3600 + 0.8 * np.arange(7781), "TARGET5": flux}
    columns = [fits.Column(name, "D", array=values) for name, values in columns.items()]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "table.fits")
    with pytest.warns(UserWarning, match="10 of 7781 bins"):
        ivar = surveys.read_spectra(tmp_path / "table.fits")["ivar"][0]
    assert (ivar[100:110] == 0).all() and np.median(ivar) == pytest.approx(1 / 0.5**2, rel=0.1)


def write_coadd(path, n=4, without=(), **change):
    """A DESI coadd of n fibres, flux 2 and ivar 1 everywhere; ``change`` replaces HDUs."""
    targetid = 39627000000000000 + np.arange(n)
    columns = [
        fits.Column("TARGETID", "K", array=targetid),
        fits.Column("OBJTYPE", "3A", array=["TGT"] * (n - 1) + ["SKY"]),
        fits.Column("FLUX_G", "E", array=np.linspace(-1, 10, n)),
        fits.Column("EBV", "E", array=np.full(n, 0.1)),
    ]
    file = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="FIBERMAP")])
    for arm, (first, count) in ARMS.items():
        data = {
            "WAVELENGTH": first + 0.8 * np.arange(count),
            "FLUX": np.full((n, count), 2, np.float32),
            "IVAR": np.ones((n, count), np.float32),
            "MASK": np.zeros((n, count), np.int32),
        }
        for name, values in data.items():
            values = change.get(f"{arm}_{name}", values)
            file.append(fits.ImageHDU(values, name=f"{arm}_{name}"))
    fits.HDUList([hdu for hdu in file if hdu.name not in without]).writeto(path)
    return path


def write_redrock(path, targetid, **columns):
    n = len(targetid)
    values = {"Z": np.linspace(0.1, 0.4, n), "ZWARN": np.zeros(n, int), "SPECTYPE": ["GALAXY"] * n, **columns}
    formats = {"Z": "D", "ZWARN": "K", "SPECTYPE": "6A"}
    made = [fits.Column(name, formats[name], array=values[name]) for name in formats]
    made.append(fits.Column("TARGETID", "K", array=targetid))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made, name="REDSHIFTS")]).writeto(path)
    return path


def test_masked_bins_and_overlap(tmp_path):
    mask, flux = np.zeros((4, 2751), np.int32), np.full((4, 2326), 5, np.float32)
    mask[0, 10], mask[0, 2740] = 1, 4  # the second is where B and R overlap
    found = surveys.read_desi_coadd(write_coadd(tmp_path / "c.fits", B_MASK=mask, R_FLUX=flux))
    assert len(found["targetid"]) == 3 and np.isnan(found["redshift"]).all()
    spectrum, ivar = found["spectrum"][0], found["ivar"][0]
    assert ivar[10] == spectrum[10] == 0
    assert (ivar[2740], spectrum[2740]) == (1, 5)  # R alone
    assert (ivar[2741], spectrum[2741]) == (2, 3.5)
    flux = np.linspace(-1, 10, 4)[1:3]
    assert np.isnan(found["mag_g"][0])
    np.testing.assert_allclose(found["mag_g"][1:], 22.5 - 2.5 * np.log10(flux) - 0.3214, rtol=1e-5)


def write_edr(path, masked=False):
    """Five fibres as DESI's early data release has them: stuck ones, sky, a target never exposed, one observed.

    masked : as in its spectra files, where bins without data are masked, in compressed HDUs; in its coadds none is.
    """
    seen = np.array([False, False, False, False, True])
    targetid = [-1695072, 39633297352951412, -1695064, 616088619186127404, 39633300968442591]
    made = [
        fits.Column("TARGETID", "K", array=targetid),
        fits.Column("OBJTYPE", "3A", array=["", "TGT", "", "SKY", "TGT"]),
        fits.Column("FLUX_R", "E", array=[0, 0.45, 0, 0, 0.54]),
        fits.Column("FLUX_Z", "E", array=[0, 0.45, 0, 0, 0.0]),
        fits.Column("EBV", "E", array=[0, 0.01, 0, 0, 0.008]),
    ]
    file = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made, name="FIBERMAP")])
    file.append(fits.BinTableHDU.from_columns(made[:1], name="SCORES"))
    for arm, (first, count) in ARMS.items():
        mask = np.uint32(8 * masked) * np.tile(~seen[:, None], count)
        mask[4, 7] = 16
        file.append(fits.ImageHDU(first + 0.8 * np.arange(count), name=f"{arm}_WAVELENGTH"))
        file.append(fits.ImageHDU(np.outer(seen, np.ones(count)).astype(">f4"), name=f"{arm}_FLUX"))
        file.append(fits.ImageHDU(np.outer(4 * seen, np.ones(count)).astype(">f4"), name=f"{arm}_IVAR"))
        file.append((fits.CompImageHDU if masked else fits.ImageHDU)(mask, name=f"{arm}_MASK"))
        file.append(fits.ImageHDU(np.zeros((5, 11, count), np.float32), name=f"{arm}_RESOLUTION"))
    file.writeto(path)
    return path


@pytest.mark.parametrize("masked", [False, True])
def test_targets_without_a_valid_bin_are_left_out(tmp_path, masked):
    path = write_edr(tmp_path / "c.fits", masked)
    with pytest.warns(UserWarning, match="1 of 2 targets are left out, .*: 39633297352951412"):
        found = surveys.read_spectra(path)
    assert found["targetid"].tolist() == [39633300968442591] and found["spectrum"].shape == (1, 7781)
    assert (found["ivar"] == 0).sum() == 1 and found["ivar"][0, 7] == 0  # R and Z begin where B and R go on
    assert found["ebv"] == np.float32(0.008) and np.isnan(found["mag_z"]).all()
    assert found["mag_r"][0] == pytest.approx(22.5 - 2.5 * np.log10(0.54) - 2.165 * 0.008, abs=1e-5)
    with fits.open(path, mode="update") as file:
        for arm in ARMS:
            file[f"{arm}_IVAR"].data[:] = 0
    with pytest.raises(InputError, match="c.fits: none of its 2 targets has a valid bin"):
        surveys.read_spectra(path)


def test_only_secure_galaxies(tmp_path):
    targetid = 39627000000000000 + np.array([2, 0, 1, 99])
    types = ["GALAXY", "GALAXY", "STAR", "GALAXY"]
    path = write_redrock(tmp_path / "r.fits", targetid, SPECTYPE=types, ZWARN=[0, 4, 0, 0])
    found = surveys.read_spectra(write_coadd(tmp_path / "c.fits"), path)
    assert found["targetid"].tolist() == [39627000000000002] and found["redshift"] == np.float32(0.1)
    nothing = write_redrock(tmp_path / "n.fits", targetid, ZWARN=[1, 1, 1, 0])
    with pytest.raises(InputError, match="none of the 3 spectra in .* is a galaxy with ZWARN 0"):
        surveys.read_spectra(tmp_path / "c.fits", nothing)


def test_not_finite_bins_are_counted_and_masked(tmp_path):
    flux = np.full((4, 2751), 2, np.float32)
    flux[1, :3] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning, match="3 of 31832 bins are not finite"):
        found = surveys.read_desi_coadd(write_coadd(tmp_path / "c.fits", B_FLUX=flux))
    assert (found["ivar"][1, :3] == 0).all() and np.isfinite(found["spectrum"]).all()


def test_arm_on_another_grid_is_resampled(tmp_path):
    shifted = ARMS["Z"][0] + 0.3 + 0.8 * np.arange(2881)
    found = surveys.read_desi_coadd(write_coadd(tmp_path / "c.fits", Z_WAVELENGTH=shifted))
    np.testing.assert_allclose(found["spectrum"], 2, rtol=1e-6)
    assert (found["ivar"] > 0).all()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"without": ["R_IVAR"]}, "HDU R_IVAR is missing"),
        ({"without": ["FIBERMAP"]}, "HDU FIBERMAP is missing"),
        ({"B_FLUX": np.zeros((4, 2750), np.float32)}, r"B_FLUX has shape \(4, 2750\), expected \(4, 2751\)"),
        ({"B_FLUX": None}, "HDU B_FLUX is empty"),
        ({"R_WAVELENGTH": np.zeros((4, 2326))}, r"R_WAVELENGTH has shape \(4, 2326\), expected \(9304,\)"),
        ({"Z_WAVELENGTH": np.arange(2881.0)[::-1]}, "c.fits: Wavelengths have to be one increasing list"),
    ],
)
def test_coadd_with_something_wrong(tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        surveys.read_spectra(write_coadd(tmp_path / "c.fits", **options))


def test_files_that_are_no_spectra(tmp_path):
    (tmp_path / "empty.fits").write_bytes(b"")
    (tmp_path / "text.fits").write_text("no FITS\n" * 1000)
    whole = write_coadd(tmp_path / "whole.fits").read_bytes()
    for name, size in {"half.fits": 300_000, "header.fits": 4000}.items():
        (tmp_path / name).write_bytes(whole[:size])
    fits.PrimaryHDU(np.zeros((3, 9, 9))).writeto(tmp_path / "image.fits")
    said = {
        "empty.fits": "not a readable FITS",
        "text.fits": "not a readable FITS",
        "half.fits": "cut off in the middle|not a readable",
        "header.fits": "cut off in the middle|not a readable",
        "image.fits": "holds the HDUs PRIMARY",
        "none.fits": "does not exist",
    }
    for name, message in said.items():
        with pytest.raises(InputError, match=message):
            surveys.read_spectra(tmp_path / name)
    with pytest.raises(InputError, match="no table with columns SPECTYPE, TARGETID, Z, ZWARN"):
        surveys.read_spectra(tmp_path / "whole.fits", tmp_path / "image.fits")


@pytest.mark.filterwarnings("ignore")  # astropy's own, which differ from version to version
def test_damaged_fits_is_told_in_a_sentence(tmp_path):
    """What astropy raises on damaged bytes differs from place to place."""
    path = write_edr(tmp_path / "c.fits", masked=True)
    whole = path.read_bytes()
    with fits.open(path, disable_image_compression=True) as file:
        places = [file["B_MASK"].fileinfo()["datLoc"], file["FIBERMAP"].fileinfo()["hdrLoc"] + 80]
    for place, said in zip(
        places, ["HDU B_MASK cannot be read", "not a readable FITS|FIBERMAP is missing"], strict=True
    ):
        path.write_bytes(whole[:place] + b"\xff\x00" * 200 + whole[place + 400 :])
        with pytest.raises(InputError, match=said):
            surveys.read_spectra(path)


@pytest.mark.parametrize(
    "name, form, values, said",
    [
        ("TARGET5", "3A", ["abc"] * 9, "column TARGET5 holds <U3 of shape"),
        ("TARGET5", "2D", np.ones((9, 2)), r"column TARGET5 holds >f8 of shape \(9, 2\)"),
        ("TARGET5", "D", np.full(9, np.nan), "none of its 1 targets has a valid bin"),
        ("OTHER", "D", np.ones(9), "no table with columns WAVELENGTH and TARGET<TARGETID>"),
        ("TARGET5", "D", [], "no table with columns WAVELENGTH and TARGET<TARGETID>"),
    ],
)
@pytest.mark.filterwarnings("ignore:.* bins are not finite")
def test_tables_that_hold_no_spectra(tmp_path, name, form, values, said):
    columns = [
        fits.Column("WAVELENGTH", "D", array=3600 + 0.8 * np.arange(len(values))),
        fits.Column(name, form, array=values),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    with pytest.raises(InputError, match=f"t.fits: .*{said}"):
        surveys.read_spectra(tmp_path / "t.fits")


@pytest.mark.parametrize("scaled", [{}, {"TSCAL2": 0.01, "TZERO2": 5}])
def test_what_a_table_calls_null_is_masked(tmp_path, scaled):
    """astropy leaves the integer of TNULL in tables as it is."""
    stored = 1 + np.arange(7781) % 100
    stored[200:300] = -32768
    columns = [
        fits.Column("WAVELENGTH", "D", array=3600 + 0.8 * np.arange(7781)),
        fits.Column("TARGET5", "I", array=stored.astype(np.int16)),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "t.fits")
    for keyword, value in {"TNULL2": -32768, **scaled}.items():
        fits.setval(tmp_path / "t.fits", keyword, value=value, ext=1)
    with pytest.warns(UserWarning, match="100 of 7781 bins are not finite; they are masked"):
        found = surveys.read_spectra(tmp_path / "t.fits")
    expected = scaled.get("TSCAL2", 1) * stored + scaled.get("TZERO2", 0)
    assert np.array_equal(found["ivar"][0] > 0, stored != -32768)
    np.testing.assert_allclose(found["spectrum"][0], np.where(stored == -32768, 0, expected), atol=1e-5)


def test_a_targetid_called_null_is_refused(tmp_path):
    coadd, redrock = write_coadd(tmp_path / "c.fits"), write_redrock(tmp_path / "r.fits", np.arange(3))
    table = fits.getdata(redrock, 1)
    columns = [fits.Column("TARGETID", "K", array=table["TARGETID"], null=1)]
    columns += [column for column in table.columns if column.name != "TARGETID"]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "null.fits")
    with pytest.raises(InputError, match="null.fits: column TARGETID is unknown .TNULL. in some rows"):
        surveys.read_spectra(coadd, tmp_path / "null.fits")


def test_repeated_targetid_is_refused(tmp_path):
    path = write_coadd(tmp_path / "c.fits")
    with fits.open(path, mode="update") as file:
        file["FIBERMAP"].data["TARGETID"][:] = 7
    with pytest.raises(InputError, match="TARGETID 7 occurs more than once.* give the coadd file"):
        surveys.read_spectra(path)


def test_several_files_are_read_as_one(tmp_path):
    """Galaxies that are in two of them once, as the first has them."""
    paths = [write_coadd(tmp_path / "a.fits"), write_coadd(tmp_path / "b.fits", n=6)]
    redrock = write_redrock(tmp_path / "r.fits", 39627000000000000 + np.arange(3))
    found = surveys.read_files(paths, [redrock, ""])
    assert (found["targetid"] - 39627000000000000).tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found["redshift"], [0.1, 0.25, 0.4, np.nan, np.nan])
    assert found["spectrum"].shape == found["ivar"].shape == (5, 7781)
    assert np.isnan(surveys.read_files(paths)["redshift"]).all()
    with pytest.raises(InputError, match="2 files of spectra and 1 of redshifts"):
        surveys.read_files(paths, [redrock])


def test_targetids_as_floats_are_refused(tmp_path):
    """They would be those of other galaxies, whose redshifts these are not."""
    coadd = write_coadd(tmp_path / "c.fits")
    redrock = write_redrock(tmp_path / "r.fits", 39627000000000000 + np.arange(3))
    table = fits.getdata(redrock, 1)
    columns = [fits.Column("TARGETID", "D", array=table["TARGETID"].astype(float))]
    columns += [column for column in table.columns if column.name != "TARGETID"]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "float.fits")
    with pytest.raises(InputError, match="float.fits: column TARGETID holds >f8, which loses the last digits"):
        surveys.read_spectra(coadd, tmp_path / "float.fits")


def test_a_galaxy_with_two_redshifts_is_refused(tmp_path):
    coadd = write_coadd(tmp_path / "c.fits")
    targetid = 39627000000000000 + np.array([0, 1, 1])
    same = write_redrock(tmp_path / "same.fits", targetid, Z=np.array([0.1, 0.2, 0.2002]))
    np.testing.assert_allclose(surveys.read_spectra(coadd, same)["redshift"], [0.1, 0.2], atol=1e-3)
    warned = write_redrock(
        tmp_path / "warned.fits", targetid, Z=np.array([0.1, 0.2, 1.5]), ZWARN=np.array([0, 0, 4])
    )
    np.testing.assert_allclose(surveys.read_spectra(coadd, warned)["redshift"], [0.1, 0.2])
    other = write_redrock(
        tmp_path / "other.fits", np.append(targetid[:2], [7, 7]), Z=np.array([0.1, 0.2, 0.1, 0.4])
    )
    np.testing.assert_allclose(surveys.read_spectra(coadd, other)["redshift"], [0.1, 0.2])  # 7 is not asked for
    two = write_redrock(tmp_path / "two.fits", targetid, Z=np.array([0.1, 0.2, 1.5]))
    with pytest.raises(InputError, match="two.fits: TARGETID 39627000000000001 stands in several rows"):
        surveys.read_spectra(coadd, two)
