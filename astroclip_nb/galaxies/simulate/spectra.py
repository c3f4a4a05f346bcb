"""What the fibre sees before noise: stars and gas at their redshift, on DESI's wavelength grid."""

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

from ..pairs import WAVELENGTH
from .instrument import PIXEL, RESOLUTION
from .lines import IS_BROAD, LINE_WAVELENGTH
from .population import LEAST_DISPERSION, LIBRARY_DISPERSION
from .stars import component_spectra, sphere
from .tables import PIXEL_VELOCITY, SOLAR_LUMINOSITY, SPEED_OF_LIGHT, milky_way_attenuation, tables


def fibre_spectra(galaxies, fibre_fraction):
    """Noiseless spectra (n, 7781) float32, 1e-17 erg/s/cm2/A.

    ``fibre_fraction`` (n, 3) is the share of bulge, old disc and young disc that counts: ones give the light
    of the whole galaxy. The nucleus, a point source, always counts fully, as DESI calibrates its flux on
    stars.
    """
    fibre_fraction = np.asarray(fibre_fraction, np.float32)
    table = tables()
    components = component_spectra(galaxies, table.wavelength, table.ssp)
    stars = np.einsum("ncw,nc->nw", components, fibre_fraction)
    stars = broaden(stars, galaxies["velocity_dispersion"])
    observed = to_observed_grid(stars, galaxies["redshift"])
    weights = np.column_stack([fibre_fraction, np.ones(len(fibre_fraction), np.float32)])
    lines = np.einsum("ncl,nc->nl", galaxies["line_luminosity"], weights)
    observed += line_profiles(galaxies, lines)
    observed *= milky_way_attenuation(WAVELENGTH, galaxies["ebv"][:, None])
    return (observed * (1e17 / sphere(galaxies["redshift"]))[:, None]).astype(np.float32)


def broaden(spectra, dispersion):
    """Rest-frame ``spectra`` (n, n_lambda) broadened to ``dispersion`` (n,) km/s: Gaussians, by FFT.

    The wavelengths are logarithmic, so that a velocity is a number of pixels everywhere. The library's own
    dispersion counts, so no spectrum comes out sharper than ``population.LEAST_DISPERSION``.
    """
    dispersion = np.maximum(dispersion, LEAST_DISPERSION)
    extra = np.sqrt(dispersion**2 - LIBRARY_DISPERSION**2) / PIXEL_VELOCITY
    n = spectra.shape[1]
    length = fft.next_fast_len(n + 100, real=True)  # 100 pixels of edge keep the two ends apart
    padded = np.pad(spectra, ((0, 0), (0, length - n)), mode="edge")
    frequency = 2 * np.pi * fft.rfftfreq(length)
    kernel = np.exp(-0.5 * (extra[:, None] * frequency) ** 2).astype(np.float32)
    return fft.irfft(fft.rfft(padded) * kernel, length)[:, :n]


def to_observed_grid(spectra, redshift):
    """Rest-frame Lsun/A (n, n_lambda) to erg/s/A on the observed grid, at the instrument's resolution."""
    wavelength = tables().wavelength
    observed = np.empty((len(spectra), len(WAVELENGTH)))
    for row, stretch, spectrum in zip(observed, 1 + redshift, spectra, strict=True):
        row[:] = np.interp(WAVELENGTH / stretch, wavelength, spectrum)
        row *= SOLAR_LUMINOSITY / stretch
    return gaussian_filter1d(observed, RESOLUTION / PIXEL, axis=1)


def line_profiles(galaxies, luminosity):
    """Emission lines as erg/s/A (n, 7781), from their ``luminosity`` (n, n_lines) in erg/s.

    Each is a Gaussian of the gas's dispersion and the instrument's, integrated over the pixels, so that its
    light is kept however narrow it is.
    """
    out = np.zeros((len(luminosity), len(WAVELENGTH)))
    edges = WAVELENGTH[0] + PIXEL * (np.arange(len(WAVELENGTH) + 1) - 0.5)
    for i, rest in enumerate(LINE_WAVELENGTH):
        centre = rest * (1 + galaxies["redshift"])
        dispersion = galaxies["broad_dispersion" if IS_BROAD[i] else "gas_dispersion"]
        width = np.hypot(dispersion / SPEED_OF_LIGHT * centre, RESOLUTION)
        first = np.searchsorted(edges, centre - 6 * width)
        last = np.searchsorted(edges, centre + 6 * width)
        for row in np.flatnonzero((luminosity[:, i] > 0) & (last - first > 1)):
            pixels = slice(first[row], last[row])
            share = 0.5 * erf((edges[pixels] - centre[row]) / (np.sqrt(2) * width[row]))
            out[row, first[row] : last[row] - 1] += luminosity[row, i] / PIXEL * np.diff(share)
    return out
