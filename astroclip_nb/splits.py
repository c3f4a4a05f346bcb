"""The split into training, validation (model selection) and test (scores only)."""

import numpy as np

SPLITS = ("train", "validation", "test")


def split_of(identifier, validation=0.1, test=0.1):
    """Split of each identifier (TARGETID of a galaxy, ID of a proposal), (N,) str: "train", "validation" or "test".

    A hash of the identifier alone (splitmix64, Steele et al. 2014) decides, so each keeps its split when others
    are added, dropped or reordered.
    """
    x = np.asarray(identifier, np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    fraction = (x >> np.uint64(11)) * 2.0**-53
    return np.select([fraction < validation, fraction < validation + test], ["validation", "test"], "train")
