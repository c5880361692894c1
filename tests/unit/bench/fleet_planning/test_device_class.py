"""Fleets as files and as lines: what is read, and what is refused."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.cli import main
from pd_bench.fleet_planning.device_class import parse_classes, read_fleet
from pd_bench.fleet_planning.plan_document import read_plan
from pd_bench.fleet_planning.plan_table import plan_table
from pd_core.errors import ConfigError

GOOD = """
lengths = "trace.csv"
[[class]]
name = "phones"
share = 0.25
device = { prefill_b_s = 0.004, decode_s = 0.06, spread = 0.1 }
link = "lte"
[[class]]
name = "laptops"
share = 0.75
device = "laptop"
link = { rtt_s = 0.01 }
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    rows = "".join(
        f"2023-11-16 18:15:{i:02}.0000000,{prompt},{answer}\n"
        for i, (prompt, answer) in enumerate([(300, 50), (900, 200), (2000, 80), (4000, 60)])
    )
    (tmp_path / "trace.csv").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}")
    file = tmp_path / "fleet.toml"
    file.write_text(GOOD)
    return file


def test_a_fleet_is_read(fleet: Path) -> None:
    phones, laptops = read_fleet(fleet)
    assert (phones.name, phones.share, phones.device.decode_s, phones.link.name) == (
        "phones",
        0.25,
        0.06,
        "lte",
    )
    assert (laptops.device.name, laptops.link.rtt_s) == ("laptop", 0.01)
    assert phones.lengths == laptops.lengths == ((300, 50), (900, 200), (2000, 80), (4000, 60))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (GOOD, "", "empty"),
        (GOOD, "[[class]", "TOML"),
        ("0.75", "0.7", "add up to 0.95"),
        ("0.25", "-0.25", "share"),
        ("0.25", "nan", "share"),
        ("0.004", "-0.004", "prefill_b_s"),
        ("0.06", "nan", "decode_s"),
        ("0.06", "0", "decode_s"),
        ("0.1 }", "inf }", "spread"),
        ("0.01", "-1", "rtt_s"),
        ('"laptops"', '"phones"', "two classes"),
        ('"laptop"', '"toaster"', "unknown device profile"),
        ('"lte"', '"string"', "unknown link profile"),
        ('lengths = "trace.csv"', "", "no lengths"),
        ('lengths = "trace.csv"', 'lengths = "none.csv"', "none.csv"),
        ("share = 0.75", "share = 0.75\ncolour = 1", "colour"),
    ],
)
def test_what_is_no_fleet_is_refused(fleet: Path, before: str, after: str, says: str) -> None:
    fleet.write_text(GOOD.replace(before, after))
    with pytest.raises(ConfigError, match=says):
        read_fleet(fleet)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "empty"),
        ("laptop", "DEVICE@LINK=SHARE"),
        ("laptop=half", "DEVICE@LINK=SHARE"),
        ("laptop=nan", "share"),
        ("laptop=0.5", "add up to 0.5"),
        ("toaster=1", "unknown device"),
        ("laptop@string=1", "unknown link"),
        ("laptop=0.5,laptop=0.5", "two classes"),
    ],
)
def test_a_line_that_is_no_fleet_is_refused(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_classes(line, ((100, 10),))


def test_the_command_plans_explains_and_writes(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = fleet.with_name("plan.json")
    command = ["pd-bench", "fleet-plan", str(fleet), "--rate", "0.5", "--slots", "4"]
    monkeypatch.setattr("sys.argv", [*command, "--cloud-profile", "gpu-8b", "--json", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "binds:" in printed
    assert "laptops" in printed
    plan = read_plan(out)
    assert plan.gap_to_optimum < 0.01
    assert plan.cloud.max_num_seqs == 4
    assert [c.name for c in plan.classes] == ["phones", "laptops"]
    named = tuple(c.model_copy(update={"name": "edge boxes"}) for c in plan.classes)
    lines = StringIO()
    Console(width=80, file=lines).print(plan_table(plan.model_copy(update={"classes": named})))
    assert "device-only" in lines.getvalue()  # whole
    broken = json.loads(out.read_text())
    broken["classes"][0]["share"] = 7
    out.write_text(json.dumps(broken))
    with pytest.raises(ConfigError, match=r"classes\.0\.share"):
        read_plan(out)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give the fleet once"),
        (["--classes", "laptop=1"], "--lengths"),
        (["FLEET", "--classes", "laptop=1"], "give the fleet once"),
        (["FLEET", "--lengths", "trace.csv"], "goes with --classes"),
        (["FLEET", "--rate", "-1"], "--rate"),
        (["FLEET", "--rate", "nan"], "--rate"),
        (["FLEET", "--pace", "0.5", "--largest-gap", "0.2"], "contradicts"),
        (["FLEET", "--check", "guess"], "--check"),
        (["FLEET", "--slots", "5000"], "--slots"),
        (["FLEET", "--json", "FLEET"], "one file"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    fleet: Path,
    options: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = [str(fleet) if option == "FLEET" else option for option in options]
    monkeypatch.setattr("sys.argv", ["pd-bench", "fleet-plan", *told])
    with pytest.raises(SystemExit):
        main()
    assert says in capsys.readouterr().err
    assert fleet.read_text() == GOOD
