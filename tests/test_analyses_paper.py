"""`rmtbn paper`: all claims on one page, each from one study, whatever records say, and links that lead somewhere."""

import json
import re
from collections import Counter
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from click.testing import CliRunner
from paper_records import changed, options
from rmtbn.analyses import (
    _image_networks,
    divergence,
    max_step,
    paper,
    product_spectra,
    sgd_noise,
    shattering,
    width_depth,
)
from rmtbn.analyses import _paper_claims as judged
from rmtbn.analyses.__main__ import main

from rmtbn.report import render
from rmtbn.report.page import Claim
from rmtbn.report.picture import Picture

TRAINING = {*range(1, 7), 17}  # what the studies of this page do not look at
MEASURED = set(range(1, 32)) - TRAINING
BROKEN = "gradients burst"


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """One network of every kind, the smallest there are; pictures are drawn by the tests of their own studies."""
    smallest = {
        _image_networks: {"depth": 14, "examples": 6, "networks": 1},
        divergence: {"batches": 1, "parts": 2},
        sgd_noise: {"depth": 8, "examples": 17, "networks": 1, "draws": 2},
        product_spectra: {"width": 64, "draws": 2},
        shattering: {"depth": (1, 2), "width": 16, "examples": 8, "points": 16, "networks": 1},
    }
    with pytest.MonkeyPatch.context() as patch:
        for module, sizes in smallest.items():
            patch.setattr(module, "SIZES", MappingProxyType({"quick": MappingProxyType(sizes)}))
        patch.setattr(width_depth, "WIDTHS", MappingProxyType({"quick": (8,)}))
        patch.setattr(render, "picture", lambda *_a, **_k: Picture(light="data:,", dark="data:,", width=1, height=1))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The reports of `rmtbn paper`, and what it said."""
    out = tmp_path_factory.mktemp("reports")
    return out, CliRunner().invoke(main, ["paper", "--preset", "quick", "--out", str(out)])


@pytest.fixture(scope="module")
def records(run):
    """The records of all studies, from the stores that the run left."""
    where = replace(options(run[0]), as_json=False)
    return dict(paper._measured(where, "digits"))


def sections(records):
    """Claims of the page by number, in the order of the page."""
    blocks = [block for section in paper.page(records).sections for block in section.blocks]
    claims = [block for block in blocks if isinstance(block, Claim)]
    return {int(re.search(r"claim (\d+) of 31", claim.source).group(1)): claim for claim in claims}


def twice(records):
    """The same cells again under another seed."""
    again = tuple(replace(record, cell=replace(record.cell, seed=99)) for record in records.records)
    return replace(records, records=(*records.records, *again))


def test_the_page_lists_all_claims_in_their_order(run):
    """1 to 31, once each, in the sections; and all of them in the table at the top."""
    out, said = run
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines() == [str(out / "paper" / "index.html")]
    html = (out / "paper" / "index.html").read_text(encoding="utf8")
    assert [int(k) for k in re.findall(r"claim (\d+) of 31", html)] == list(range(1, 32))
    assert html.count("About training") == html.count("<td>not measured</td>") == len(TRAINING)


def test_every_measured_claim_comes_from_one_study(records):
    """7-16 and 18-31, each judged exactly once; its evidence links the page of its study."""
    found = paper.collected(records)
    counts = Counter(key for name in records for key in paper.study(name).claims(records[name]))
    assert counts == dict.fromkeys(MEASURED, 1)
    for key, claim in sections(records).items():
        if key in MEASURED:
            assert [name for _, name in found[key]] == re.findall(r'<a href="../([a-z-]+)/index.html">', claim.evidence)


def test_claims_about_training_are_open_and_say_where_they_are_tested(records):
    """1-6 and 17: inconclusive, with the command that tests them."""
    claims = sections(records)
    assert {claims[key].verdict for key in TRAINING} == {"inconclusive"}
    assert {claims[key].evidence for key in TRAINING} == {paper.UNMEASURED.format("learning-rates")}


def test_studies_that_train_come_first(records, monkeypatch):
    """Where `max-rate` is there, its verdict on claim 26 stands, and beside it that of the first step."""

    def study(name):
        judge = {26: judged.claim(26, predicted="p", measured="m", verdict="contradicted", evidence="e < f.")}
        return replace(max_step.ANALYSIS, claims=lambda _: judge) if name == "max-rate" else known(name)

    known, first = paper.study, max_step.claims(records["max-step"])[26]
    monkeypatch.setattr(paper, "study", study)
    claim = sections({**records, "max-rate": records["max-step"]})[26]
    assert (claim.verdict, claim.measured) == ("contradicted", "m")
    assert claim.evidence.startswith('e &lt; f. <a href="../max-rate/index.html">')
    assert f"Without training it is {first.verdict}: " in claim.evidence
    assert claim.evidence.endswith('<a href="../max-step/index.html">The page of max-step.</a>')


def test_stored_studies_that_train_are_taken_up(monkeypatch, tmp_path):
    """A study in `TRAINED` counts once all its cells are in the folder, and its page is written; before, it is none."""
    monkeypatch.setattr(paper, "TRAINED", {"width-depth": (31,)})
    where = replace(options(tmp_path), as_json=False)
    assert dict(paper._trained(where, "digits")) == {}
    width_depth.ANALYSIS.measure(replace(where, dtype="float64"))
    assert list(dict(paper._trained(where, "digits"))) == ["width-depth"]
    assert (tmp_path / "width-depth" / "index.html").is_file()


def test_a_dry_run_speaks_of_every_study(run, tmp_path):
    """Cells done and asked for of each and of all; nothing is computed or written."""
    arguments = ["paper", "--preset", "quick", "--dry-run", "--out"]
    empty, full = (CliRunner().invoke(main, [*arguments, str(out)]) for out in (tmp_path, run[0]))
    assert empty.exit_code == full.exit_code == 0, empty.output
    for said, done in ((empty, "0"), (full, r"(\d+)")):
        lines = said.stdout.splitlines()
        assert [line.partition(":")[0] for line in lines] == [*paper.STUDIES, "paper"]
        assert all(re.search(rf": {done} of \d+ cells done", line) for line in lines)
    assert not any(tmp_path.iterdir())
    done, asked = re.search(r"paper: (\d+) of (\d+) cells done", full.stdout).groups()
    assert done == asked


def test_links_lead_to_files(run):
    """Every address on the page of claims that is not on the page itself or elsewhere in the world."""
    page = run[0] / "paper" / "index.html"
    links = set(re.findall(r'href="(\.\./[^"#]+)"', page.read_text(encoding="utf8")))
    assert {f"../{name}/index.html" for name in paper.STUDIES} <= links
    reports = {link for link in links if link != "../index.html"}  # the list of reports is `rmtbn report`'s
    assert all((page.parent / link).is_file() for link in reports)


def test_records_that_contradict_a_claim_turn_its_verdict(records):
    """ReLU networks whose spread grows or shrinks with depth, and images in one class or spread over all."""

    def spread(sign):
        def change(_name, _parameters, seed, frame):
            draws = np.random.default_rng(seed).standard_normal(len(frame))
            return frame.assign(log_norm=draws * np.exp(sign * frame.depth))

        return changed(records["width-depth"], change)

    def biased(share):
        def change(name, parameters, _seed, frame):
            return frame.assign(modal=share[parameters["kind"] == "none"]) if name == "bias" else frame

        return twice(changed(records["class-bias"], change))

    as_claimed = sections({**records, "width-depth": spread(1), "class-bias": biased((0.2, 1.0))})
    against = sections({**records, "width-depth": spread(-1), "class-bias": biased((1.0, 0.2))})
    assert [as_claimed[key].verdict for key in (18, 31)] == ["supported"] * 2
    assert [against[key].verdict for key in (18, 31)] == ["contradicted"] * 2


def test_the_page_says_what_was_measured(records):
    """Depth of the networks and the name of the images, on which verdicts depend."""
    texts = [block for block in paper.page(records).sections[0].blocks if isinstance(block, str)]
    deepest = max(record.cell.parameters["depth"] for record in records["max-step"].records)
    assert f"up to {deepest} layers and images of digits" in texts[-1]


def test_the_summary_counts_the_verdicts(records):
    """As many as the badges of the page say."""
    page = paper.page(records)
    counts = page.verdicts
    assert sum(counts.values()) == 31
    for verdict in ("supported", "inconclusive"):
        assert f"{counts[verdict]} are {verdict}" in page.summary or f"{counts[verdict]} {verdict}" in page.summary
    assert f"{len(TRAINING)} of these" in page.summary


def test_numbers_of_all_claims_go_to_stdout(records, monkeypatch, tmp_path):
    """--json: the measured claims by number; nothing is written."""
    monkeypatch.setattr(paper, "_measured", lambda _options, _data: iter(records.items()))
    said = CliRunner().invoke(main, ["paper", "--preset", "quick", "--json", "--out", str(tmp_path)])
    found = json.loads(said.stdout)
    assert {int(key) for key in found} == MEASURED
    assert found["31"]["study"] == "width-depth"
    assert found["31"]["verdict"] in {"supported", "contradicted", "inconclusive"}
    assert not any(tmp_path.iterdir())


def burst(**_parameters):
    """A cell that fails."""
    raise RuntimeError(BROKEN)


def test_a_study_that_fails_leaves_the_others_stored(monkeypatch, tmp_path):
    """Exit code 1 and the reason; the study before is stored, with its page, and is not computed again."""
    monkeypatch.setattr(paper, "STUDIES", ("shattering", "width-depth"))
    arguments = ["paper", "--preset", "quick", "--out", str(tmp_path)]
    with monkeypatch.context() as broken:
        study = replace(width_depth.STUDY, compute=burst)
        broken.setattr(width_depth, "ANALYSIS", replace(width_depth.ANALYSIS, study=study))
        said = CliRunner().invoke(main, arguments)
    assert (said.exit_code, said.stdout) == (1, "")
    assert BROKEN in said.stderr
    assert (tmp_path / "shattering" / "index.html").is_file()
    assert not (tmp_path / "paper").exists()
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "shattering" / "cells").rglob("*.parquet")}
    assert stored
    again = CliRunner().invoke(main, [*arguments, "--retry-failed"])
    assert again.exit_code == 0, again.output
    assert all(path.stat().st_mtime_ns == time for path, time in stored.items())
