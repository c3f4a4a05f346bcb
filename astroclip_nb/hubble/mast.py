"""Preview images of HST from the MAST archive, through astroquery: polite, resumable, hashed."""

import itertools
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import requests
from tqdm import tqdm

from ..errors import InputError
from ..hashes import sha256_of
from ..paths import write_json

MANIFEST = "manifest.json"
BATCH = 500  # observations in one question for their products: MAST times out on thousands
SILENCE = 120  # seconds after which a connection that says nothing is given up
UNANSWERED = 10  # proposals in a row without an answer, after which the archive is taken to be away


class _Impatient(requests.adapters.HTTPAdapter):
    """Gives up a silent connection; astroquery waits for ever."""

    def send(self, request, **options):
        return super().send(request, **{**options, "timeout": options.get("timeout") or SILENCE})


def find_previews(archive, proposal_id):
    """URIs of the preview images of a proposal: public HST products, whole images and not colour ones.

    archive : ``astroquery.mast.Observations``. The choice is PAPERCLIP's: products of type PREVIEW whose file name
    has "total" and not "color". A proposal without observations or products has none. Raises what astroquery does.
    """
    from astroquery.exceptions import NoResultsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoResultsWarning)  # many proposals have no images: no news
        found = archive.query_criteria(obs_collection="HST", proposal_id=str(proposal_id), dataRights="PUBLIC")
        starts = range(0, len(found), BATCH)
        products = [archive.get_product_list(found[start : start + BATCH]) for start in starts]
    chosen = {
        str(row["dataURI"])
        for row in itertools.chain(*products)
        if row["productType"] == "PREVIEW"
        and "total" in str(row["productFilename"])
        and "color" not in str(row["productFilename"])
    }
    return sorted(chosen)


def fetch_proposal(archive, proposal_id, folder, max_images, seed, pause):
    """Fetch up to ``max_images`` previews of a proposal into its folder, drawn without replacement.

    A manifest with URIs and SHA-256 hashes is written last, so a folder with one is complete, for that choice of
    ``max_images`` and ``seed``; another choice is fetched anew. Files that are
    there already are not fetched again, unless their bytes are no longer those of the manifest. Returns a
    sentence on each failure; then no manifest is written (that of an earlier choice stays), and the next call tries
    again what is missing.
    """
    folder, failures, hashes = Path(folder) / str(proposal_id), [], {}
    choice = {"max_images": max_images, "seed": seed}
    if (folder / MANIFEST).exists():
        altered = verify(folder)
        if not altered and choice.items() <= json.loads((folder / MANIFEST).read_text()).items():
            return []
        for path in altered:
            path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(pause)
    uris = find_previews(archive, proposal_id)
    rng = np.random.default_rng([seed, int(proposal_id)])
    for uri in sorted(rng.choice(uris, max_images, replace=False).tolist()) if len(uris) > max_images else uris:
        path = folder / Path(uri).name
        if not path.exists():
            time.sleep(pause)
            message = _download(archive, uri, path)
            if message:
                failures.append(f"Proposal {proposal_id}: {uri} was not fetched ({message}); run again to retry.")
                continue
        hashes[path.name] = {"uri": uri, "sha256": sha256_of(path)}
    if not failures:
        manifest = {"proposal_id": int(proposal_id), **choice, "files": hashes}
        write_json(folder / MANIFEST, manifest)
    return failures


def _download(archive, uri, path):
    """Fetch one product, whole or not at all; returns why not, or "" where it was fetched."""
    part = path.with_name(path.name + ".part")
    try:
        status, message, _ = archive.download_file(uri, local_path=str(part), cache=False, verbose=False)
    except OSError as error:  # astroquery catches answers of HTTP errors, not a connection that breaks
        status, message = "ERROR", str(error)
    if status != "COMPLETE":
        part.unlink(missing_ok=True)
        return message or status
    os.replace(part, path)
    return ""


def fetch_previews(proposals, folder, *, max_images=20, seed=0, pause=1.0, progress=True):
    """Fetch previews of proposals from MAST into ``<folder>/<proposal ID>/``, one at a time.

    pause : seconds before each question and each download. An interrupted fetch goes on where it stopped:
    complete proposals are skipped. Returns a sentence on each failure; none stops the others. InputError where MAST
    answers for none of UNANSWERED proposals in a row.
    """
    from astroquery.exceptions import InvalidQueryError, RemoteServiceError
    from astroquery.mast import Observations

    # of requests (a silent archive), of JSON (a page of HTML), of astroquery (an answer in part, or of an error)
    no_answer = (OSError, ValueError, KeyError, RemoteServiceError, InvalidQueryError)
    Observations._session.mount("https://", _Impatient())  # that of its questions and of its downloads
    failures, unanswered = [], 0
    for proposal in tqdm(proposals, desc="MAST previews", disable=not progress):
        try:
            failures += fetch_proposal(Observations, proposal.id, folder, max_images, seed, pause)
            unanswered = 0
        except no_answer as error:
            why = f"{type(error).__name__}: {error}"
            unanswered += 1
            if unanswered == UNANSWERED:
                raise InputError(
                    f"MAST gave no answer for {unanswered} proposals in a row ({why}); run again later, what was "
                    "fetched stays."
                ) from None
            failures.append(f"Proposal {proposal.id}: its previews were not found ({why}); run again to retry.")
    return failures


def chosen_files(folder):
    """The files of a proposal's folder that its manifest names, in order; None without a sound manifest."""
    hashes = _hashes(folder)
    return None if hashes is None else sorted(folder / name for name in hashes)


def verify(folder):
    """Files of a proposal's folder whose bytes are not those of its manifest; itself, where it is damaged."""
    hashes = _hashes(folder)
    if hashes is None:
        return [folder / MANIFEST]
    paths = {folder / name: sha256 for name, sha256 in hashes.items()}
    return [path for path, sha256 in paths.items() if not path.exists() or sha256_of(path) != sha256]


def _hashes(folder):
    """{file: SHA-256} of a proposal's manifest; None where there is none, or it is damaged."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return {name: entry["sha256"] for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, no JSON, or another
        return None
