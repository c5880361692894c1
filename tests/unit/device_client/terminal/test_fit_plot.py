"""A fit is drawn in characters and as SVG."""

from xml.etree import ElementTree

from pd_device_client.planning.speeds.fit_table import FitRow
from pd_device_client.terminal.fit_plot import fit_svg, text_plot

ROWS = [FitRow(n, n / 100, n / 120, n / 90, n / 100 + 0.1) for n in (0, 50, 100, 400)]


def test_a_plot_fits_a_terminal_and_shows_every_row() -> None:
    lines = text_plot("prefill", ROWS, 1.0, "s")
    assert max(map(len, lines)) <= 80
    assert "400 tokens" in lines[-1]
    drawn = "".join(lines[1:])
    assert drawn.count("o") - drawn.count("tokens") + drawn.count("*") == len(ROWS)
    assert "." in drawn


def test_a_single_row_is_drawn() -> None:
    for row in (FitRow(0, 0.0, 0.0, 0.0, 0.0), FitRow(10, 1.0, 0.5, 2.0, 1.0)):
        assert text_plot("decode", [row], 1e-3, "ms")
        ElementTree.fromstring(fit_svg([("decode", [row], 1e-3, "ms")]))


def test_the_picture_is_sound_svg() -> None:
    picture = fit_svg([("a < b", ROWS, 1.0, "s"), ("decode", ROWS, 1e-3, "ms")])
    root = ElementTree.fromstring(picture)
    assert len(root.findall(".//{*}circle")) == 2 * len(ROWS)
    assert "a < b, s" in "".join(root.itertext())
