import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from losia_cli.analysis.continual import TASKS, metrics
from losia_cli.evaluation.suites import SUITES
from losia_cli.paper import table, value

METHODS = ["lora", "losia"]
ROUNDING = 0.005 + 1e-9  # half a unit of the second decimal
DOCUMENTS = {"PIQA": 1838, "BoolQ": 3270, "SIQA": 1954, "Winogrande": 1267}

scores = st.floats(0, 100)
matrices = st.integers(2, 6).flatmap(
    lambda n: st.lists(st.lists(scores, min_size=n, max_size=n), min_size=n, max_size=n)
)


def close(expected):
    return pytest.approx(expected, abs=1e-9)


def rows(method):
    return [row for row in table(12).rows if row.fields["method"] == method]


def names(method):
    return [row.fields["task"] for row in rows(method)]


def matrix(method):
    """Table 12 transposed: P[i][j], task j after the first i + 1."""
    return [[row.values[last] for row in rows(method)] for last in names(method)]


def alone(method):
    return [row.values["ST"] for row in rows(method)]


@pytest.mark.parametrize("method", METHODS)
def test_table_12_gives_every_number_of_table_5(method):
    for name, ours in metrics(matrix(method), alone(method)).items():
        assert ours == pytest.approx(value(5, name, method=method), abs=ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_table_12_read_the_other_way_round_does_not(method):
    transposed = [list(row) for row in zip(*matrix(method), strict=True)]
    for name in ("AP", "BWT"):  # FWT reads the diagonal alone
        theirs = value(5, name, method=method)
        assert abs(metrics(transposed, alone(method))[name] - theirs) > 10 * ROUNDING


def test_single_task_scores_are_table_2s_but_for_losia_on_hellaswag():
    from_table_2 = {
        method: [value(2, name, method=method) for name in names(method)] for method in METHODS
    }
    assert from_table_2["lora"] == alone("lora")
    assert from_table_2["losia"] == [65.05, *alone("losia")[1:]]
    assert alone("losia")[0] == 63.72
    assert metrics(matrix("losia"), from_table_2["losia"])["FWT"] == close(-0.47)


@pytest.mark.parametrize("method", METHODS)
def test_the_first_tasks_single_score_is_that_of_the_sequence(method):
    assert alone(method)[0] == matrix(method)[0][0]


@pytest.mark.parametrize("method", METHODS)
def test_table_12_holds_counts_of_right_answers(method):
    for row in rows(method):
        documents = DOCUMENTS.get(row.fields["task"])
        for score in row.values.values() if documents else ():
            assert 100 * round(score * documents / 100) / documents == pytest.approx(
                score, abs=ROUNDING
            )


def test_what_the_paper_says_of_table_5():
    lora, losia = (metrics(matrix(method), alone(method)) for method in METHODS)
    assert losia["BWT"] - lora["BWT"] == pytest.approx(4.50, abs=ROUNDING)
    assert losia["AP"] - lora["AP"] == pytest.approx(3.86, abs=ROUNDING)
    assert all(a > b for a, b in zip(matrix("losia")[-1], matrix("lora")[-1], strict=True))


def test_tasks_are_the_papers_in_its_order():
    assert [SUITES[task].column for task in TASKS] == names("lora") == names("losia")


def test_by_hand():
    scores = [[50, 10], [40, 70]]
    assert metrics(scores, [45, 80]) == {"AP": 55, "FWT": (5 - 10) / 2, "BWT": -10}


@given(matrices)
def test_nothing_forgotten_is_no_backward_transfer(scores):
    kept = [[scores[min(i, j)][j] for j in range(len(scores))] for i in range(len(scores))]
    found = metrics(kept, kept[0])
    assert found["BWT"] == 0
    assert found["AP"] == close(sum(kept[j][j] for j in range(len(kept))) / len(kept))


@given(matrices)
def test_each_task_as_good_as_alone_is_no_forward_transfer(scores):
    assert metrics(scores, [scores[i][i] for i in range(len(scores))])["FWT"] == 0


@given(matrices, st.floats(-50, 50))
def test_a_shift_of_all_scores_moves_ap_alone(scores, shift):
    alone = scores[0]
    moved = metrics([[s + shift for s in row] for row in scores], [s + shift for s in alone])
    before = metrics(scores, alone)
    assert moved == {"AP": close(before["AP"] + shift)} | {
        name: close(before[name]) for name in ("FWT", "BWT")
    }


@given(matrices, st.randoms())
def test_the_order_of_earlier_tasks_is_only_a_matter_of_names(scores, rng: random.Random):
    """Renaming stages and tasks together, the last in its place, changes no metric."""
    last = len(scores) - 1
    order = [*rng.sample(range(last), last), last]
    renamed = [[scores[i][j] for j in order] for i in order]
    alone = scores[0]
    theirs = metrics(scores, alone)
    for name, ours in metrics(renamed, [alone[j] for j in order]).items():
        assert ours == close(theirs[name])


@given(matrices, st.data())
def test_only_the_diagonal_and_the_last_row_count(scores, data):
    last = len(scores) - 1
    i, j = data.draw(st.sampled_from([(i, j) for i in range(last) for j in range(last + 1)]))
    if i == j:
        return
    changed = [list(row) for row in scores]
    changed[i][j] += 1
    assert metrics(changed, scores[0]) == metrics(scores, scores[0])


@pytest.mark.parametrize("scores", [[], [[1]], [[1, 2]], [[1, 2], [3]], [[1], [2]]])
def test_other_shapes_are_refused(scores):
    with pytest.raises(ValueError, match="a row for each of at least two tasks"):
        metrics(scores, [1] * len(scores))


def test_a_single_score_for_each_task():
    with pytest.raises(ValueError, match="2 tasks, but 3 single-task scores"):
        metrics([[1, 2], [3, 4]], [1, 2, 3])
