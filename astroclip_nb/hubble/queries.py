"""What to ask of images: classes and hypotheses by category, and queries of the draft and of PAPERCLIP."""

from dataclasses import dataclass

# Figure queries of the draft of HubbleCLIP, and the ten of PAPERCLIP (arXiv 2403.08851, section on retrieval)
DRAFT_QUERIES = ("globular clusters", "dwarf galaxy", "supernovae SNe", "cluster lensing")
PAPERCLIP_QUERIES = (
    "globular cluster", "dwarf galaxy", "SN1987A", "strong lensing", "galaxy clusters", "interstellar medium",
    "dark matter", "spiral galaxies", "lyman alpha", "comets",
)  # fmt: skip

# Kinds of simulated object that a query is about; a query that is not here has no answer among them.
RELEVANT_KINDS = {
    "globular clusters": {"globular clusters"},
    "globular cluster": {"globular clusters"},
    "dwarf galaxy": {"resolved dwarf galaxies", "low surface brightness galaxies", "starburst galaxies"},
    "supernovae SNe": {"supernovae", "supernova remnants", "light echoes"},
    "SN1987A": {"supernovae", "supernova remnants", "light echoes"},
    "cluster lensing": {"cluster lensing arcs", "galaxy clusters"},
    "strong lensing": {"strong gravitational lenses", "cluster lensing arcs", "lensed quasars"},
    "galaxy clusters": {"galaxy clusters", "cluster lensing arcs"},
    "interstellar medium": {"H II regions", "reflection nebulae", "dark globules and pillars"},
    "dark matter": {"galaxy clusters", "cluster lensing arcs", "strong gravitational lenses",
                    "resolved dwarf galaxies", "low surface brightness galaxies"},
    "spiral galaxies": {"spiral galaxies", "barred spiral galaxies", "Seyfert galaxies"},
    "lyman alpha": {"Lyman alpha nebulae", "quasar absorption line systems"},
    "comets": {"comets"},
}  # fmt: skip


@dataclass(frozen=True)
class Hypothesis:
    """A class of object or a hypothesis: words, category of proposals, simulated kinds it holds for."""

    text: str
    category: str
    kinds: frozenset


# Category -> words -> simulated kinds for which they hold. Written for this project; where no kind is named,
# nothing simulated shows it, and only real observations can answer.
_LIST = {
    "Solar System": {
        "giant planet atmospheres and storms": "giant planets",
        "planetary rings": "ringed planets",
        "surfaces of Mars and Venus": "terrestrial planets",
        "aurorae driven by the solar wind": "planetary aurorae",
        "comets with dust tails": "comets",
        "near-Earth asteroids": "asteroids",
        "active asteroids in the main belt": "asteroids",
        "Kuiper Belt binaries": "Kuiper Belt objects",
        "water plumes of icy moons": "",
        "interstellar visitors": "comets",
    },
    "Exoplanets and Exoplanet Formation": {
        "protoplanetary disks seen edge-on": "protoplanetary disks",
        "planets carve gaps in dusty disks": "protoplanetary disks|debris disks",
        "debris disks around nearby stars": "debris disks",
        "directly imaged giant planets": "exoplanets",
        "transiting exoplanets": "transiting planet host stars",
        "escaping atmospheres of hot Jupiters": "transiting planet host stars",
        "free-floating planets": "",
        "planetary systems around white dwarfs": "white dwarfs",
    },
    "Stellar Physics and Stellar Types": {
        "planetary nebulae": "planetary nebulae",
        "binary companions shape planetary nebulae": "planetary nebulae",
        "supernova remnants": "supernova remnants",
        "light echoes of stellar explosions": "light echoes",
        "type Ia supernovae as distance indicators": "supernovae",
        "core-collapse supernova progenitors": "supernovae",
        "eruptions of luminous blue variables": "luminous blue variables",
        "white dwarf cooling": "white dwarfs",
        "runaway stars and bow shocks": "stellar bow shocks",
        "nova explosions": "nova shells",
        "kilonovae from merging neutron stars": "supernovae",
        "brown dwarfs": "",
        "Cepheid variables": "spiral galaxies",
        "pulsar wind nebulae": "supernova remnants",
    },
    "Stellar Populations and the Interstellar Medium": {
        "globular clusters": "globular clusters",
        "multiple populations in globular clusters": "globular clusters",
        "intermediate-mass black holes in star clusters": "globular clusters|young star clusters",
        "young massive star clusters": "young star clusters",
        "stellar populations of the Galactic bulge": "Galactic bulge fields",
        "microlensing by dark objects": "Galactic bulge fields",
        "H II regions and stellar feedback": "H II regions",
        "pillars and photoevaporating globules": "dark globules and pillars",
        "protostellar jets": "Herbig-Haro jets",
        "reflection nebulae": "reflection nebulae",
        "dwarf galaxies of the Local Group": "resolved dwarf galaxies",
        "stellar halos and streams": "stellar halo fields",
        "interstellar dust extinction": "reflection nebulae|dark globules and pillars",
        "the initial mass function is universal": "young star clusters",
    },
    "Galaxies": {
        "star forming galaxies": "spiral galaxies|starburst galaxies",
        "grand design spiral galaxies": "spiral galaxies",
        "barred galaxies": "barred spiral galaxies",
        "elliptical galaxies": "elliptical galaxies",
        "lenticular galaxies": "lenticular galaxies",
        "collisional ring galaxies": "ring galaxies",
        "galaxy mergers and tidal tails": "galaxy mergers",
        "ultraluminous infrared galaxies": "galaxy mergers",
        "ultra-diffuse galaxies": "low surface brightness galaxies",
        "starburst dwarf galaxies": "starburst galaxies",
        "stellar shells from minor mergers": "shell galaxies",
        "thick and thin disks of edge-on galaxies": "edge-on disk galaxies",
        "super star clusters": "starburst galaxies",
        "mergers trigger starbursts": "galaxy mergers|starburst galaxies",
    },
    "Intergalactic Medium and the Circumgalactic Medium": {
        "ram-pressure stripping": "ram-pressure stripped galaxies",
        "Lyman alpha blobs": "Lyman alpha nebulae",
        "circumgalactic gas": "quasar absorption line systems|Lyman alpha nebulae",
        "quasar absorption lines": "quasar absorption line systems",
        "cold accretion feeds galaxies": "Lyman alpha nebulae",
        "warm-hot intergalactic medium": "",
        "reionization by faint galaxies": "distant galaxies",
    },
    "Large Scale Structure of the Universe": {
        "clusters of galaxies": "galaxy clusters|cluster lensing arcs",
        "dark matter substructure": "strong gravitational lenses|cluster lensing arcs",
        "self-interacting dark matter in clusters": "galaxy clusters|cluster lensing arcs",
        "Einstein rings": "strong gravitational lenses",
        "giant arcs in cluster cores": "cluster lensing arcs",
        "time delays of lensed quasars": "lensed quasars",
        "expansion rate of the Universe": "lensed quasars|supernovae",
        "high redshift galaxies in deep fields": "distant galaxies",
        "primordial black holes": "",
        "fuzzy dark matter": "",
    },
    "Supermassive Black Holes and Active Galaxies": {
        "quasar host galaxies": "quasars",
        "luminous quasars": "quasars",
        "relativistic jets": "radio galaxies with optical jets",
        "Seyfert nuclei": "Seyfert galaxies",
        "ionization cones and outflows": "ionization cones",
        "black hole scaling relations": "elliptical galaxies|Seyfert galaxies",
        "binary supermassive black holes": "",
        "tidal disruption events": "",
    },
}

HYPOTHESES = tuple(
    Hypothesis(text, category, frozenset(kinds.split("|")) - {""})
    for category, entries in _LIST.items()
    for text, kinds in entries.items()
)
