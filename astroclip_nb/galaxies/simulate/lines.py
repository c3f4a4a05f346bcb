"""Emission lines: which there are, and how bright, from young stars, old stars and active nuclei."""

import numpy as np

# Rest-frame vacuum wavelengths in Angstrom (NIST). The last two are the broad lines of type 1 nuclei.
LINES = {
    "oii_3727": 3727.09,
    "oii_3729": 3729.88,
    "neiii_3869": 3869.86,
    "h8": 3890.15,
    "hepsilon": 3971.20,
    "hdelta": 4102.89,
    "hgamma": 4341.68,
    "hbeta": 4862.68,
    "oiii_4960": 4960.30,
    "oiii_5008": 5008.24,
    "hei_5877": 5877.25,
    "oi_6302": 6302.05,
    "oi_6365": 6365.54,
    "nii_6549": 6549.85,
    "halpha": 6564.61,
    "nii_6585": 6585.27,
    "sii_6718": 6718.29,
    "sii_6732": 6732.67,
    "ariii_7137": 7137.80,
    "siii_9071": 9071.10,
    "siii_9533": 9533.20,
    "broad_hbeta": 4862.68,
    "broad_halpha": 6564.61,
}
LINE_NAMES = list(LINES)
LINE_WAVELENGTH = np.array(list(LINES.values()))
IS_BROAD = np.array([name.startswith("broad") for name in LINES])
BALMER_DECREMENT = 2.86  # Halpha / Hbeta, case B, 10^4 K (Osterbrock & Ferland 2006)

# log10 ratios as polynomials in x = 12 + log10 O/H - 8.69: Curti et al. (2020), table 2.
CURTI_N2 = (-0.489, 1.513, -2.554, -5.293, -2.867)  # [NII] 6585 / Halpha
CURTI_R3 = (-0.277, -3.549, -3.593, -0.981)  # [OIII] 5008 / Hbeta
CURTI_R2 = (0.435, -1.362, -5.655, -4.851, -0.478, 0.736)  # [OII] 3727 + 3729 / Hbeta
CURTI_S2 = (-0.442, -0.360, -6.271, -8.339, -3.559)  # [SII] 6718 + 6732 / Halpha

HALPHA_PER_SFR = 10**41.27  # erg/s per Msun/yr: Kennicutt & Evans (2012), table 1


def line_ratios(n2, r3, r2, s2, o1):
    """Luminosities relative to Halpha, (n, n_lines), from five ratios (n,).

    n2 [NII] 6585 / Halpha, r3 [OIII] 5008 / Hbeta, r2 [OII] / Hbeta, s2 [SII] / Halpha, o1 [OI] 6302 /
    Halpha. Balmer lines: case B. Doublets: their atomic ratios, the density-dependent ones ([OII], [SII])
    at about 70 electrons per cm3.
    """
    hbeta = 1 / BALMER_DECREMENT
    ratio = {
        "halpha": 1.0,
        "hbeta": hbeta,
        "hgamma": 0.468 * hbeta,
        "hdelta": 0.259 * hbeta,
        "hepsilon": 0.159 * hbeta,
        "h8": 0.105 * hbeta,
        "hei_5877": 0.034,
        "nii_6585": n2,
        "nii_6549": n2 / 3.06,
        "oiii_5008": r3 * hbeta,
        "oiii_4960": r3 * hbeta / 2.98,
        "oii_3727": r2 * hbeta * 0.426,
        "oii_3729": r2 * hbeta * 0.574,
        "neiii_3869": r3 * hbeta * 0.08,
        "sii_6718": s2 * 0.575,
        "sii_6732": s2 * 0.425,
        "oi_6302": o1,
        "oi_6365": o1 / 3,
        "ariii_7137": 0.03,
        "siii_9071": 0.12,
        "siii_9533": 0.12 * 2.47,
    }
    return np.stack([np.broadcast_to(ratio.get(name, 0.0), np.shape(n2)) for name in LINE_NAMES], axis=-1)


def star_forming_ratios(oxygen_abundance, scatter):
    """Ratios of HII regions, (n, n_lines); ``scatter`` (n, 5) in dex."""
    x = oxygen_abundance - 8.69
    calibrations = (CURTI_N2, CURTI_R3, CURTI_R2, CURTI_S2, (-1.6,))
    values = [
        10 ** (np.polynomial.polynomial.polyval(x, coefficients) + scatter[:, i])
        for i, coefficients in enumerate(calibrations)
    ]
    return line_ratios(*values)


def shifted_ratios(log_ratios, scatter):
    """Ratios around fixed log10 values of (n2, r3, r2, s2, o1), (n, n_lines); ``scatter`` (n, 5) in dex."""
    return line_ratios(*10 ** (np.array(log_ratios) + scatter).T)


def line_luminosities(galaxies, old_continuum):
    """Line luminosities in erg/s after dust, (n, 4, n_lines): bulge, old disc, young disc, nucleus.

    Young disc: Halpha from the star-formation rate (Kennicutt & Evans 2012). Bulge and old disc: the weak,
    LINER-like lines of retired galaxies (Cid Fernandes et al. 2011), Halpha's equivalent width about 0.8 A on
    ``old_continuum``, (n, 2) erg/s/A at 6565 A of bulge and old disc. Nucleus: Seyfert ratios scaled to
    [OIII] 5008, and broad Balmer lines.
    """
    scatter = galaxies["line_scatter"]
    forming = star_forming_ratios(galaxies["oxygen_abundance"], scatter)
    retired = shifted_ratios((0.05, 0.25, 0.6, -0.05, -0.75), scatter * (1.2, 2, 1.5, 1, 1))
    seyfert = shifted_ratios((-0.05, 0.8, 0.35, -0.3, -0.9), scatter * (1.5, 1.5, 1, 1, 1))

    young = HALPHA_PER_SFR * galaxies["sfr_10myr"][:, None] * forming
    young = young * transmission(LINE_WAVELENGTH, galaxies["dust_tau"], galaxies["birth_cloud_tau"])
    old = (galaxies["retired_width"][:, None] * old_continuum)[:, :, None] * retired[:, None]
    narrow_halpha = galaxies["o3_luminosity"] / seyfert[:, LINE_NAMES.index("oiii_5008")]
    nucleus = narrow_halpha[:, None] * seyfert
    nucleus[:, LINE_NAMES.index("broad_halpha")] = narrow_halpha * galaxies["broad_ratio"]
    nucleus[:, LINE_NAMES.index("broad_hbeta")] = narrow_halpha * galaxies["broad_ratio"] / BALMER_DECREMENT
    nucleus = nucleus * transmission(LINE_WAVELENGTH, galaxies["dust_tau"])
    return np.concatenate([old, young[:, None], nucleus[:, None]], axis=1)


def transmission(wavelength, diffuse_tau, birth_cloud_tau=None):
    """Fraction of light that passes the galaxy's own dust, (n, len(wavelength)): Charlot & Fall (2000).

    The diffuse medium's slope is -0.7 and that of the birth clouds, where young stars sit, -1.3 (as da Cunha,
    Charlot & Elbaz 2008); the optical depths (n,) are those at 5500 A.
    """
    x = np.asarray(wavelength) / 5500
    depth = diffuse_tau[:, None] * x**-0.7
    if birth_cloud_tau is not None:
        depth = depth + birth_cloud_tau[:, None] * x**-1.3
    return np.exp(-depth)
