"""Copy the towers of a finished pre-training run into the package, with how they came to be.

python -m astroclip_nb.run --profile pretrain --to 04
python tools/ship_weights.py runs/pretrain
"""

import argparse
import json

from astroclip_nb.galaxies.checkpoints import load_encoder, save_encoder
from astroclip_nb.paths import SHIPPED_WEIGHTS, RunFolder
from astroclip_nb.report import read_metrics

COMMAND = "python -m astroclip_nb.run --profile pretrain --to 04 && python tools/ship_weights.py runs/pretrain"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of the pre-training run")
    run = RunFolder(parser.parse_args().run)
    metrics = read_metrics(run)
    told = {
        "command": COMMAND,
        "data": {name: metrics["01_data"]["metrics"][name] for name in ("origin", "n", "train", "fingerprint")},
        "seeds": {
            name: part["parameters"]["seed"]
            for name, part in metrics.items()
            if "seed" in part.get("parameters", {})
        },
        "alignment": metrics["04_alignment"]["metrics"],
        "provenance": metrics["provenance"],
    }
    for kind in ("image", "spectrum"):
        pretrained = metrics[{"image": "02_image_encoder", "spectrum": "03_spectrum_encoder"}[kind]]["metrics"]
        encoder = load_encoder(run.weights / f"{kind}_encoder.pt")
        path = SHIPPED_WEIGHTS / f"{kind}.pt"
        save_encoder(encoder, path, half=True, pretraining=pretrained, **told)
        print(
            f"{path}: {path.stat().st_size / 1e6:.1f} MB, {json.loads(path.with_suffix('.json').read_text())['sha256']}"
        )


if __name__ == "__main__":
    main()
