"""Bilinear sampling of images on rotated grids on the CPU, one image in the processor's cache at a time."""

import numba
import numpy as np
import torch
from numba import float32, int32, uint64


def sample(images, matrix, corner, size):
    """Values of each image on a grid of its own, linear between pixels and zero outside: (N, C, size, size).

    images : (N, C, S, S); matrix : (N, 2, 2), input pixels (x, y by row) per step of the output (x, y by column);
    corner : (N, 2), x and y of output pixel (0, 0) in the input. float32, as ``grid_sample`` gives it.
    """
    result = torch.empty(*images.shape[:2], size, size)
    affine = torch.cat([matrix, corner[:, :, None]], 2)
    _sample(*(tensor.float().contiguous().numpy() for tensor in (images, affine, result)))
    return result


@numba.njit(nogil=True, cache=True, fastmath=True)
def _sample(images, affine, result):
    n, bands, height, width = images.shape
    size = result.shape[-1]
    # A copy with zeros around: made by reading in order, which is fast, it holds in the cache what a rotated grid
    # would look for all over the memory. Loops and unsigned indices are what numba makes the fastest code of.
    line = width + 3
    near = np.zeros((bands, (height + 3) * line), np.float32)
    place = np.empty(size, np.int32)
    right, below = np.empty(size, np.float32), np.empty(size, np.float32)
    for i in range(n):
        for band in range(bands):
            for row in range(height):
                start = (row + 1) * line + 1
                for column in range(width):
                    near[band, start + column] = images[i, band, row, column]
        (xx, xy, x0), (yx, yy, y0) = affine[i]
        for v in range(size):
            for u in range(size):
                x = xx * float32(u) + (xy * float32(v) + x0) + float32(1)
                y = yx * float32(u) + (yy * float32(v) + y0) + float32(1)
                x = min(max(x, float32(0)), float32(width + 1))
                y = min(max(y, float32(0)), float32(height + 1))
                left, top = int32(x), int32(y)
                place[u] = top * int32(line) + left
                right[u], below[u] = x - float32(left), y - float32(top)
            for band in range(bands):
                pixels, values = near[band], result[i, band, v]
                for u in range(size):
                    a = uint64(place[u])
                    b = a + uint64(line)
                    upper = pixels[a] + right[u] * (pixels[a + uint64(1)] - pixels[a])
                    lower = pixels[b] + right[u] * (pixels[b + uint64(1)] - pixels[b])
                    values[u] = upper + below[u] * (lower - upper)
