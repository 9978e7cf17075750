"""Tables on a terminal of 80 columns: whole words, and as few lines as they need."""

import pytest
from rich.console import Console

from qhyvit import console
from qhyvit.evaluation import Evaluation
from qhyvit.tasks import all_tasks
from qhyvit.tasks.shared.score import Paired, Score
from qhyvit.tasks.shared.task import Alike


@pytest.fixture
def printed(monkeypatch, capsys):
    """Lines of a table on a terminal of so many columns."""

    def lines(width, *arguments):
        monkeypatch.setattr(console, "out", Console(highlight=False, soft_wrap=True, width=width))
        console.table(*arguments)
        return capsys.readouterr().out.splitlines()

    return lines


def evaluation(task):
    """One with every column that the task has."""
    score = None if task.score is None else Score(dict.fromkeys(task.columns, 100.0), None)
    paired = None if score is None else Paired("Wilcoxon", 1085, 1115, 0.00251, None)
    return Evaluation(task, 3, score, score, Alike(1.0, "", reading=100.0), paired, "squash")


@pytest.mark.parametrize("name", all_tasks())
def test_titles_of_every_task_are_whole_at_80_columns(printed, name):
    found = evaluation(all_tasks()[name])
    lines = printed(80, "", found.columns, found.rows())
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "…" not in text
    assert {word for title in found.columns for word in title.split()} <= set(text.split())


def test_the_widest_columns_are_narrowed_first_and_no_word_is_cut(printed):
    rows = [("a", "one two three four five six seven"), ("longer name", "x")]
    lines = printed(40, "", ("name", "what it is about"), rows)
    assert max(map(len, lines)) == 40
    assert any("longer name" in line for line in lines)
    lines = printed(31, "", ("unbreakable", "and breakable", "n"), [("x", "some words", 1)])
    assert any("unbreakable" in line for line in lines)
    assert max(map(len, lines)) == 31


def test_a_table_with_room_is_as_wide_as_its_words(printed):
    assert len(printed(200, "", ("a b c", "d e"), [("x", "y")])[0]) == 1 + (5 + 3) + (3 + 3)


def test_words_that_no_terminal_holds_are_cut_and_not_wrapped_around(printed):
    assert max(map(len, printed(20, "", ("w" * 40, "n"), [("x", 1)]))) <= 20


def test_a_table_without_rows_has_its_titles(printed):
    assert [line.strip("┃ ").split() for line in printed(14, "", ("one", "two"), [])][1] == ["one", "┃", "two"]
