"""The catalogue parser and the summaries, against records written by hand."""

import json

import pytest

from astroclip_nb.errors import InputError
from astroclip_nb.hubble.proposals import PARTS, Proposal, read_catalogue
from astroclip_nb.hubble.summaries import SCHEMA, add_summaries, check_summary, names_in, read_summaries, summarise

# One record of CATALOGUE has none, which a test of its own expects to be told.
pytestmark = pytest.mark.filterwarnings("ignore:.*records without a cycle")

CATALOGUE = """\
------------------------------------------------------------------------------
Prop. Type: GO
Category: Solar System
ID: 10468
Cycle: 14
Title: A very long title that
       goes on in a second line
PI: Jane Doe
We will image Pluto. Category: of objects matters
Title: this line belongs to the abstract.
------------------------------------------------------------------------------
Prop. Type: SNAP
Category: GALAXIES
ID: 8192
Cycle:
Title: No cycle, so it is dropped
PI: John Roe
Whatever.
------------------------------------------------------------------------------
Prop. Type: GO
Category: Stellar Populations
ID: 7307
Cycle: 7N
Title: Globular clusters
PI: A. Nother
We propose to measure the ages of globular clusters -- and
to study mass segregation.
"""


@pytest.fixture
def catalogue(tmp_path):
    path = tmp_path / "abstracts.cat"
    path.write_text(CATALOGUE)
    return path


def test_catalogue(catalogue):
    with pytest.warns(UserWarning, match=r"1 records without a cycle.*the first ID is 8192"):
        pluto, clusters = read_catalogue(catalogue)
    assert (pluto.id, pluto.cycle, pluto.category) == (10468, 14, "Solar System")
    assert pluto.title == "A very long title that goes on in a second line"
    # after the line of the PI a prefix means nothing
    assert pluto.abstract.endswith("Category: of objects matters Title: this line belongs to the abstract.")
    assert (clusters.id, clusters.cycle) == (7307, 7)
    assert clusters.abstract.startswith("We propose to measure") and clusters.abstract.endswith("segregation.")
    assert clusters.caption("abstract").startswith("Category: Stellar Populations. We propose")


@pytest.mark.parametrize("end", ["and\nto study mass", "PI: A. Nother\n", "Cycle: 7N\n"])
def test_catalogue_cut_in_the_middle(catalogue, end):
    whole = catalogue.read_text()
    catalogue.write_text(whole[: whole.rindex(end) + len(end)])
    with pytest.raises(InputError, match=r"ends in the middle of record 3 \(ID 7307\)"):
        read_catalogue(catalogue)
    assert [p.id for p in read_catalogue(catalogue, allow_cut=True)] == [10468]


@pytest.mark.parametrize("allow_cut", [False, True])
def test_a_closed_last_record_is_whole_whatever_it_ends_with(catalogue, allow_cut):
    text = catalogue.read_text().rstrip().removesuffix(".") + " (Smith et al. 1999)\n" + 78 * "-" + "\n\n"
    catalogue.write_text(text)
    assert [p.id for p in read_catalogue(catalogue, allow_cut)] == [10468, 7307]


def test_catalogue_that_is_none(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_catalogue(tmp_path / "missing.cat")
    (tmp_path / "page.html").write_text("<html>moved</html>")
    with pytest.raises(InputError, match="holds no proposal"):
        read_catalogue(tmp_path / "page.html")


def test_catalogue_of_which_no_record_can_be_used(tmp_path):
    record = "ID: NGC1300\nCycle: 3\nTitle: A galaxy\nPI: Jane Doe\nWe map it.\n"
    (tmp_path / "own.cat").write_text(record)
    with pytest.raises(
        InputError, match=r"no record has a whole number as ID and a cycle \(the first ID is NGC1300\)"
    ):
        read_catalogue(tmp_path / "own.cat")


@pytest.mark.parametrize("category, begins", [("Galaxies", "Category: Galaxies. We"), ("", "We map")])
def test_an_abstract_without_a_category_begins_with_itself(category, begins):
    assert Proposal(1, category, 3, "A galaxy", "We map it.").caption("abstract").startswith(begins)


def test_catalogue_with_one_id_twice(catalogue):
    catalogue.write_text(CATALOGUE.replace("7307", "10468").replace("Cycle:\n", "Cycle: 1\n"))
    with pytest.warns(UserWarning, match="1 IDs come twice"):
        assert [p.title[:6] for p in read_catalogue(catalogue)] == ["A very", "No cyc"]


def test_rules_find_objects_and_uses():
    abstract = (
        "Globular clusters host intermediate-mass black holes. We propose to measure proper motions of stars and "
        "to constrain the mass of any black hole. The planetary nebulae in the field will be mapped."
    )
    summary = summarise(abstract)
    found = [item.lower() for item in summary["objects_and_phenomena"]]
    assert "globular clusters" in found and "black hole" in found and "planetary nebulae" in found
    assert summary["science_use_cases"] == [
        "measure proper motions of stars",
        "constrain the mass of any black hole",
    ]
    assert check_summary(summarise("Nothing known here.", "A title")) == {
        "objects_and_phenomena": ["A title"],
        "science_use_cases": ["study A title"],
    }


def test_the_first_five_objects_stand_in_the_order_they_are_first_named():
    abstract = (
        "We study a quasar with a relativistic jet in a galaxy merger. The jet has knots; dust, a halo and a bar "
        "are seen in the host. We will image the quasar again."
    )
    found = summarise(abstract, "A quasar")["objects_and_phenomena"]
    assert found == ["quasar", "relativistic jet", "galaxy merger", "jet", "knots"]


def test_a_kind_is_named_by_its_whole_name_in_any_number():
    def share(objects, kind):
        return names_in([{"objects_and_phenomena": objects}], [kind])

    assert share(["a Globular Cluster"], "globular clusters") == 1
    assert share(["dust", "spiral galaxy"], "spiral galaxies") == 1
    assert share(["compact", "cluster", "globular"], "globular clusters") == 0
    assert share(["edge-on", "bar"], "edge-on disk galaxies") == 0


def test_summaries_of_a_model(tmp_path):
    good = {"objects_and_phenomena": ["comet"], "science_use_cases": ["measure dust"]}
    path = tmp_path / "summaries.jsonl"
    path.write_text(json.dumps({"proposal_id": 1, **good}) + "\n\n")
    one, two = (Proposal(i, "Solar System", 20, "Comets", "We will image comets.") for i in (1, 2))
    one, two = add_summaries([one, two], read_summaries(path), "a model")
    assert (one.summary, one.summariser) == (good, "a model")
    assert one.caption() == "comet; measure dust"
    assert two.summariser == "rules" and two.summary["objects_and_phenomena"] == ["Comets"]
    for bad in ("{", "[1]", json.dumps(good), json.dumps({"proposal_id": 1, **good, "more": 1})):
        path.write_text(json.dumps({"proposal_id": 1, **good}) + "\n" + bad)
        with pytest.raises(InputError, match="line 2"):
            read_summaries(path)


def test_summaries_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="none.jsonl cannot be read"):
        read_summaries(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="other.jsonl cannot be read .* give a file of JSON lines in UTF-8"):
        read_summaries(tmp_path / "other.jsonl")


@pytest.mark.parametrize("items", [[], ["a"] * 6, ["a", " "], "a", [1]])
def test_schema_and_check_agree(items):
    jsonschema = pytest.importorskip("jsonschema")
    summary = {"objects_and_phenomena": items, "science_use_cases": ["a"]}
    with pytest.raises(InputError, match="one to five"):
        check_summary(summary)
    if items != ["a", " "]:  # the schema cannot say "not only spaces"
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(summary, SCHEMA)


def test_proposal_without_summary():
    proposal = Proposal(5, "Galaxies", 3, "Title", "Text.")
    with pytest.raises(InputError, match="Proposal 5 has no summary"):
        proposal.caption("summary")
    with pytest.raises(InputError, match="choose 'summary', 'abstract' or one of"):
        proposal.caption("title")


def test_captions_and_their_parts():
    summary = {
        "objects_and_phenomena": ["comet", "one-sided tail", "deep field"],
        "science_use_cases": ["measure dust"],
    }
    proposal = Proposal(1, "Solar System", 20, "T", "We image comets. We measure dust!", summary)
    assert proposal.caption() == "comet, one-sided tail, deep field; measure dust"
    assert proposal.parts() == [
        "comet, one-sided tail, deep field", "one-sided tail, deep field", "comet", "measure dust"
    ]  # fmt: skip
    assert [proposal.caption(part) for part in PARTS] == proposal.parts()
    assert proposal.parts("abstract") == ["We image comets.", "We measure dust!"]
    assert proposal.parts("name") == []


def test_a_plural_is_no_other_word():
    """ "bar" is no part of "a bare detector", though "nebula" is of "nebulae"."""
    found = summarise("A bare detector sees two novae, a barred galaxy and planetary nebulae.")[
        "objects_and_phenomena"
    ]
    words = " ".join(found).lower()
    assert "bare" not in words.split() and "planetary nebulae" in words
