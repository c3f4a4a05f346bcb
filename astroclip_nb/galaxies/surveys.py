"""Spectra and images of real galaxies, from FITS files of DESI and the Legacy Surveys."""

import re
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .fits_files import columns_of, data_of, integers, numbers, open_fits
from .pairs import BANDS, EXTINCTION, IMAGE_SIZE, PIXEL_SCALE, WAVELENGTH, create_pairs
from .resampling import combine, on_grid, overlap, resample, valid

ARMS = ("B", "R", "Z")
MAGNITUDES = {  # column -> the flux in FIBERMAP, and its band
    "mag_g": ("FLUX_G", "g"),
    "mag_r": ("FLUX_R", "r"),
    "mag_z": ("FLUX_Z", "z"),
    "fibre_mag_r": ("FIBERFLUX_R", "r"),
}


def read_spectra(path, redshifts=None):
    """Galaxy spectra of a FITS file on the pairs grid; the layout is recognised.

    A DESI coadd (see :func:`read_desi_coadd`), or one table with a WAVELENGTH column and a column
    TARGET<TARGETID> of flux for each galaxy (see :func:`read_spectrum_table`). ``redshifts`` is the redrock
    or zbest file of the same targets. Returns a dict of arrays, N galaxies: ``targetid`` (N,) int64,
    ``spectrum`` and its inverse variance ``ivar`` (N, 7781) float32 in 1e-17 erg/s/cm2/A, ``redshift`` (N,)
    float32, NaN where unknown; everything else is a catalogue column (N,). Targets without a single valid bin are
    left out, with a warning that names them. Raises InputError for anything unreadable.
    """
    with open_fits(path) as file:
        names = {hdu.name for hdu in file}
        table = any("WAVELENGTH" in columns_of(hdu) for hdu in file)
    if names & {f"{arm}_FLUX" for arm in ARMS}:
        return read_desi_coadd(path, redshifts)
    if table:
        return read_spectrum_table(path, redshifts)
    raise InputError(
        f"{path} holds the HDUs {', '.join(sorted(names))}, expected those of a DESI coadd (B_FLUX, ...) or "
        "a table with columns WAVELENGTH and TARGET<TARGETID>; check the file."
    )


def read_files(paths, redshifts=()):
    """:func:`read_spectra` of several files, each with its table of ``redshifts`` ("" for none), as one dict.

    Has targetid, spectrum, ivar and redshift alone; of a galaxy in several files the first is taken.
    """
    redshifts = redshifts or [""] * len(paths)
    if len(redshifts) != len(paths):
        raise InputError(
            f'{len(paths)} files of spectra and {len(redshifts)} of redshifts; give one for each, or "".'
        )
    parts = [read_spectra(path, table or None) for path, table in zip(paths, redshifts, strict=True)]
    names = ("targetid", "spectrum", "ivar", "redshift")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in names}
    rows = np.sort(np.unique(joined["targetid"], return_index=True)[1])
    return {name: values[rows] for name, values in joined.items()}


def read_desi_coadd(coadd, redrock=None):
    """Spectra of a DESI coadd file, its arms combined by inverse variance; a dict as in :func:`read_spectra`.

    The arms share one grid of 0.8 A from 3600 A and overlap; an arm on another grid is resampled. Masked bins
    get ivar 0. Kept are science targets (OBJTYPE TGT) and, with ``redrock``, those with SPECTYPE GALAXY and
    ZWARN 0. Further columns, where FIBERMAP has E(B-V): ebv, and mag_g, mag_r, mag_z (total), fibre_mag_r, AB
    corrected for the extinction of the Milky Way. Data model: https://desidatamodel.readthedocs.io.
    """
    with open_fits(coadd) as file:
        fibermap = data_of(coadd, file, "FIBERMAP")
        targetid = integers(coadd, fibermap, "TARGETID")
        arms = [_arm(coadd, file, arm, len(fibermap)) for arm in ARMS]
        wavelength = np.concatenate([arm[0] for arm in arms])
        flux, ivar = (np.concatenate([arm[k] for arm in arms], axis=1) for k in (1, 2))
    _warn_not_finite(coadd, (flux + ivar)[ivar != 0])
    spectrum, ivar = combine(wavelength, flux, ivar)
    catalogue = {}
    if "EBV" in fibermap.names:
        ebv = numbers(coadd, fibermap, "EBV")
        catalogue["ebv"] = ebv.astype(np.float32)
        for name, (column, band) in MAGNITUDES.items():
            if column in fibermap.names:
                catalogue[name] = _magnitude(numbers(coadd, fibermap, column), EXTINCTION[band] * ebv)
    science = fibermap["OBJTYPE"] == "TGT" if "OBJTYPE" in fibermap.names else targetid > 0
    spectra = {"targetid": targetid, "spectrum": spectrum, "ivar": ivar, **catalogue}
    return _galaxies(coadd, {name: values[science] for name, values in spectra.items()}, redrock)


def read_spectrum_table(path, redshifts=None):
    """Spectra of a table with columns WAVELENGTH (A) and TARGET<TARGETID>; a dict as in :func:`read_spectra`.

    Rows at the same wavelength, from overlapping arms, are averaged; another grid than the pairs grid is
    resampled. The table knows no errors: ``ivar`` is estimated from the scatter between neighbouring bins
    (`spectra.estimated_ivar`), which sees little of the noise of a spectrum that was smoothed.
    """
    import torch

    from .spectra import estimated_ivar

    with open_fits(path) as file:
        number = next((i for i, hdu in enumerate(file) if "WAVELENGTH" in columns_of(hdu)), None)
        table = None if number is None else data_of(path, file, number)
        names = [name for name in getattr(table, "names", ()) if re.fullmatch(r"TARGET\d+", name)]
        if not names or not len(table):
            raise InputError(f"{path}: no table with columns WAVELENGTH and TARGET<TARGETID>; check the file.")
        wavelength = numbers(path, table, "WAVELENGTH").astype(float)
        flux = np.stack([numbers(path, table, name).astype(float) for name in names])
    _warn_not_finite(path, flux)
    if on_grid(wavelength):
        spectrum, known = combine(wavelength, flux, np.ones_like(flux))
    else:
        spectrum, known = _resample(path, wavelength, flux)
    ivar = np.where(known > 0, estimated_ivar(torch.from_numpy(spectrum)).numpy(), 0)
    targetid = np.array([int(name.removeprefix("TARGET")) for name in names])
    return _galaxies(path, {"targetid": targetid, "spectrum": spectrum, "ivar": ivar}, redshifts)


def read_legacy_cutout(path, size=IMAGE_SIZE):
    """Image (3, size, size) float32 of a Legacy Surveys FITS cut-out, nanomaggies/pixel in g, r, z.

    The middle is kept: larger cut-outs are cropped around it, smaller ones padded with zeros, the sky; an odd
    number of pixels to spare leaves the larger half at the far side. A pixel scale that differs from 0.262
    arcsec by more than 0.5 % is resampled: keeping the flux where BUNIT says that pixels hold nanomaggies. The
    viewer's cut-outs have no BUNIT; they are interpolated from pixels of 0.262 arcsec, whose flux their values
    still are, so there it is the surface brightness that is kept. Raises InputError where a band is missing, the
    file is cut off, pixels are not finite (no mask goes with an image, so they cannot be told from sky), or a band
    is zero everywhere: the place was never observed in it, whatever a tower would make of that.
    """
    with open_fits(path) as file:
        number = next((i for i, hdu in enumerate(file) if hdu.header.get("NAXIS") == 3), 0)  # 1 where compressed
        header, image = file[number].header, data_of(path, file, number)
        bands, unit = str(header.get("BANDS", "")), str(header.get("BUNIT", "nanomaggy"))
        if image.ndim != 3 or len(image) != len(bands):
            raise InputError(
                f"{path}: an image of shape {image.shape} with BANDS = {bands!r}, expected (3, ny, nx) with 'grz'."
            )
        if "nanomagg" not in unit.lower():
            raise InputError(f"{path}: BUNIT = {unit!r}, expected nanomaggy; convert the image.")
        missing = [band for band in BANDS if band not in bands]
        if missing:
            raise InputError(f"{path}: BANDS = {bands!r} lacks {', '.join(missing)}; fetch the cut-out in grz.")
        image = image[[bands.index(band) for band in BANDS]].astype(np.float32)
        scale = _pixel_scale(path, header)
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise InputError(f"{path}: {bad} of {image.size} pixels are not finite; fetch the cut-out again.")
    if abs(scale / PIXEL_SCALE - 1) > 0.005:
        own_pixel = 1 if "BUNIT" in header else (scale / PIXEL_SCALE) ** 2
        image = _rescale(own_pixel * image, scale, size)
    short = [max(0, size - count) for count in image.shape[1:]]
    image = np.pad(image, [(0, 0), *((count // 2, count - count // 2) for count in short)])
    y, x = ((count - size) // 2 for count in image.shape[1:])
    image = image[:, y : y + size, x : x + size]
    dark = [band for band, plane in zip(BANDS, image, strict=True) if not plane.any()]
    if dark:
        raise InputError(
            f"{path}: every pixel is zero in {', '.join(dark)}, of which the survey has no image there; leave this "
            "galaxy out."
        )
    return image


def cutouts_in(folder):
    """Cut-outs of a folder by galaxy, {TARGETID: path}: the FITS files, compressed or not, named <TARGETID>."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the cut-outs, <TARGETID>.fits.")
    named = (
        (re.fullmatch(r"(\d+)\.fits?(\.gz|\.fz)?", path.name.lower()), path) for path in Path(folder).iterdir()
    )
    return dict(sorted((int(name[1]), path) for name, path in named if name))


def pairs_from_survey(spectra, cutouts, path, *, image_size=IMAGE_SIZE, origin="desi", progress=True):
    """Write a pairs file of the galaxies that have both a spectrum and a cut-out, matched by TARGETID.

    spectra : what :func:`read_spectra` returns; cutouts : {TARGETID: path}, see :func:`cutouts_in`. Galaxies whose
    cut-out cannot be used are left out, with a warning. Returns {"pairs", "without_image", "without_spectrum",
    "unusable_image"}, the number of each. Raises InputError where none is left, where the columns of ``spectra``
    have different lengths or a spectrum has no valid bin.
    """
    spectra = _as_columns(spectra)
    matched = [row for row, targetid in enumerate(spectra["targetid"].tolist()) if targetid in cutouts]
    if not matched:
        raise InputError(f"None of {len(spectra['targetid'])} spectra has a cut-out; name them <TARGETID>.fits.")
    paths = {row: cutouts[int(spectra["targetid"][row])] for row in matched}
    rows = _with_usable_image(paths, image_size, progress)
    arrays = ("spectrum", "ivar", "targetid")
    columns = {name: values.dtype for name, values in spectra.items() if name not in arrays}
    options = {"image_size": image_size, "columns": columns, "origin": origin, "resume": False}
    with create_pairs(path, len(rows), **options) as writer:
        for row in tqdm(rows, desc="pairs", unit="galaxy", disable=not progress):
            image = read_legacy_cutout(paths[row], image_size)
            one = {name: values[row : row + 1] for name, values in spectra.items()}
            writer.write(writer.done, {"image": image[None], **one})
        writer.finish()
    return {
        "pairs": len(rows),
        "without_image": len(spectra["targetid"]) - len(matched),
        "without_spectrum": len(cutouts) - len(matched),
        "unusable_image": len(matched) - len(rows),
    }


def _with_usable_image(paths, image_size, progress):
    """Those rows of {row: path of a cut-out} whose image can be read; a warning counts the others.

    They are read once more to be written: a pairs file is begun with the number of its galaxies.
    """
    rows, unusable = [], []
    for row, path in tqdm(paths.items(), desc="cut-outs checked", unit="galaxy", disable=not progress):
        try:
            read_legacy_cutout(path, image_size)
            rows.append(row)
        except InputError as error:
            unusable.append(str(error))
    if not rows:
        raise InputError(f"None of {len(paths)} cut-outs can be used, the first since {unusable[0]}")
    if unusable:
        told = " ".join(unusable[:3]) + (" ..." if len(unusable) > 3 else "")
        warnings.warn(
            f"{len(unusable)} of {len(paths)} cut-outs are left out, each with its galaxy: {told}", stacklevel=3
        )
    return rows


def _as_columns(spectra):
    """The arrays as a pairs file takes them, one row for each galaxy; ``redshift`` NaN where it is not given."""
    n = len(spectra["targetid"])
    columns = {"redshift": np.full(n, np.nan, np.float32)}
    for name, values in spectra.items():
        values = np.ma.asarray(values)
        if len(values) != n:
            raise InputError(f"{name!r} has {len(values)} rows and targetid {n}; give one for each galaxy.")
        if values.dtype.kind == "f":
            values = values.filled(0 if name == "ivar" else np.nan)
        elif np.ma.is_masked(values):
            raise InputError(f"{name!r} has masked {values.dtype} values; fill them.")
        columns[name] = np.char.encode(values.data) if values.dtype.kind == "U" else np.asarray(values)
    known = valid(columns["spectrum"], columns["ivar"])
    if (empty := ~known.any(1)).any():
        raise InputError(f"the spectrum of TARGETID {columns['targetid'][empty][0]} has no valid bin; drop it.")
    for name in ("spectrum", "ivar"):  # what is masked need not be finite
        columns[name] = np.where(known, columns[name], 0)
    return columns


def read_redshifts(path):
    """Redshift table of a redrock or zbest file: targetid (M,), redshift (M,), galaxy (M,) bool.

    ``galaxy`` marks a secure redshift of a galaxy: SPECTYPE GALAXY and ZWARN 0.
    """
    needed = {"TARGETID", "Z", "ZWARN", "SPECTYPE"}
    with open_fits(path) as file:
        number = next((i for i, hdu in enumerate(file) if needed <= columns_of(hdu)), None)
        if number is None:
            raise InputError(f"{path}: no table with columns {', '.join(sorted(needed))}; give a redrock file.")
        table = data_of(path, file, number)
        targetid = integers(path, table, "TARGETID")
        redshift, warning = (numbers(path, table, name) for name in ("Z", "ZWARN"))
        galaxy = (table["SPECTYPE"] == "GALAXY") & (warning == 0)
        return targetid, redshift.astype(np.float32), galaxy


def _refuse_ambiguous(path, targetid, redshift):
    """A galaxy in several rows is none to choose from where they disagree."""
    order = np.lexsort((redshift, targetid))
    same = np.diff(targetid[order]) == 0
    if (apart := same & (np.diff(redshift[order]) > 1e-3)).any():
        raise InputError(
            f"{path}: TARGETID {targetid[order][1:][apart][0]} stands in several rows with different redshifts; "
            "keep one of them."
        )


def _galaxies(path, spectra, redshifts):
    """Add ``redshift`` to spectra and keep the galaxies; everything is kept where no redshifts are given."""
    spectra = _observed(path, spectra)
    targetid, count = np.unique(spectra["targetid"], return_counts=True)
    if (count > 1).any():
        raise InputError(
            f"{path}: TARGETID {targetid[count > 1][0]} occurs more than once, expected one spectrum for each; "
            "give the coadd file, in which DESI has combined the exposures."
        )
    targetid = spectra["targetid"]
    if redshifts is None:
        return {**spectra, "redshift": np.full(len(targetid), np.nan, np.float32)}
    identifiers, redshift, galaxy = read_redshifts(redshifts)
    galaxy &= np.isin(identifiers, targetid)
    _refuse_ambiguous(redshifts, identifiers[galaxy], redshift[galaxy])
    known = dict(zip(identifiers[galaxy].tolist(), redshift[galaxy].tolist(), strict=True))
    keep = np.array([identifier in known for identifier in targetid.tolist()], bool)
    if not keep.any():
        raise InputError(f"{redshifts}: none of the {len(targetid)} spectra in {path} is a galaxy with ZWARN 0.")
    spectra = {name: values[keep] for name, values in spectra.items()}
    spectra["redshift"] = np.array([known[t] for t in spectra["targetid"].tolist()], np.float32)
    return spectra


def _observed(path, spectra):
    """The spectra with a valid bin; of the others nothing is known, whatever a tower would make of them."""
    observed = (spectra["ivar"] > 0).any(1)
    if not observed.any():
        raise InputError(f"{path}: none of its {len(observed)} targets has a valid bin; give another file.")
    if not observed.all():
        missed = spectra["targetid"][~observed]
        named = ", ".join(map(str, missed[:5])) + (", ..." if len(missed) > 5 else "")
        warnings.warn(
            f"{path}: {len(missed)} of {len(observed)} targets are left out, no bin of theirs is valid: {named}.",
            stacklevel=5,
        )
    return {name: values[observed] for name, values in spectra.items()}


def _arm(path, file, arm, n):
    """Wavelength (m,), flux and ivar (n, m) of one arm, on the pairs grid; ivar 0 where masked."""
    names = [f"{arm}_{what}" for what in ("WAVELENGTH", "FLUX", "IVAR", "MASK")]
    arrays = wavelength, flux, ivar, mask = [data_of(path, file, name) for name in names]
    for name, data in zip(names, arrays, strict=True):
        expected = (n, wavelength.size) if data is not wavelength else (wavelength.size,)
        if data.shape != expected:
            raise InputError(f"{path}: {name} has shape {data.shape}, expected {expected}; download it again.")
    ivar = np.where(mask == 0, ivar, 0)
    if on_grid(wavelength):
        return wavelength, flux, ivar
    return WAVELENGTH, *_resample(path, wavelength, flux, ivar)


def _resample(path, *spectra):
    try:
        return resample(*spectra)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _magnitude(nanomaggies, extinction):
    """AB magnitudes (N,) float32 without ``extinction`` (N,), NaN where the flux is not positive."""
    flux = np.where(nanomaggies > 0, nanomaggies, np.nan)
    return (22.5 - 2.5 * np.log10(flux) - extinction).astype(np.float32)


def _warn_not_finite(path, flux):
    bad = int(flux.size - np.isfinite(flux).sum())
    if bad:
        warnings.warn(f"{path}: {bad} of {flux.size} bins are not finite; they are masked.", stacklevel=4)


def _pixel_scale(path, header):
    """Arcsec per pixel from the header's world coordinates."""
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if "CD1_1" not in header and "CDELT1" not in header:
        raise InputError(f"{path}: the header gives no pixel scale (CD1_1 or CDELT1); fetch the cut-out again.")
    try:
        sides = 3600 * proj_plane_pixel_scales(WCS(header, naxis=2))
        scale = float(np.mean(sides))
    except ValueError:  # no numbers, or a matrix that maps the sky to a line
        sides = scale = np.nan
    if not 0.01 < scale < 10:
        raise InputError(
            f"{path}: the header gives a pixel scale of {scale:g} arcsec, expected about {PIXEL_SCALE}; fetch the "
            "cut-out again."
        )
    if np.ptp(sides) > 0.01 * scale:
        raise InputError(
            f"{path}: pixels of {sides[0]:.3f} x {sides[1]:.3f} arcsec, expected square ones; resample it."
        )
    return scale


def _rescale(image, scale, size):
    """Image (3, ny, nx) of ``scale`` arcsec pixels as (3, size, size) of 0.262 around the same middle.

    The flux of each pixel is shared among the new ones in proportion to area.
    """

    def share(count):
        edges, new_edges = ((np.arange(n + 1) - n / 2) * s for n, s in ((count, scale), (size, PIXEL_SCALE)))
        return overlap(edges, new_edges).toarray() / scale

    return (share(image.shape[1]) @ image @ share(image.shape[2]).T).astype(np.float32)
