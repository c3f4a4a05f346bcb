"""The MAST client through the real ``astroquery.mast.Observations``, of which only the network is replaced.

Columns, observations and products are what MAST answered when astroquery's authors recorded it, as astroquery
ships it for its own tests: three observations of proposal 8880, and 22 products, of another observation, among
which there is no preview. So rows of previews are added, in the recorded form with invented names (``PREVIEWS``),
and so are answers of errors and the images. Nothing in these tests can connect: `Mast` stands where requests would
hand over to the network, and knows no other address.
"""

import io
import json
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from PIL import Image
from urllib3 import HTTPResponse

from astroclip_nb.errors import InputError
from astroclip_nb.hubble import mast
from astroclip_nb.hubble.mast import chosen_files, fetch_previews, find_previews, verify
from astroclip_nb.hubble.observations import Observations, from_previews
from astroclip_nb.hubble.proposals import Proposal

WFC, PC = "hst_08880_01_wfpc2_total_wf_drz.jpg", "hst_08880_01_wfpc2_total_pc_drz.jpg"
WFC_URI, PC_URI = (f"mast:HST/product/{name}" for name in (WFC, PC))
PREVIEWS = [  # productFilename, productType
    (WFC, "PREVIEW"),
    (PC, "PREVIEW"),
    (PC, "PREVIEW"),  # of a second observation: one product may belong to several
    ("hst_08880_01_wfpc2_total_wf_color_drz.jpg", "PREVIEW"),
    ("hst_08880_01_wfpc2_f555w_wf_drz.jpg", "PREVIEW"),
    ("hst_08880_01_wfpc2_total_wf_drz.fits", "SCIENCE"),
    ("hst_08880_01_wfpc2_total_wf_drz_thumb.jpg", "THUMBNAIL"),
    ("hst_08880_01_wfpc2_total_wf_trl.txt", None),  # masked, once astroquery has made a table of it
]
PROPOSALS = [Proposal(8880, "Stellar", 9, "T", "A."), Proposal(9999, "Galaxies", 9, "T", "A.")]


@pytest.fixture(scope="module")
def recorded():
    """Folder of MAST's recorded answers in the installed astroquery."""
    folder = Path(pytest.importorskip("astroquery.mast").__file__).parent / "tests" / "data"
    if not (folder / "advSearch.json").exists():
        pytest.skip(f"this astroquery was installed without its recorded answers ({folder})")
    return folder


class Mast:
    """The far end of the wire: answers a prepared request as MAST does, and keeps what it was asked.

    faults : what to answer instead, by the address's end or the service: a status of HTTP, bytes, or an error to
    raise. pages : over how many pages the observations come. Those of a proposal are served where it is the
    recorded one; another has none, with ``fields`` left of the empty answer or not.
    """

    def __init__(self, folder, faults=None, pages=1, fields=True):
        self.folder, self.faults, self.pages, self.fields = folder, faults or {}, pages, fields
        self.asked, self.fetched, self.polled = [], [], set()

    def recorded(self, name):
        return json.loads((self.folder / name).read_text())

    def send(self, request, **options):
        address = urlsplit(request.url)
        assert address.hostname == "mast.stsci.edu", f"a test asked for {request.url}"
        if address.path.endswith("/columnsconfig"):
            name, answer = "columns", (self.folder / "columnsconfig.json").read_bytes
        elif address.path.endswith("/invoke"):
            question = json.loads(parse_qs(request.body)["request"][0])
            name, answer = question["service"], lambda: json.dumps(self.invoke(question)).encode()
        else:
            assert address.path.endswith("/Download/file"), f"a test asked for {request.url}"
            (name,) = parse_qs(address.query)["uri"]
            answer = image
            self.fetched += [name] * (request.method == "GET")
        fault = self.faults.get(name, 200)
        if isinstance(fault, Exception):
            raise fault
        body = fault if isinstance(fault, bytes) else answer()
        short = name in self.faults.get("cut", ())
        raw = HTTPResponse(
            io.BytesIO(body[: len(body) // 2] if short else body), {"content-length": str(len(body))},
            status=fault if isinstance(fault, int) else 200, preload_content=False, request_method=request.method,
        )  # fmt: skip
        return requests.adapters.HTTPAdapter().build_response(request, raw)

    def invoke(self, question):
        if question["service"] not in self.polled:  # MAST lets a client ask again until it has an answer
            self.polled.add(question["service"])
            return {"status": "EXECUTING", "msg": "", "data": []}
        self.asked.append(question)
        if question["service"] == "Mast.Caom.Products":
            return self.products()
        answer = self.recorded("advSearch.json")
        (wanted,) = next(f["values"] for f in question["params"]["filters"] if f["paramName"] == "proposal_id")
        rows = [row for row in answer["data"] if row["proposal_id"] == wanted]
        size = -(-len(rows) // self.pages)
        page = question["page"]
        answer["data"] = rows[(page - 1) * size : page * size]
        answer["paging"] |= {"page": page, "pageSize": size, "pagesFiltered": self.pages if rows else 0}
        if not rows and not self.fields:
            answer["fields"] = []
        return answer

    def products(self):
        answer = self.recorded("products.json")
        form = answer["data"][0]
        for name, kind in PREVIEWS:
            named = {"productFilename": name, "dataURI": f"mast:HST/product/{name}", "productType": kind}
            answer["data"].append({**form, **named})
        return answer


def image():
    """A preview as JPEG."""
    out = io.BytesIO()
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def serve(recorded, monkeypatch):
    """``serve(**options)`` puts a Mast in the place of the network, and returns it."""
    from astroquery.mast.discovery_portal import PortalAPI

    def no_network(*_):
        raise AssertionError("a test tried to connect")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)

    def start(**options):
        archive = Mast(recorded, **options)
        monkeypatch.setattr(
            requests.adapters.HTTPAdapter, "send", lambda _, request, **kw: archive.send(request, **kw)
        )
        monkeypatch.setattr(PortalAPI, "_column_configs", {})  # kept by astroquery from one test to the next
        return archive

    return start


def archive():
    from astroquery.mast import Observations

    return Observations


def fetch(folder, **options):
    return fetch_previews(PROPOSALS, folder, pause=0, progress=False, **options)


def test_what_is_asked_and_chosen(serve):
    mast = serve()
    assert find_previews(archive(), 8880) == sorted([PC_URI, WFC_URI])
    observations, products = mast.asked
    wanted = {entry["paramName"]: entry["values"] for entry in observations["params"]["filters"]}
    assert wanted == {"obs_collection": ["HST"], "proposal_id": ["8880"], "dataRights": ["PUBLIC"]}
    rows = mast.recorded("advSearch.json")["data"]
    assert products["params"]["obsid"].split(",") == [str(row["obsid"]) for row in rows]


def test_recorded_products_alone_hold_no_preview(serve, monkeypatch):
    monkeypatch.setattr("test_hubble_mast.PREVIEWS", [])
    serve()
    assert find_previews(archive(), 8880) == []


def test_observations_of_all_pages_are_asked_for(serve):
    mast = serve(pages=3)
    find_previews(archive(), 8880)
    assert [question["page"] for question in mast.asked[:-1]] == [1, 2, 3]
    assert len(mast.asked[-1]["params"]["obsid"].split(",")) == 3


def test_products_of_many_observations_are_asked_for_in_batches(serve, monkeypatch):
    monkeypatch.setattr("astroclip_nb.hubble.mast.BATCH", 2)
    mast = serve()
    assert find_previews(archive(), 8880) == sorted([PC_URI, WFC_URI])
    assert [len(question["params"]["obsid"].split(",")) for question in mast.asked[1:]] == [2, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fields", [True, False])
def test_proposal_without_observations_has_none_and_that_is_no_news(serve, tmp_path, fields):
    mast = serve(fields=fields)
    assert find_previews(archive(), 9999) == [] and len(mast.asked) == 1
    assert fetch_previews(PROPOSALS[1:], tmp_path, pause=0, progress=False) == []
    assert json.loads((tmp_path / "9999" / "manifest.json").read_text())["files"] == {}


def test_fetch_once_and_mend_what_was_altered(serve, tmp_path, capsys):
    mast = serve()
    assert fetch(tmp_path) == []
    assert mast.fetched == sorted([PC_URI, WFC_URI]) and verify(tmp_path / "8880") == []
    assert capsys.readouterr().out == ""  # no bar of astroquery's for each file
    again = serve()
    assert fetch(tmp_path) == [] and not again.fetched and not again.asked
    altered = tmp_path / "8880" / WFC
    altered.write_bytes(b"altered")
    assert verify(tmp_path / "8880") == [altered]
    mending = serve()
    assert fetch(tmp_path) == [] and mending.fetched == [WFC_URI]
    assert altered.read_bytes() == image() and verify(tmp_path / "8880") == []


def test_another_choice_is_fetched_and_only_it_is_used(serve, tmp_path):
    serve()
    assert fetch(tmp_path, max_images=1) == []
    fewer = serve()
    assert fetch(tmp_path, max_images=1) == [] and not fewer.asked
    more = serve()
    assert fetch(tmp_path, max_images=2) == [] and len(more.fetched) == 1
    assert len(chosen_files(tmp_path / "8880")) == 2
    assert fetch(tmp_path, max_images=1) == []
    assert len(list((tmp_path / "8880").glob("*.jpg"))) == 2 and len(chosen_files(tmp_path / "8880")) == 1
    from_previews(tmp_path / "o.h5", PROPOSALS[:1], tmp_path, 64, progress=False)
    assert len(Observations(tmp_path / "o.h5")) == 1


@pytest.mark.parametrize("damaged", ["", "[]", '{"files": {"a.jpg": 3}}', "{"])
def test_a_damaged_manifest_is_written_anew_and_no_image_fetched_again(serve, tmp_path, damaged):
    serve()
    assert fetch(tmp_path) == []
    manifest = tmp_path / "8880" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(damaged)
    again = serve()
    assert fetch(tmp_path) == [] and not again.fetched and manifest.read_text() == whole


@pytest.mark.parametrize("faults, why", [
    ({PC_URI: 503}, "503 Server Error"),
    ({PC_URI: requests.ConnectionError("reset by peer")}, "reset by peer"),
    ({"cut": [PC_URI]}, "IncompleteRead"),
])  # fmt: skip
def test_an_image_that_does_not_arrive_is_told_and_fetched_again(serve, tmp_path, faults, why):
    serve(faults=faults)
    (failure,) = fetch(tmp_path)
    assert f"Proposal 8880: {PC_URI} was not fetched" in failure and why in failure
    assert [path.name for path in (tmp_path / "8880").iterdir()] == [WFC]  # nothing half-written
    again = serve()
    assert fetch(tmp_path) == [] and again.fetched == [PC_URI]  # what is there is not fetched twice


@pytest.mark.parametrize("fault, why", [
    (requests.ConnectTimeout("timed out"), "timed out"),
    (500, "500 Server Error"),
    (b"<html>down for maintenance</html>", "JSONDecodeError"),
    (json.dumps({"status": "ERROR", "msg": "query is too large"}).encode(), "query is too large"),
    (json.dumps({"status": "COMPLETE"}).encode(), "fields"),
])  # fmt: skip
def test_a_faulty_answer_does_not_stop_the_others(serve, tmp_path, fault, why):
    serve(faults={"Mast.Caom.Products": fault})
    (failure,) = fetch(tmp_path)
    assert "Proposal 8880: its previews were not found" in failure and why in failure
    assert (tmp_path / "9999" / "manifest.json").exists() and not (tmp_path / "8880" / "manifest.json").exists()
    serve()
    assert fetch(tmp_path) == [] and verify(tmp_path / "8880") == []


def test_an_archive_that_is_away_ends_the_fetch_and_says_why(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(mast, "UNANSWERED", 2)
    serve(faults={"Mast.Caom.Filtered": requests.ConnectionError("no route to host")})
    with pytest.raises(InputError, match="no answer for 2 proposals in a row .*no route to host.*run again"):
        fetch(tmp_path)


def test_a_connection_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(mast, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, requests.Session() as session:
        session.mount("http://", mast._Impatient())
        with pytest.raises(requests.exceptions.ReadTimeout):
            session.get(f"http://127.0.0.1:{silent.getsockname()[1]}/")


def test_the_archive_is_asked_with_that_patience(serve, tmp_path):
    serve()
    fetch(tmp_path)
    assert isinstance(archive()._session.get_adapter("https://mast.stsci.edu/"), mast._Impatient)


def test_failures_of_the_fetch_are_told_where_no_image_is_left(tmp_path):
    with pytest.raises(InputError, match="No image is left of 2 proposals.*not fetched: no route"):
        from_previews(tmp_path / "o.h5", PROPOSALS, tmp_path / "none", problems=["not fetched: no route"])


def test_at_most_some_drawn_without_replacement(serve, tmp_path):
    first = serve()
    fetch(tmp_path / "a", max_images=1)
    again = serve()
    fetch(tmp_path / "b", max_images=1)
    assert len(first.fetched) == 1 and first.fetched == again.fetched


def test_fetched_previews_become_observations(serve, tmp_path):
    serve()
    fetch(tmp_path / "previews")
    problems = from_previews(tmp_path / "o.h5", PROPOSALS, tmp_path / "previews", size=32, progress=False)
    assert problems == ["Proposal 9999 has no usable image and is left out."]
    observations = Observations(tmp_path / "o.h5")
    assert observations.images().shape == (2, 32, 32) and observations.id.tolist() == [8880]
