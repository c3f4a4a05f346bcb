"""Fetch published data and weights by name: ``python -m astroclip_nb.download provabgs``.

An interrupted download goes on where it stopped. Hashes are checked: the published one where there is one,
otherwise the one seen first, which is kept in ``hashes.json`` beside the files.
"""

import argparse
import fcntl
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from .errors import InputError
from .paths import data_folder, write_json

CHUNK = 1 << 16  # bytes; a broken connection loses the chunk it was in
_COPY = "https://huggingface.co/datasets/mhsotoudeh/astroclip"


@dataclass(frozen=True)
class Published:
    """Published files {local name: URL}; sha256 : the hash, or its beginning, that the source gives."""

    about: str
    files: dict = field(default_factory=dict)
    sha256: str = ""
    hint: str = "check the connection, or whether the source has moved"


PUBLISHED = {
    "astroclip": Published(
        "AstroCLIP's 197,976 pairs of images and spectra, 60 GB (Parker et al., arXiv 2310.03024)",
        {"astroclip_desi.1.1.5.h5": "https://users.flatironinstitute.org/~flanusse/astroclip_desi.1.1.5.h5"},
        hint=f"the source is reported closed, and {_COPY} holds a copy in Parquet: hf download it, then "
        "astroclip_nb.galaxies.published.pairs_from_parquet reads it",
    ),
    "astroclip-mini": Published(
        "1,600 of those pairs in Parquet, 0.5 GB",
        {
            f"astroclip-mini-{split}.parquet": f"{_COPY}-mini/resolve/main/data/{split}-00000-of-00001.parquet"
            for split in ("train", "val", "test")
        },
    ),
    "provabgs": Published(
        "stellar masses and magnitudes of DESI galaxies (Hahn et al. 2023)",
        {
            "BGS_ANY_full.provabgs.sv3.v0.hdf5": "https://data.desi.lbl.gov/public/edr/vac/edr/provabgs/v1.0/"
            "BGS_ANY_full.provabgs.sv3.v0.hdf5"
        },
    ),
    "spender": Published(
        "weights of the spectrum autoencoder for DESI galaxies (Liang et al. 2023)",
        {
            "spender.desi-edr.galaxyae-b9bc8d12.pt": "https://huggingface.co/pmelchior/spender/resolve/main/"
            "spender.desi-edr.galaxyae-b9bc8d12.pt"
        },
        sha256="b9bc8d12",
    ),
    "clip": Published(
        "weights of CLIP ViT-B/16, 0.6 GB (Radford et al. 2021), from which HubbleCLIP starts",
        {
            "clip-vit-base-patch16.bin": "https://huggingface.co/openai/clip-vit-base-patch16/resolve/main/"
            "pytorch_model.bin"
        },
    ),
    "resnet50": Published(
        "weights of the image encoder (Stein et al. 2021)",
        hint="its authors share resnet50.ckpt through Globus only: follow 'Data Access' at "
        "https://github.com/georgestein/ssl-legacysurvey and put the file into the data folder",
    ),
}


def fetch(name, folder=None, progress=True):
    """Download what is published under ``name`` into ``folder`` (the data folder); files at hand are checked.

    Returns {path: SHA-256}. Raises InputError for an unknown name, a source that does not answer, a download
    that breaks off (the same call goes on with it) or that another process is at, a folder that cannot be written
    and a file whose hash is not the expected one.
    """
    if name not in PUBLISHED:
        raise InputError(f"{name!r} is not published here, expected one of {', '.join(PUBLISHED)}.")
    published = PUBLISHED[name]
    if not published.files:
        raise InputError(f"{name} cannot be downloaded: {published.hint}.")
    folder = data_folder() if folder is None else Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made ({error}); give another one.") from None
    return dict(_fetch_file(published, file, folder, progress) for file in published.files)


def _fetch_file(published, file, folder, progress):
    import pooch
    import requests

    kept = folder / "hashes.json"
    hashes = _read_hashes(kept)
    url, part = published.files[file], folder / f"{file}.part"

    def download(url, output, _):
        _download(url, part, output, progress)

    try:
        path = Path(pooch.retrieve(url, hashes.get(file), file, folder, downloader=download))
    except InputError:  # which is a ValueError too
        raise
    except requests.HTTPError as error:
        reason = f"{error.response.status_code} {error.response.reason}"
        raise InputError(f"{url} answers {reason}; {published.hint}.") from None
    except requests.RequestException as error:
        if not part.exists():
            raise InputError(f"{url} does not answer ({error}); {published.hint}.") from None
        size = part.stat().st_size
        raise InputError(f"{file}: stopped after {size} bytes ({error}); the same command goes on.") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written to {folder} ({error}); make room or give another folder, and try again."
        ) from None
    except ValueError:
        raise InputError(
            f"{url} is not the file seen before; if that is right, remove {file} from {kept} and try again."
        ) from None
    if file not in hashes:
        hashes[file] = pooch.file_hash(str(path))
        if not hashes[file].startswith(published.sha256):
            path.unlink()
            raise InputError(
                f"{url}: SHA-256 begins {hashes[file][:8]}, expected {published.sha256}; the file was removed, "
                "try again later."
            )
        write_json(kept, dict(sorted((_read_hashes(kept) | hashes).items())))
    return path, hashes[file]


def _read_hashes(kept):
    """{file: SHA-256} of ``hashes.json``; {} where there is none yet."""
    try:
        return dict(json.loads(kept.read_text())) if kept.exists() else {}
    except (ValueError, TypeError):
        raise InputError(
            f"{kept} is damaged; remove it, and the hashes of the files at hand are kept anew."
        ) from None


def _download(url, part, output, progress):
    """Complete ``part`` and rename it; bytes already there are kept if the source still has that file.

    HTTP's If-Range asks for it; the ``.tag`` beside the part holds what the source called the file.
    """
    import requests

    tag = part.with_name(f"{part.name}.tag")
    headers = {"Accept-Encoding": "identity"}
    begin = part.stat().st_size if part.exists() and tag.exists() else 0
    if begin:
        headers |= {"Range": f"bytes={begin}-", "If-Range": tag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=60) as response:
        if response.status_code == 416:  # nothing is left to send, or the part is too long to be one
            tag.unlink()
            if response.headers.get("Content-Range") == f"bytes */{begin}":
                part.replace(output)
                return
        response.raise_for_status()
        begin = begin if response.status_code == 206 else 0
        total = begin + int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
        bar = tqdm(total=total, initial=begin, unit="B", unit_scale=True, desc=part.stem, disable=not progress)
        with open(part, "ab") as file, bar:
            _lock(file, part, begin)
            same = response.headers.get("ETag") or response.headers.get("Last-Modified")
            tag.write_text(same) if same else tag.unlink(missing_ok=True)
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            part.replace(output)
    tag.unlink(missing_ok=True)


def _lock(file, part, begin):
    """Make the open ``part`` this process's own and ``begin`` bytes long; InputError where another is at it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{part} is being downloaded by another process; wait for it to end.") from None
    if not part.exists() or file.tell() < begin:
        raise InputError(f"{part} was changed by another process meanwhile; the same command goes on.")
    file.truncate(begin)


def main(arguments=None):
    """The command line; returns its exit status."""
    listed = "\n".join(f"  {name:15} {published.about}" for name, published in PUBLISHED.items())
    parser = argparse.ArgumentParser(
        prog="python -m astroclip_nb.download",
        description=f"Fetch published data and weights into {data_folder()}.",
        epilog=f"names:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="what to fetch; without it, the names are listed")
    parser.add_argument("--folder", type=Path, help="another folder")
    options = parser.parse_args(arguments)
    if options.name is None:
        print(f"{parser.description}\n\nnames:\n{listed}")
        return 0
    try:
        found = fetch(options.name, options.folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on.", file=sys.stderr)
        return 1
    checked = "its beginning is published" if PUBLISHED[options.name].sha256 else "the source publishes none"
    for path, sha256 in found.items():
        print(f"{path}\n  SHA-256 {sha256} ({checked}; kept in hashes.json)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
