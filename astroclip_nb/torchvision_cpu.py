"""Import torchvision beside a CPU-only torch.

The torchvision wheel of the package index is built against CUDA. Beside a CPU-only torch its compiled
operators do not load, and ``import torchvision`` stops at registering shapes for operators that do not
exist (``operator torchvision::nms does not exist``). The models need none of those operators: declaring their
schemas is enough. This is done only where the plain import fails for that reason.
"""

import sys

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared = []  # a torch Library unregisters its schemas when it is collected, so it has to stay alive


def import_torchvision():
    """Return the ``torchvision`` module; call this before anything else imports it (open_clip does)."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
        import torchvision
    return torchvision
