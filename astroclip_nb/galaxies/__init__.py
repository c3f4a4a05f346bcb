"""AstroCLIP: what knows about galaxies."""
