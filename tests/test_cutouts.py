"""Cut-outs of the Legacy Surveys: a real one where it is at hand, small ones in its layout otherwise."""

import numpy as np
import pytest
from astropy.io import fits
from scipy.special import erf

from astroclip_nb.errors import InputError
from astroclip_nb.galaxies import surveys


def write_cutout(path, image, bands="grz", scale=0.262):
    header = fits.Header({"BANDS": bands, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"})
    header.update(CD1_1=-scale / 3600, CD2_2=scale / 3600, CD1_2=0.0, CD2_1=0.0)
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(path)
    return path


def test_real_cutout(shared_data):
    path = shared_data / "legacy-grz-225px.fits"
    image = surveys.read_legacy_cutout(path)
    assert image.dtype == np.float32 and image.shape == (3, 152, 152)
    np.testing.assert_array_equal(image, fits.getdata(path)[:, 36:188, 36:188])
    for band in image:  # the galaxy is in the middle
        assert np.unravel_index(band.argmax(), band.shape) == (76, 76)
    padded = surveys.read_legacy_cutout(path, 300)
    np.testing.assert_array_equal(padded[:, 37:262, 37:262], fits.getdata(path))
    assert padded[:, :37].any() == padded[:, :, 262:].any() == False  # noqa: E712
    with pytest.raises(InputError, match="cut off in the middle"):
        surveys.read_legacy_cutout(shared_data / "legacy-grz-truncated.fits")


def test_bands_are_found_by_name(tmp_path):
    image = np.arange(5, dtype=float)[:, None, None] * np.ones((5, 160, 160))
    found = surveys.read_legacy_cutout(write_cutout(tmp_path / "a.fits", image, "ugriz"))
    np.testing.assert_array_equal(found[:, 0, 0], [1, 2, 4])
    with pytest.raises(InputError, match="'gri' lacks z"):
        surveys.read_legacy_cutout(write_cutout(tmp_path / "b.fits", image[:3], "gri"))
    with pytest.raises(InputError, match=r"shape \(3, 160, 160\) with BANDS = 'gr'"):
        surveys.read_legacy_cutout(write_cutout(tmp_path / "c.fits", image[:3], "gr"))
    fits.PrimaryHDU(image[:3], fits.Header({"BANDS": "grz"})).writeto(tmp_path / "d.fits")
    with pytest.raises(InputError, match="no pixel scale"):
        surveys.read_legacy_cutout(tmp_path / "d.fits")
    for number, scale in enumerate([0, 0.262 * 3600]):  # the second: arcsec where degrees belong
        path = write_cutout(tmp_path / f"{number}.fits", image[:3], scale=scale)
        with pytest.raises(InputError, match="header gives a pixel scale of .* expected about 0.262"):
            surveys.read_legacy_cutout(path)


def gaussian(size, scale, sigma=1.2, offset=0.9):
    """Light of a Gaussian (sigma and offset in arcsec, flux 1) falling in each pixel, analytic."""
    edges = (np.arange(size + 1) - size / 2) * scale

    def share(centre):
        return np.diff(erf((edges - centre) / sigma / np.sqrt(2))) / 2

    return np.outer(share(-offset), share(offset))


@pytest.mark.parametrize("scale, size", [(0.131, 320), (0.2359, 200), (0.4, 110)])
def test_other_pixel_scale_keeps_flux_and_place(tmp_path, scale, size):
    image = np.array([1, 2, 5])[:, None, None] * gaussian(size, scale)
    path = write_cutout(tmp_path / "a.fits", image, scale=scale)
    fits.setval(path, "BUNIT", value="nanomaggy")
    found = surveys.read_legacy_cutout(path)
    assert found.shape == (3, 152, 152)
    np.testing.assert_allclose(found.sum((1, 2)), [1, 2, 5], rtol=1e-5)
    x = (np.arange(152) - 75.5) * 0.262
    assert (found[0].sum(0) * x).sum() == pytest.approx(0.9, abs=1e-3)
    assert (found[0].sum(1) * x).sum() == pytest.approx(-0.9, abs=1e-3)
    truth = gaussian(152, 0.262)
    assert np.abs(found[0] - truth).max() < 0.1 * truth.max()


@pytest.mark.parametrize("scale", [0.131, 0.4, 0.524])
def test_the_viewers_cutouts_of_another_scale_keep_surface_brightness(tmp_path, scale):
    """It interpolates between pixels of 0.262 arcsec, so a sky of 1 nanomaggy per such pixel stays one of 1."""
    found = surveys.read_legacy_cutout(write_cutout(tmp_path / "a.fits", np.ones((3, 330, 330)), scale=scale))
    np.testing.assert_allclose(found, 1, rtol=1e-5)


def test_cutouts_are_found_and_read_compressed(tmp_path):
    image = np.random.default_rng(1).random((3, 160, 160)).astype(np.float32)
    plain = write_cutout(tmp_path / "1.fits", image)
    (tmp_path / "2.FITS").write_bytes(plain.read_bytes())
    write_cutout(tmp_path / "3.fits.gz", image)
    header = fits.getheader(plain)
    packed = fits.CompImageHDU(image, header, compression_type="GZIP_1", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "4.fits.fz")
    (tmp_path / "5.fits.txt").write_text("none")
    found = surveys.cutouts_in(tmp_path)
    assert list(found) == [1, 2, 3, 4]
    for path in found.values():
        np.testing.assert_array_equal(surveys.read_legacy_cutout(path), image[:, 4:156, 4:156])


def test_other_units_and_oblong_pixels_are_refused(tmp_path):
    path = write_cutout(tmp_path / "a.fits", np.ones((3, 160, 160)))
    fits.setval(path, "BUNIT", value="Jy")
    with pytest.raises(InputError, match="BUNIT = 'Jy', expected nanomaggy"):
        surveys.read_legacy_cutout(path)
    fits.setval(path, "BUNIT", value="nanomaggy")
    surveys.read_legacy_cutout(path)
    fits.setval(path, "CD2_2", value=2 * 0.262 / 3600)
    with pytest.raises(InputError, match="pixels of 0.262 x 0.524 arcsec, expected square ones"):
        surveys.read_legacy_cutout(path)


def test_pixels_that_are_not_finite_are_refused(tmp_path):
    image = np.ones((3, 160, 160))
    image[1, 3, :2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 76800 pixels are not finite"):
        surveys.read_legacy_cutout(write_cutout(tmp_path / "a.fits", image))
    with pytest.raises(InputError, match="76800 of 76800 pixels are not finite"):
        surveys.read_legacy_cutout(write_cutout(tmp_path / "b.fits", np.full((3, 160, 160), np.nan)))


def test_places_that_were_never_observed_are_refused(tmp_path):
    """The cut-out service answers with zeros there; the sky of an observed place is noise around zero."""
    image = np.random.default_rng(0).normal(0, 0.01, (3, 160, 160))
    surveys.read_legacy_cutout(write_cutout(tmp_path / "sky.fits", image))
    image[2, 4:156, 4:156] = 0  # observed at the edge alone
    with pytest.raises(InputError, match="edge.fits: every pixel is zero in z, .*; leave this galaxy out"):
        surveys.read_legacy_cutout(write_cutout(tmp_path / "edge.fits", image))
    for scale in (0.262, 0.4):
        path = write_cutout(tmp_path / f"{scale}.fits", np.zeros((3, 160, 160)), scale=scale)
        with pytest.raises(InputError, match="every pixel is zero in g, r, z"):
            surveys.read_legacy_cutout(path)
