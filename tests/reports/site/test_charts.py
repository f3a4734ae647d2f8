from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from reports.site.charts import Look, Panel, Result, Series, draw, spread, tick_text, ticks
from reports.site.figures import thin

GRPO = Look("GRPO", "grpo t0", "circle")
CURVE = Series(
    look=GRPO,
    x=[0, 10, 20, 30],
    y=[50.0, 55.0, None, 60.0],
    band=[(45.0, 55.0), (50.0, 60.0), (50.0, 60.0), (55.0, 65.0)],
    lead=30,
    result=Result(60.0, 55.0, 65.0, 57.36),
    label="GRPO 60.0",
    paper_label="paper 57.4",
)
PANEL = Panel("Sound", "n = 60", [CURVE], (40.0, 70.0), marked_x=(0, 10, 20, 30))


def parsed(panel: Panel) -> ET.Element:
    return ET.fromstring(draw(panel, width=400, height=200))  # noqa: S314  our own drawing


def classes(panel: Panel) -> list[str]:
    return [node.get("class", "") for node in parsed(panel).iter()]


def test_a_chart_is_the_same_each_time_and_has_neither_id_nor_style():
    text = draw(PANEL, width=400, height=200)
    assert text == draw(PANEL, width=400, height=200)
    assert " id=" not in text
    assert "style" not in text
    assert "#" not in text


def test_a_chart_has_a_name_and_wears_its_trainings_classes():
    tree = parsed(PANEL)
    assert tree.get("role") == "img"
    assert "Sound" in tree.get("aria-label")
    assert "s grpo t0" in classes(PANEL)


def test_the_value_to_quote_its_interval_and_the_papers_stand_in_the_margin():
    assert classes(PANEL).count("whisk") == 1
    assert classes(PANEL).count("paper") == 1
    texts = "".join(parsed(PANEL).itertext())
    assert "GRPO 60.0" in texts
    assert "paper 57.4" in texts
    without = PANEL._replace(series=[CURVE._replace(result=Result(60.0, 55.0, 65.0))])
    assert "paper" not in classes(without)
    assert "paper" not in "".join(parsed(without).itertext())


def test_each_step_of_a_curve_can_be_read_out_but_a_gap():
    readouts = [node for node in parsed(PANEL).iter() if node.get("class") == "read"]
    assert ["".join(node.itertext()) for node in readouts] == ["50.0", "55.0", "", "60.0"]


def test_a_gap_in_the_values_begins_a_new_line():
    (line,) = [node for node in parsed(PANEL).iter() if node.get("class") == "line"]
    assert line.get("d").count("M") == 2


def test_a_name_that_is_markup_is_text():
    hostile = CURVE._replace(label='<script>"&\n')
    texts = "".join(parsed(PANEL._replace(series=[hostile])).itertext())
    assert '<script>"& ' in texts


def test_small_numbers_on_an_axis_need_no_offset():
    assert [tick_text(tick) for tick in ticks(0, 1e-6, most=4)] == [
        "0",
        "5e-7",
        "1e-6",
    ]
    assert tick_text(0.75) == "0.75"
    assert [tick_text(size) for size in (6.2e8, 6.2e10)] == ["6.2e8", "6.2e10"]  # bytes of memory
    assert tick_text(-5) == "\u22125"


def test_every_tick_is_told_by_its_own_number():
    """A learning rate that stayed at 1e-6 had an axis with 1e-6 twice, once for 1.05e-6."""
    texts = ["9e-7", "9.5e-7", "1e-6", "1.05e-6", "1.1e-6"]
    assert [tick_text(tick) for tick in ticks(0.9e-6, 1.1e-6)] == texts
    assert tick_text(-7.5e-4) == "\u22127.5e-4"


def test_a_point_between_two_gaps_is_seen_in_a_curve_of_any_length():
    """Of more than 30 checkpoints' validations no line and no dot was drawn."""
    values = [1.0 if x % 2 else None for x in range(80)]
    alone = CURVE._replace(x=list(range(80)), y=values, band=(), lead=None, result=None)
    (dots,) = [
        node
        for node in parsed(PANEL._replace(series=[alone], marked_x=())).iter()
        if node.get("class") == "dot"
    ]
    assert dots.get("d").count("M") == 40


def test_ticks_are_round_numbers_within_the_ends():
    assert ticks(41.2, 69.9) == [50, 60]
    assert ticks(0, 1000) == [0, 200, 400, 600, 800, 1000]
    assert ticks(3, 3) == [3]


@given(st.lists(st.floats(0, 300), max_size=12))
def test_labels_that_overlap_move_apart_and_stay_in_order(wanted):
    places = spread(wanted, 15, 4, 300)
    in_order = [place for _, place in sorted(zip(wanted, places, strict=True))]
    assert all(after - before >= 14.99 for before, after in pairwise(in_order))
    assert all(place <= 300.01 for place in places)


def test_labels_with_room_stay_where_they_belong():
    assert spread([100, 50, 200], 15, 0, 300) == [100, 50, 200]


def test_long_curves_are_thinned_to_means_of_equal_windows():
    steps, means = thin(list(range(1, 241)), [float(step) for step in range(1, 241)])
    assert steps[:2] == [2, 4]
    assert means[:2] == [1.5, 3.5]
    assert len(steps) == 120


def test_a_short_curve_is_left_as_it_is():
    assert thin([1, 2], [0.5, None]) == ([1, 2], [0.5, None])
