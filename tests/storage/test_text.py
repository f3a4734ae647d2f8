from storage.text import printable


def test_no_control_character_of_a_title_or_an_answer_reaches_the_terminal() -> None:
    r"""`\x1b]0;...` set the window's title, `\x1b[2J` cleared the screen, from a model's output."""
    assert printable("a\x1b[31mb\x07\x9b2J") == r"a\x1b[31mb\x07\x9b2J"
    assert printable("\u202egnp.exe") == r"\u202egnp.exe"
    assert printable("Tür\n\t寺 ok") == "Tür\n\t寺 ok"
