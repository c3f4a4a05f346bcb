"""AstroCLIP and HubbleCLIP: one space for galaxy images, spectra and words."""
