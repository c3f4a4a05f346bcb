"""The one look of every figure: style sheet, page width, colours, and the names and units of axes."""

from .paths import PACKAGE

PAGE_WIDTH = 6.9  # inches; figures are drawn at the size they are printed
SMALL = 7  # points, the smallest type in a figure

# Okabe-Ito colours, one meaning each throughout.
COLOURS = {
    "image": "#0072B2",
    "spectrum": "#D55E00",
    "cross": "#009E73",
    "joint": "#CC79A7",
    "text": "#E69F00",
    "baseline": "#767676",
}
TYPE_COLOURS = {
    "quiescent": "#D55E00",
    "green_valley": "#009E73",
    "starforming": "#0072B2",
    "starburst": "#56B4E9",
    "poststarburst": "#CC79A7",
}
TYPE_NAMES = {"green_valley": "green valley", "starforming": "star-forming", "poststarburst": "post-starburst"}

# One for each of up to twelve clusters, and grey for what is in none: any two at least 15 apart in CIELAB to
# trichromats, protanopes, deuteranopes and tritanopes, and each dark enough for a line on white.
GROUP_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#9933FF",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#882255",
    "#CCAA66",
    "#330099",
    "#DD0044",
    "#553311",
)
NOISE_COLOUR = "#A6A6A6"

CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")

FLUX_LABEL = r"$f_\lambda$ [$10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$]"
LABELS = {
    "redshift": "redshift",
    "log_mstar": r"$\log_{10}(M_\star / M_\odot)$",
    "log_mstar_true": r"true $\log_{10}(M_\star / M_\odot)$",
    "log_sfr": r"$\log_{10}$ SFR [$M_\odot$ yr$^{-1}$]",
    "log_ssfr": r"$\log_{10}$ sSFR [yr$^{-1}$]",
    "oxygen_abundance": "12 + log(O/H)",
    "stellar_metallicity": r"stellar $\log_{10}(Z / Z_\odot)$",
    "dust_tau": r"dust $\tau_V$",
    "velocity_dispersion": r"$\sigma_\star$ [km s$^{-1}$]",
    "re_arcsec": "half-light radius [arcsec]",
    "axis_ratio": "axis ratio b/a",
    "cos_inclination": r"$\cos i$",
    "bulge_fraction": "bulge fraction",
    "mag_g": "$g$ [AB mag]",
    "mag_r": "$r$ [AB mag]",
    "mag_z": "$z$ [AB mag]",
    "fibre_mag_r": "fibre $r$ [AB mag]",
    "snr": "median S/N per pixel",
    "ebv": "E(B$-$V) [mag]",
    "exposure_s": "effective exposure [s]",
}


def label(name):
    """A catalogue column's name as written on an axis, with its unit."""
    return LABELS.get(name, name.replace("_", " "))


def use_style():
    """Apply the project's matplotlib style to the current session."""
    import matplotlib.pyplot as plt

    plt.style.use(PACKAGE / "style.mplstyle")
