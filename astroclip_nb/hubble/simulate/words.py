"""The vocabulary of simulated proposals: visible attributes, and sentences to say them in.

Attributes are shared by many kinds of object on purpose. What a model learns about "seen edge-on" on spiral
galaxies can then be asked of a kind it never saw; a caption with nothing but the name of the kind could not
teach that.
"""

# axis -> value -> ways to say it; the simulator draws one way per proposal and text
ATTRIBUTES = {
    "inclination": {
        "face-on": ("seen face-on", "nearly face-on orientation", "low inclination"),
        "inclined": ("moderately inclined", "inclined to the line of sight", "intermediate inclination"),
        "edge-on": ("seen edge-on", "edge-on orientation", "high inclination"),
    },
    "extent": {
        "compact": ("compact angular size", "small on the sky", "only a few arcseconds across"),
        "extended": ("large angular extent", "filling the field of view", "spanning the whole detector"),
    },
    "texture": {
        "smooth": ("smooth light distribution", "featureless diffuse emission", "smooth morphology"),
        "clumpy": ("clumpy structure", "bright knots and clumps", "knotty morphology"),
        "filamentary": ("filamentary structure", "network of filaments", "wispy filaments"),
    },
    "nucleus": {
        "nucleus": ("bright point-like nucleus", "luminous unresolved core", "bright central point source"),
        "no nucleus": ("no detected nucleus", "faint diffuse centre", "without a central point source"),
    },
    "richness": {
        "sparse": ("sparsely populated", "low density of members", "few members"),
        "rich": ("richly populated", "high density of members", "hundreds of members"),
    },
    "shape": {
        "round": ("round shape", "circular symmetry", "nearly circular outline"),
        "elongated": ("elongated shape", "strongly flattened", "elliptical outline"),
    },
    "companion": {
        "single": ("isolated object", "no companion", "single object"),
        "companion": ("close companion", "binary with a resolved companion", "second object nearby"),
    },
    "sidedness": {
        "one-sided": ("one-sided structure", "asymmetric, on one side only", "extending to one side"),
        "two-sided": ("two-sided structure", "bipolar symmetry", "extending to both sides"),
    },
    "completeness": {
        "complete": ("complete ring", "closed shell", "unbroken circle"),
        "broken": ("broken ring", "partial arc", "incomplete shell"),
    },
    "dust": {
        "dusty": ("dark dust lane", "obscuring dust", "dust absorption features"),
        "dust-free": ("free of dust", "no visible dust", "unobscured"),
    },
    "field": {
        "plain": ("empty surroundings", "blank sky around the target", "clean field"),
        "crowded": ("crowded star field", "dense stellar foreground", "many field stars"),
        "nebulous": (
            "diffuse nebulosity in the field",
            "embedded in nebulosity",
            "extended cloud background",
        ),
        "bright star": (
            "bright saturated star in the field",
            "glare of a nearby bright star",
            "diffraction spikes of a foreground star",
        ),
        "galaxies": (
            "faint background galaxies",
            "field of distant galaxies behind the target",
            "background galaxy population",
        ),
    },
    "depth": {
        "deep": ("deep exposure", "many orbits of integration", "low noise"),
        "snapshot": ("short snapshot", "single short exposure", "noisy snapshot"),
    },
    "filter": {
        "broad-band": ("broad-band optical imaging", "wide filter imaging", "optical continuum imaging"),
        "narrow-band": (
            "narrow-band emission line imaging",
            "narrow-band H-alpha imaging",
            "emission line filter imaging",
        ),
        "ultraviolet": ("ultraviolet imaging", "near-ultraviolet imaging", "far-ultraviolet imaging"),
        "near-infrared": ("near-infrared imaging", "infrared imaging", "imaging in the infrared H band"),
    },
}

OPENINGS = (
    "The nature of {name} remains one of the open problems of modern astrophysics.",
    "Over the last decade, {name} have proved to be powerful laboratories for {category}.",
    "Theory makes firm and so far untested predictions for {name}.",
    "Recent ground-based work has revealed a puzzling population of {name}.",
    "Despite decades of effort, our understanding of {name} is limited by spatial resolution.",
    "A complete census of {name} is a key ingredient of any model of {category}.",
)
REQUESTS = (
    "We propose to image a sample of {name}.",
    "We request images of well-chosen {name}.",
    "We will obtain the first complete set of images of {name}.",
    "Here we ask for time to observe {name}.",
)
DESCRIPTIONS = (
    "What earlier images show of the targets: {attributes}.",
    "Our targets have been described in these words: {attributes}.",
    "Properties by which they were selected: {attributes}.",
    "Known of these objects: {attributes}.",
)
SURROUNDINGS = (
    "Around the targets: {surroundings}.",
    "The observations must deal with this: {surroundings}.",
    "Conditions at the pointings: {surroundings}.",
)
AIMS = (
    "These data will allow us to {first} and to {second}.",
    "The goals are to {first} and to {second}.",
    "With them we will {first}; we will also {second}.",
    "Our programme will {first} and, for the first time, {second}.",
)
CLOSINGS = (
    "Only HST has the resolution and sensitivity to do this.",
    "No other facility can make these observations.",
    "The archival value of the data is high, and we waive the proprietary period.",
    "The results will guide future work with JWST.",
    "The stable point spread function of HST is essential.",
)
