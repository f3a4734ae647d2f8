from xml.etree import ElementTree as ET

from reports.site.charts import Chart, draw
from reports.site.figures import thin

CHART = Chart(
    title="Sound",
    x=[10, 20, 30],
    y=[50.0, 55.0, 60.0],
    low=[45.0, 50.0, 55.0],
    high=[55.0, 60.0, 65.0],
    rule=57.36,
    rule_label="paper 57.36",
    point_titles=["step 10: 50 %", "step 20", "step 30"],
    marked_x=30,
)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  our own drawing


def test_a_chart_is_the_same_each_time():
    assert draw(CHART, prefix="a") == draw(CHART, prefix="a")


def test_two_charts_on_a_page_share_no_id():
    one, other = (parsed(draw(CHART, prefix=prefix)) for prefix in ("a", "b"))
    ids = [{node.get("id") for node in tree.iter() if node.get("id")} for tree in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_references_lead_to_ids_of_the_same_chart():
    text = draw(CHART, prefix="a")
    tree = parsed(text)
    ids = {node.get("id") for node in tree.iter()}
    for node in tree.iter():
        if node.get("href"):
            assert node.get("href").removeprefix("#") in ids
        if node.get("clip-path"):
            assert node.get("clip-path").removeprefix("url(#").removesuffix(")") in ids


def test_colours_are_the_pages_own_and_no_style_is_left():
    text = draw(CHART, prefix="a")
    assert "var(--series)" in text
    assert "var(--rule)" in text
    assert "style" not in text
    assert "#0000c" not in text
    assert "<metadata" not in text


def test_a_chart_has_a_name_and_a_title_on_each_point():
    tree = parsed(draw(CHART, prefix="a"))
    assert tree.get("role") == "img"
    assert "Sound" in tree.get("aria-label")
    titles = [node.text for node in tree.iter() if node.tag.endswith("title")]
    assert titles == ["step 10: 50 %", "step 20", "step 30"]


def test_a_formula_in_a_label_is_text():
    chart = Chart(title="x", x=[1, 2], y=[1.0, 2.0], rule=1.5, rule_label=r"$\frac{1}{2$ <b>&")
    text = "".join(parsed(draw(chart, prefix="a")).itertext())
    assert r"$\frac{1}{2$ <b>&" in text


def test_small_numbers_on_an_axis_need_no_offset():
    chart = Chart(title="Learning rate", x=[1, 2], y=[0.0, 1e-6])
    texts = {"".join(node.itertext()).strip() for node in parsed(draw(chart, prefix="a")).iter()}
    assert {"2.5e-7", "5e-7", "1e-6"} <= texts


def test_a_gap_in_the_values_is_drawn_as_a_gap():
    assert draw(Chart(title="x", x=[1, 2, 3], y=[1.0, None, 2.0]), prefix="a")


def test_long_curves_are_thinned_to_means_of_equal_windows():
    steps, means = thin(list(range(1, 501)), [float(step) for step in range(1, 501)])
    assert steps[:2] == [2, 4]
    assert means[:2] == [1.5, 3.5]
    assert len(steps) == 250


def test_a_short_curve_is_left_as_it_is():
    assert thin([1, 2], [0.5, None]) == ([1, 2], [0.5, None])
