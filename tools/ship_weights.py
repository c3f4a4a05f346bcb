"""Copy the towers of a finished pre-training run into the package, with how they came to be.

    python -m astroclip_nb.run --profile pretrain --to 04 && python tools/ship_weights.py runs/pretrain
    python -m astroclip_nb.run --profile tune --to 04 && python tools/ship_weights.py runs/tune

A run that started from the shipped towers (profile ``tune``) keeps their record as "before".
"""

import argparse
import json

from astroclip_nb.galaxies.checkpoints import load_encoder, save_encoder
from astroclip_nb.paths import SHIPPED_WEIGHTS, RunFolder
from astroclip_nb.report import read_metrics

NOTEBOOKS = {"image": "02_image_encoder", "spectrum": "03_spectrum_encoder"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of the pre-training run, named as its profile")
    run = RunFolder(parser.parse_args().run)
    metrics = read_metrics(run)
    profile = run.path.resolve().name
    told = {
        "command": f"python -m astroclip_nb.run --profile {profile} --to 04",
        "data": {name: metrics["01_data"]["metrics"][name] for name in ("origin", "n", "train")},
        "fingerprint": metrics["01_data"]["data"],
        "parameters": {name: part["parameters"] for name, part in metrics.items() if "parameters" in part},
        "alignment": metrics["04_alignment"]["metrics"],
        "provenance": metrics["provenance"],
    }
    for kind, notebook in NOTEBOOKS.items():
        path = SHIPPED_WEIGHTS / f"{kind}.pt"
        pretraining = metrics[notebook]["metrics"]
        stages = {"pretraining": pretraining}
        if pretraining["made_by"] == "shipped with the package":
            stages = {"before": json.loads(path.with_suffix(".json").read_text())}
        save_encoder(load_encoder(run.weights / "towers" / f"{kind}_encoder.pt"), path, half=True, **stages, **told)
        digest = json.loads(path.with_suffix(".json").read_text())["sha256"]
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {digest}")


if __name__ == "__main__":
    main()
