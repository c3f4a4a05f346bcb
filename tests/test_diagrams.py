"""Schematics: the shapes and definitions they state are those of the real networks and of DBSCAN."""

import matplotlib
import numpy as np
import pytest
from figure_checks import assert_readable, said

from astroclip_nb.galaxies import diagrams
from astroclip_nb.galaxies.pairs import WAVELENGTH

pytestmark = pytest.mark.usefixtures("drawing")


def output_shapes(network, example, kinds):
    """Shapes, as the diagrams write them, that leave the modules of these types."""
    import torch

    shapes = []

    def note(module, inputs, output):
        shapes.append(" × ".join(str(size) for size in output.shape[1:]))

    for module in network.modules():
        if type(module).__name__ in kinds:
            module.register_forward_hook(note)
    with torch.inference_mode():
        network.eval()(example)
    return shapes


def test_framework_with_and_without_an_example(galaxies):
    figure = diagrams.framework(finetune=True)
    assert_readable(figure)
    assert "(tuned too)" in said(figure) and "(frozen)" not in said(figure)
    cosines = np.linspace(-1, 1, 16).reshape(4, 4)
    spectrum = galaxies["spectrum"][0].copy()
    spectrum[:50] = np.nan
    figure = diagrams.framework(galaxies["image"][0], spectrum, cosines)
    assert_readable(figure)
    shown = [image.get_array() for axis in figure.findobj(matplotlib.axes.Axes) for image in axis.images]
    assert any(np.array_equal(array, cosines) for array in shown)
    assert "(frozen)" in said(figure) and "cosine" in said(figure)


def test_resnet_writes_the_true_shapes(galaxies):
    import torch

    from astroclip_nb.galaxies.encoders import build_resnet

    figure = diagrams.resnet(galaxies["image"][:2, :, :96, :96].astype(np.float32), queue=4096)
    assert_readable(figure)
    shapes = output_shapes(build_resnet("resnet50"), torch.zeros(1, 3, 96, 96), ["MaxPool2d", "Sequential"])
    drawn = said(figure)
    for shape in ("64 × 24 × 24", "256 × 24 × 24", "512 × 12 × 12", "1024 × 6 × 6", "2048 × 3 × 3"):
        assert shape in shapes and shape in drawn
    assert "queue of 4,096 keys" in drawn


def test_spender_writes_the_true_shapes():
    import torch

    from astroclip_nb.galaxies.encoders import build_spender

    figure = diagrams.spender()
    assert_readable(figure)
    example = torch.zeros(1, len(WAVELENGTH))
    shapes = output_shapes(build_spender((128, 256, 512)), example, ["PReLU"])
    assert shapes == ["128 × 1557", "256 × 142", "512 × 142"]
    assert all(shape in said(figure) for shape in shapes)


def test_dbscan_kinds_follow_their_definition():
    points = np.array([[0, 0], [0.1, 0], [0, 0.1], [0.1, 0.1], [0.95, 0.1], [5, 5]], float)
    figure = diagrams.dbscan(points, eps=0.9, min_samples=4)
    assert_readable(figure)
    (axis,) = figure.axes
    distance = np.hypot(*(points[:, None] - points).transpose(2, 0, 1))
    core = (distance <= 0.9).sum(1) >= 4
    drawn = {line.get_label().split(":")[0]: line.get_xydata() for line in axis.lines}
    np.testing.assert_array_equal(drawn["core"], points[core])
    np.testing.assert_array_equal(drawn["border"], points[[4]])
    np.testing.assert_array_equal(drawn["noise"], points[[5]])
    assert {patch.radius for patch in axis.patches} == {0.9}
