"""The MAST client against tables written by hand in MAST's form: what it chooses, and that it loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from PIL import Image

from astroclip_nb.hubble.mast import fetch_previews, find_previews, verify
from astroclip_nb.hubble.observations import Observations, from_previews
from astroclip_nb.hubble.proposals import Proposal

ANSWERS = json.loads(Path(__file__).with_name("mast_answers.json").read_text())


class Archive:
    """Answers as astroquery.mast.Observations does, from the file; ``broken`` URIs do not arrive."""

    def __init__(self, broken=()):
        self.broken, self.fetched, self.asked = set(broken), [], []

    def query_criteria(self, **criteria):
        assert criteria["obs_collection"] == "HST" and criteria["dataRights"] == "PUBLIC"
        self.asked.append(criteria["proposal_id"])
        table = Table(ANSWERS["observations"])
        return table[table["proposal_id"] == criteria["proposal_id"]]

    def get_product_list(self, observations):
        return Table(ANSWERS["products"])

    def download_file(self, uri, *, local_path):
        self.fetched.append(uri)
        if uri in self.broken:
            Path(local_path).write_bytes(b"half a fi")
            return "ERROR", "HTTP 503", uri
        Image.fromarray(np.full((30, 40), len(uri), np.uint8)).save(local_path, format="JPEG")
        return "COMPLETE", None, None


PROPOSALS = [Proposal(7307, "Stellar", 7, "T", "A."), Proposal(9999, "Galaxies", 9, "T", "A.")]
WF, PC = (f"mast:HST/product/hst_7307_01_wfpc2_total_{camera}_drz.jpg" for camera in ("wf", "pc"))


def fetch(archive, folder, **options):
    return fetch_previews(PROPOSALS, folder, archive=archive, pause=0, progress=False, **options)


def test_choice_is_whole_public_previews():
    assert find_previews(Archive(), 7307) == sorted([PC, WF])
    assert find_previews(Archive(), 9999) == []


def test_fetch_once_and_mend_what_was_altered(tmp_path):
    archive = Archive()
    assert fetch(archive, tmp_path) == []
    assert sorted(archive.fetched) == sorted([PC, WF]) and verify(tmp_path / "7307") == []
    again = Archive()
    assert fetch(again, tmp_path) == [] and not again.fetched and not again.asked
    altered = tmp_path / "7307" / Path(WF).name
    whole = altered.read_bytes()
    altered.write_bytes(b"altered")
    assert verify(tmp_path / "7307") == [altered]
    mending = Archive()
    assert fetch(mending, tmp_path) == [] and mending.fetched == [WF]
    assert altered.read_bytes() == whole and verify(tmp_path / "7307") == []


def test_failure_is_told_and_retried(tmp_path):
    archive = Archive(broken=[PC])
    (failure,) = fetch(archive, tmp_path)
    assert "7307" in failure and "HTTP 503" in failure
    assert [path.name for path in (tmp_path / "7307").iterdir()] == [Path(WF).name]  # nothing half-written
    again = Archive()
    assert fetch(again, tmp_path) == [] and again.fetched == [PC]  # what is there is not fetched twice


def test_silent_archive_does_not_stop_the_others(tmp_path):
    class Silent(Archive):
        def query_criteria(self, **criteria):
            if criteria["proposal_id"] == "7307":
                raise ConnectionError("timed out")
            return super().query_criteria(**criteria)

    archive = Silent()
    (failure,) = fetch(archive, tmp_path)
    assert "MAST did not answer (timed out)" in failure and archive.asked == ["9999"]


def test_at_most_some_drawn_without_replacement(tmp_path):
    first, again = Archive(), Archive()
    fetch(first, tmp_path / "a", max_images=1)
    fetch(again, tmp_path / "b", max_images=1)
    assert len(first.fetched) == 1 and first.fetched == again.fetched


def test_fetched_previews_become_observations(tmp_path):
    fetch(Archive(), tmp_path / "previews")
    problems = from_previews(tmp_path / "o.h5", PROPOSALS, tmp_path / "previews", size=32, progress=False)
    assert problems == ["Proposal 9999 has no image and is left out."]
    observations = Observations(tmp_path / "o.h5")
    assert observations.images().shape == (2, 32, 32) and observations.id.tolist() == [7307]


def test_client_has_the_methods_we_call():
    observations = pytest.importorskip("astroquery.mast").Observations
    for name in ("query_criteria", "get_product_list", "download_file"):
        assert callable(getattr(observations, name))
