"""Simulated observations: drawn objects, HST's cameras, invented proposals."""
