"""Plans: every number of the paper's tables, each cell once, and what filters leave."""

import shutil
from dataclasses import replace

import pytest

from losia_cli import paper
from losia_cli.errors import UserError
from losia_cli.reproduction import costs
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.numbers import collect
from losia_cli.reproduction.plan import distinct, make, runs_code
from losia_cli.reproduction.store import Store
from losia_cli.reproduction.tables import names, places


def trained(plan):
    return [cell for cell in plan.cells if cell.method != BASE]


@pytest.mark.parametrize(
    ("table", "count"),
    # by hand: 16 rows x 3 sets; 5 x 8 x 2 rates; 5 x 2; 7 x 3; 2 x 4; 2
    [("table1", 48), ("table2", 80), ("table3", 10), ("table4", 21), ("table10", 8),
     ("table11", 2)],
)  # fmt: skip
def test_every_table_has_its_cells(table, count):
    assert len(trained(make(table))) == count


@pytest.mark.parametrize("table", ["table1", "table2", "table3", "table4", "table10", "table11"])
def test_every_printed_score_has_a_place(table):
    published = paper.table(int(table.removeprefix("table")))
    there = {(place.row, place.column) for place in places(table)}
    costly = ("Mem(GB)", "Time(h)", "Time(h), Pro", "Time(h), 8 sets", "Avg.")
    for line in published.rows:
        row = tuple(line.fields.get(name, "") for name in published.fields)
        for column, value in line.values.items():
            if value is not None and column not in costly:
                assert (row, column) in there


@pytest.mark.parametrize("table", sorted(set(names()) - {"table5"}))
def test_the_base_models_own_score_is_always_there(table):
    whole = make(table).places
    base = {(p.cell.model, p.reading) for p in whole if p.cell.method == BASE}
    trained = {(p.cell.model, p.reading) for p in whole if p.cell.method != BASE}
    assert trained == base, "for every score of a trained model"


def test_a_benchmark_is_no_plan():
    for name, target in (("table14", "table14"), ("figure5", "table15"), ("figure12", "figure12")):
        with pytest.raises(UserError, match=f"make reproduce-{target}"):
            make(name)


def test_tables_share_the_models_that_are_the_same():
    first = {cell.identity for cell in make("table1").cells}
    assert {cell.identity for cell in trained(make("table10"))} & first
    vanilla = [place.cell for place in places("table3") if place.row == ("vanilla",)]
    assert {cell.identity for cell in vanilla} <= first
    at_50k = [p.cell for p in places("table4") if p.row == ("losia", "100") and p.column == "@50K"]
    assert {cell.identity for cell in at_50k} <= first


def test_what_decides_nothing_changes_no_identity():
    cell = Cell("llama2-7b-metamath", "llama2-7b", "metamath", "lora")
    same = [["output_dir=elsewhere"], ["logging_steps=3"], ["seed=42"], ["eval_suites=[arc-e]"]]
    other = [["seed=43"], ["learning_rate=1e-5"], ["eval_limit=3"]]
    assert {replace(cell, common=text).identity for text in same} == {cell.identity}
    assert len({replace(cell, common=text).identity for text in other} | {cell.identity}) == 4
    base = Cell("llama2-7b-metamath", "llama2-7b", "", BASE)
    assert replace(base, common=["learning_rate=1e-5"]).identity == base.identity
    assert base.identity != cell.identity


def test_one_model_asked_for_twice_is_scored_on_all_suites():
    math, code = (
        Cell("llama2-7b-metamath", "llama2-7b", "", BASE, suites=(suite,))
        for suite in ("gsm8k-cot", "mbpp")
    )
    (only,) = distinct([math, code, math])
    assert only.suites == ("gsm8k-cot", "mbpp")


def test_a_cell_comes_after_the_one_it_starts_from():
    first = Cell("llama2-7b-metamath", "llama2-7b", "metamath", "lora")
    second = Cell("llama2-7b-magicoder", "llama2-7b", "magicoder", "lora", after=first)
    assert distinct([second, first]) == [first, second]
    alone = Cell("llama2-7b-magicoder", "llama2-7b", "magicoder", "lora")
    assert alone.identity != second.identity


def test_filters_keep_the_base_models_beside_what_they_leave():
    plan = make("table1", models=["gemma-2b"], methods=["losia"], datasets=["metamath"])
    assert [(cell.method, cell.suites) for cell in plan.cells] == [
        (BASE, ("gsm8k-5shot", "gsm8k-cot")),
        ("losia-pro", ("gsm8k-5shot", "gsm8k-cot")),
    ]
    assert not runs_code(plan.cells)
    assert runs_code(make("table1", datasets=["magicoder"]).cells)


def test_a_filter_takes_a_tables_own_words_and_what_is_laid_over_a_recipe():
    wanted = make("table4", methods=["25"], datasets=["metamathqa_30k"])
    (one,) = trained(wanted)
    assert one.method == "ablations/period-25"
    assert one.resolved.values["dataset"] == "metamathqa_30k"
    assert len(trained(make("table4", datasets=["metamath"]))) == 21


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"table": "tabel1"}, "did you mean table1?"),
        ({"table": "table9"}, "there is no plan of table9; there are table1, table2"),
        ({"table": "table1", "models": ["llama3"]}, "it has gemma-2b, llama2-13b, llama2-7b"),
        ({"table": "table1", "methods": ["loara"]}, "--method: table1 has no loara"),
        ({"table": "table2", "datasets": ["metamath"]}, "--dataset: table2 has no metamath"),
        (
            {"table": "table1", "methods": ["full"], "models": ["llama2-13b"]},
            "trains nothing that is all of --model llama2-13b, --method full",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(asked, says):
    with pytest.raises(UserError, match=says.replace("?", r"\?")):
        make(**asked)


def test_the_papers_hours_and_memory_are_what_is_expected():
    cells = {place.row: place.cell for place in places("table1")}
    assert costs.hours(cells["llama2-7b", "losia"]) == 21.8
    assert costs.hours(cells["llama2-7b", "dora"]) == 68.3
    assert costs.memory(cells["llama2-13b", "full-8bit"]) == 77.1
    assert costs.memory(cells["llama2-7b", BASE]) is None
    wider = {place.column: place.cell for place in places("table10") if place.row == ("llama2-7b",)}
    assert [costs.memory(wider[p]) for p in ("1/16", "1/8", "1/2")] == [21.84, 21.9, 28.73]
    full = next(place.cell for place in places("table3") if place.row == ("full-head",))
    assert costs.memory(full) == 22.84
    by_rate = [place.cell for place in places("table2") if place.row[1] == "lora"]
    assert sum(costs.hours(cell) for cell in by_rate) == pytest.approx(2 * 10.0, rel=0.01)
    for name in set(names()) - {"peft-suite", "compare"}:
        assert all(costs.hours(cell) is not None for cell in make(name).cells)


def test_pefts_hours_and_memory_are_those_of_its_experiment():
    known = {c.all_overrides: c for c in trained(make("peft-suite")) if c.method == "lora"}
    rank = next(cell for overrides, cell in known.items() if "lora_rank=32" in overrides)
    assert costs.hours(rank) == pytest.approx(607.5 / 3600)
    assert costs.memory(rank) == pytest.approx(22.286434304)
    assert costs.hours(rank.with_seed(3)) == costs.hours(rank)
    assert costs.hours(replace(rank, common=("max_steps=20",))) is None
    ours = next(cell for cell in trained(make("peft-suite")) if cell.method == "losia-pro")
    assert (costs.hours(ours), costs.memory(ours)) == (None, None)


def test_a_model_in_a_folder_of_any_name_takes_what_the_paper_s_takes():
    one = next(c for c in make("table1", models=["llama2-7b"]).cells if c.method == "full")
    local = replace(one, common=("model_name_or_path=/models/mine",))
    assert costs.memory(local) == costs.memory(one) == 64.1
    assert costs.disk([local], True) == costs.disk([one], True)
    assert costs.hours(local) == costs.hours(one)


def test_full_fine_tunings_checkpoints_take_more_disk_than_an_adapters():
    full, lora = (make("table1", models=["llama2-7b"], methods=[m]).cells for m in ("full", "lora"))
    assert costs.disk(full, False) > 5 * costs.disk(lora, False)
    assert costs.disk(full, True) == pytest.approx(costs.disk(full, False) + 3 * 13.48)


def test_a_machine_that_is_too_small_is_refused_before_anything_starts(tmp_path, monkeypatch):
    full, lora = (make("table1", models=["llama2-7b"], methods=[m]).cells for m in ("full", "lora"))
    folder = tmp_path / "not there" / "yet"
    with pytest.raises(UserError, match="no GPU is to be seen"):
        costs.expect_enough(lora, folder, False, None)
    with pytest.raises(UserError, match=r"took 64.1 GB .* as published, and this GPU has 48"):
        costs.expect_enough(full, folder, False, 48.0)
    needed = costs.disk(lora, True)
    usage = shutil.disk_usage(tmp_path)
    for free, enough in ((needed * 1.01, True), (needed * 0.99, False)):
        there = usage._replace(free=int(free * 1e9))
        monkeypatch.setattr(shutil, "disk_usage", lambda path, there=there: there)
        if enough:
            costs.expect_enough(lora, folder, True, 48.0)
            continue
        with pytest.raises(UserError, match=rf"GB free, and the plan takes up to {needed:.0f} GB"):
            costs.expect_enough(lora, folder, True, 48.0)
    assert not folder.exists()


def test_a_folder_of_another_plan_is_refused(tmp_path):
    store, (one, *_) = Store(tmp_path, {"miniature": True}), make("table11").cells
    store.open()
    with store.take(one):
        store.save(one, {})
    Store(tmp_path, {"miniature": True})
    with pytest.raises(UserError, match=r"another plan .*miniature True.* name another folder"):
        Store(tmp_path, {"miniature": False})


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written into"):
        Store(tmp_path / "file" / "below", {}).open()


@pytest.mark.parametrize("table", [name for name in names() if name != "peft-suite"])
def test_any_part_of_a_table_can_be_shown(table):
    whole = make(table)
    words = {place.cell.method for place in whole.places} - {BASE}
    parts = [{"methods": [word]} for word in words]
    parts += [{"datasets": [name]} for name in {p.cell.dataset for p in whole.places} - {""}]
    for part in parts:
        plan = make(table, **part)
        rows = collect(plan, lambda cell: None)
        assert rows
        trained = {place.row for place in plan.places if place.cell.method != BASE}
        alone = {place.row for place in plan.places} - trained
        assert all(BASE in row for row in alone), "no row of base models' numbers alone"


@pytest.mark.parametrize(
    ("table", "method", "count"),
    [("compare", "LoRA r=5", 6), ("table3", "synchronous", 2), ("table12", "losia", 9)],
)
def test_a_row_can_be_asked_for_by_the_tables_own_word(table, method, count):
    assert len(trained(make(table, methods=[method]))) == count
