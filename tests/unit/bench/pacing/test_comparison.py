"""The comparison's figures of hand-made recordings, and one small run of everything."""

import json
import xml.etree.ElementTree as ET

import pytest

from pd_bench.pacing.comparison import CONTROLLERS, compare_controllers, figures_of
from pd_bench.pacing.patterns import PATTERNS
from pd_bench.pacing.recording import Recording, recorded, recordings_of
from pd_bench.pacing.report import document_of, picture
from pd_bench.pacing.settings import PacingSettings
from tests.result_documents import document, record, timeline

# Four tokens at once, the fifth at 1 s: gaps of 0.25 s are the best possible.
SEAM = Recording(0.1, (0.0, 0.0, 0.0, 0.0, 1.0), (0.0, 0.3, 0.6, 0.9, 1.2), "ccccd", 2)


def test_ratios_and_delays_are_those_told_by_hand() -> None:
    figures = figures_of("seam", "a seam", [SEAM], counts=True).controllers
    ratios = {name: figures[name].largest_gap_over_optimum["p50"] for name in CONTROLLERS}
    assert ratios == pytest.approx({
        "at once": 4.0, "fixed pace": 2.8, "buffer": 2.8, "pd-device": 1.2, "best possible": 1.0,
    })  # fmt: skip
    # Fixed: 0, 0.1, 0.2, 0.3, 1.0. Ours is later by 0, 0.2, 0.4, 0.6, 0.2.
    assert figures["pd-device"].delay_s == pytest.approx(0.28)
    assert figures["fixed pace"].delay_s == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_is_the_same_for_the_same_seed_and_loses_nothing(name: str) -> None:
    situation = PATTERNS[name].draw(3, 0.05, 0.2)
    assert situation == PATTERNS[name].draw(3, 0.05, 0.2)
    assert situation != PATTERNS[name].draw(4, 0.05, 0.2)
    found = recorded(situation, 0.05, 0.2)
    assert len(found.arrived_at_s) == len(found.shown_at_s) == situation.answer_tokens
    assert list(found.arrived_at_s) == sorted(found.arrived_at_s)
    pairs = zip(found.shown_at_s, found.arrived_at_s, strict=True)
    assert all(shown >= arrived - 1e-9 for shown, arrived in pairs)


def test_a_documents_answers_are_recordings() -> None:
    records = [record(0, "pd-device"), record(0, "race-only")]
    given = document(records, timelines=tuple(timeline(r) for r in records))
    (found,) = recordings_of(given)
    assert found.shown_at_s == records[0].shown_at_s
    assert found.pace_s == given.pace_s


@pytest.mark.slow
def test_everything_in_one_document_and_a_picture() -> None:
    comparison = compare_controllers(PacingSettings(requests=2, seed=5))
    written = json.loads(json.dumps(document_of(comparison)))
    assert set(written["largest_gap_over_optimum"]) == set(CONTROLLERS)
    assert written["largest_gap_over_optimum"]["best possible"]["p99"] == pytest.approx(1.0)
    assert [p["pattern"] for p in written["patterns"]] == list(PATTERNS)
    counted = sum(p.answers for p in comparison.patterns if p.counts)
    assert comparison.overall.answers == counted
    assert ET.fromstring(picture(comparison.example)).tag.endswith("svg")
