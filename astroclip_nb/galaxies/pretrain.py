"""Self-supervised pre-training of the two encoders, for when no published weights are at hand.

Images: MoCo v2 (Chen et al. 2020) with the survey's augmentations (Stein et al. 2021). Spectra: the autoencoder
of Spender (Melchior et al. 2023), whose decoder generates a rest-frame spectrum and shifts it to the known
redshift. ``contrast.fit`` trains both, with the same result in one process or several: each process reads its own
rows, and the keys of all enter the queue. MoCo v2 shuffles keys between GPUs, lest batch-norm statistics betray
which keys are of the query's own batch; here there is no such shuffling, and the statistics are those of the whole
batch (``distributed.share_batch_norms``). A network might in a long training learn to recognise them.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import contrast
from ..device import pick_device
from ..distributed import gather, seeded, share_batch_norms
from ..errors import InputError
from . import images, on_device, spectra
from .encoders import PUBLISHED_SPECTRUM, SMALL_SPECTRUM, ImageEncoder, SpectrumEncoder
from .features import PREPROCESSING, batch_size_for, dealt, n_batches
from .pairs import WAVELENGTH

TEMPERATURE = 0.2  # MoCo v2
MOMENTUM = 0.99  # of the key encoder; 0.999 in MoCo v2, whose runs are a hundred times longer
QUEUE = 4096
WEIGHT_DECAY = 1e-4  # of both pre-trainings
N_LATENT = 10
MAX_REDSHIFT = 0.8
# Error allowed to the model itself in each bin of 0.8 A, in standard deviations of the spectrum: without it the few
# brightest galaxies, whose noise is far below what ten latents can describe, are all that the loss sees. It counts
# as independent from bin to bin, and so is half of this where four are averaged.
MODEL_ERROR = 0.1


class MoCo(nn.Module):
    """MoCo v2: a query encoder trained to find its own key among a queue of others.

    The key encoder follows the query encoder as a moving average. Both end in ``fc`` = Linear, ReLU, Linear(128).
    """

    def __init__(self, encoder, dimension=128, queue=QUEUE):
        super().__init__()
        n = encoder.n_features
        self.encoder_q, self.fc_q = encoder, contrast.mlp([n, n, dimension])
        self.encoder_k, self.fc_k = copy.deepcopy(encoder), copy.deepcopy(self.fc_q)
        for parameter in self._key_parameters():
            parameter.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dimension), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def _key_parameters(self):
        return [*self.encoder_k.parameters(), *self.fc_k.parameters()]

    @torch.no_grad()
    def _follow(self):
        queries = [*self.encoder_q.parameters(), *self.fc_q.parameters()]
        for key, query in zip(self._key_parameters(), queries, strict=True):
            key.lerp_(query, 1 - MOMENTUM)

    @torch.no_grad()
    def _enqueue(self, keys):
        rows = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
        self.pointer.copy_((self.pointer + len(keys)) % len(self.queue))

    def forward(self, view_q, view_k):
        """Unit vectors (B, 128) of two views (B, 3, 96, 96) of the same galaxies; no gradient reaches the keys."""
        if self.training:
            self._follow()
        with torch.no_grad():
            keys = F.normalize(self.fc_k(self.encoder_k(view_k)).float(), dim=1)
        return F.normalize(self.fc_q(self.encoder_q(view_q)).float(), dim=1), keys

    def loss(self, queries, keys):
        """Cross entropy of the own key (first) against the queue; the keys of all processes then join it."""
        matched = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([matched, queries @ self.queue.clone().T], 1) / TEMPERATURE
        if self.training:
            self._enqueue(gather(keys))
        first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        return gather(F.cross_entropy(logits, first, reduction="none")).mean()


def moco_batches(pairs, rows, batch_size, seed=0, with_blur=True):
    """batches(epoch) of two independent survey views (B, 3, 96, 96) of the images at ``rows``."""
    size = batch_size_for(rows, batch_size)

    def batches(epoch):
        on_device.hold(pairs, "image")
        for places, some in dealt(rows, size, seed, epoch):
            crops = on_device.read_images(pairs, some)
            generator = seeded(places, seed, epoch)
            yield tuple(images.survey_views(crops, generator, with_blur=with_blur) for _ in range(2))

    return batches


class SpectrumAutoencoder(nn.Module):
    """Spender's autoencoder around a SpectrumEncoder: 10 latents, a rest-frame decoder, the known redshift.

    Works at the encoder's binning. ``forward`` takes normalised spectra x (B, 7781) and y (B, 7782): the weight of
    each bin, 1/sigma^2 in units of the normalised spectrum, then the redshift.
    """

    def __init__(self, encoder):
        super().__init__()
        import spender

        self.encoder = encoder
        observed = WAVELENGTH[: len(WAVELENGTH) // encoder.binning * encoder.binning]
        observed = observed.reshape(-1, encoder.binning).mean(1)
        self.instrument = spender.Instrument(torch.from_numpy(observed).float())
        first, last = observed[0] / (1 + MAX_REDSHIFT), observed[-1]
        rest = torch.arange(first, last, float(observed[1] - observed[0]) / 1.2)
        self.to_latent = contrast.mlp([encoder.n_features, 128, 64, 32, N_LATENT], "prelu")
        self.decoder = spender.SpectrumDecoder(rest.float(), N_LATENT)

    def reconstruct(self, x, redshift):
        """The decoder's picture (B, 7781 / binning) of normalised spectra x (B, 7781) at ``redshift`` (B,)."""
        return self.decoder(self.to_latent(self.encoder(x)).float(), self.instrument, redshift)

    def forward(self, x, y):
        """Reconstruction and spectrum, both in units of sigma, (B, 7781 / binning)."""
        binning = self.encoder.binning
        weight, weighted = (F.avg_pool1d(side[:, None], binning)[:, 0] for side in (y[:, :-1], x * y[:, :-1]))
        observed = weighted / weight.clamp(min=torch.finfo(weight.dtype).tiny)  # the mean that has sum(weight)
        weight = weight * binning
        return self.reconstruct(x, y[:, -1]) * weight.sqrt(), observed * weight.sqrt()

    def loss(self, reconstruction, spectrum):
        """Half the mean squared residual in units of the error (Spender's loss): 0.5 where only error is left."""
        return 0.5 * gather((reconstruction - spectrum).square().mean(1)).mean()


def autoencoder_inputs(spectrum, ivar, redshift):
    """What the autoencoder takes: (x, y) from spectra and ivar (N, 7781) and redshift (N,).

    A bin's weight is the inverse variance of the normalised spectrum, ``MODEL_ERROR`` added to its error, and 0
    where the normalised spectrum is clipped, whose error is not that of the flux.
    """
    x = spectra.normalise(spectrum, ivar)
    valid = spectra.valid(spectrum, ivar)
    _, sigma = spectra.moments(spectrum, valid)
    known = torch.where(valid, ivar, 0.0) * sigma.square()
    weight = torch.where(x.abs() < spectra.CLIP, known / (1 + MODEL_ERROR**2 * known), 0.0)
    return x, torch.cat([weight, redshift[:, None]], 1)


def autoencoder_batches(pairs, rows, batch_size, seed=0):
    """batches(epoch) of autoencoder inputs for the spectra at ``rows``."""
    size = batch_size_for(rows, batch_size)
    redshift = torch.from_numpy(pairs.catalogue["redshift"]).float().to(pick_device())

    def batches(epoch):
        on_device.hold(pairs, "spectrum", "ivar")
        for _, some in dealt(rows, size, seed, epoch):
            yield autoencoder_inputs(*on_device.read_spectra(pairs, some), redshift[some])

    return batches


def pretrain(model, batches, validation, config, folder, **options):
    """Train a MoCo or SpectrumAutoencoder; the history.

    validation() gives batches of the same kind, at every call the same. They are made anew for every epoch, which
    takes a fiftieth of its time: of millions of galaxies they would fill the memory.
    """

    def validate(trained):
        device = next(trained.parameters()).device
        losses = [trained.loss(*trained(x.to(device), y.to(device))) for x, y in validation()]
        return {"validation_loss": torch.stack(losses).mean().item()}

    return contrast.fit(model, batches, validate, config, folder, **options)


def pretrain_images(
    pairs, split, folder, *, resnet, binning, epochs, batch_size, learning_rate, blur, precision, seed
):
    """MoCo v2 on the images of ``pairs``, the training of notebook 02: (ImageEncoder, history)."""
    train, validation = np.flatnonzero(split == "train"), np.flatnonzero(split == "validation")
    if batch_size > QUEUE:
        raise InputError(f"image_batch_size is {batch_size}, more than the {QUEUE} keys of MoCo's queue; lower it.")
    torch.manual_seed(seed)
    encoder = ImageEncoder(resnet, binning=binning)
    batches, held_out = (moco_batches(pairs, rows, batch_size, seed, blur) for rows in (train, validation))
    steps = n_batches(train, batch_size)
    config = contrast.cosine_config(epochs, steps, learning_rate, WEIGHT_DECAY, precision, seed)
    history = pretrain(
        share_batch_norms(MoCo(encoder)), batches, lambda: held_out(0),
        replace(config, keep_last=True), folder,  # losses against a queue that changes do not compare
        data_id=f"{pairs.fingerprint} {PREPROCESSING} {encoder.config} {batch_size} {blur}", label="MoCo v2",
    )  # fmt: skip
    return encoder, history


def pretrain_spectra(pairs, split, folder, *, small, epochs, batch_size, learning_rate, precision, seed):
    """The autoencoder on spectra of known redshift, the training of notebook 03: (SpectrumAutoencoder, history).

    small : the encoder made for two cores, rather than one of the published width. Redshifts beyond MAX_REDSHIFT,
    where the decoder's spectrum ends, are left out.
    """
    known = pairs.catalogue["redshift"] <= MAX_REDSHIFT  # which no NaN is
    train, validation = (np.flatnonzero((split == name) & known) for name in ("train", "validation"))
    if min(len(train), len(validation)) < 2:
        raise InputError(
            f"{pairs.path}: the autoencoder needs redshifts, known for {len(train)} galaxies to train on and "
            f"{len(validation)} to validate on; give them, or an encoder that was trained."
        )
    torch.manual_seed(seed)
    config = SMALL_SPECTRUM if small else PUBLISHED_SPECTRUM | {"attended_wavelengths": True}
    model = SpectrumAutoencoder(SpectrumEncoder(**config))
    batches, held_out = (autoencoder_batches(pairs, rows, batch_size, seed) for rows in (train, validation))
    steps = n_batches(train, batch_size)
    redshifts = np.nansum(pairs.catalogue["redshift"])
    history = pretrain(
        model, batches, lambda: held_out(0),
        contrast.cosine_config(epochs, steps, learning_rate, WEIGHT_DECAY, precision, seed), folder,
        data_id=f"{pairs.fingerprint} {PREPROCESSING} {model.encoder.config} {batch_size} {redshifts}",
        label="autoencoder",
    )  # fmt: skip
    return model, history


@torch.inference_mode()
def reconstructions(autoencoder, pairs, rows):
    """The autoencoder's pictures of the spectra at ``rows``, in their own units and bins: (N, 7781)."""
    device = next(autoencoder.parameters()).device
    flux, ivar = (side.to(device) for side in on_device.read_spectra(pairs, rows))
    redshift = torch.from_numpy(pairs.catalogue["redshift"][rows]).to(device).float()
    x, _ = autoencoder_inputs(flux, ivar, redshift)
    drawn = autoencoder.eval().reconstruct(x, redshift).cpu().numpy()
    wavelength = autoencoder.instrument.wave_obs.cpu().numpy()
    mean, sigma = (side.cpu().numpy() for side in spectra.moments(flux, spectra.valid(flux, ivar)))
    return mean + sigma * np.stack([np.interp(WAVELENGTH, wavelength, model) for model in drawn]).astype("f4")
