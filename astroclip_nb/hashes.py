"""Hashes of files, by which they are recognised."""

import hashlib


def sha256_of(path):
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
