"""`losia reproduce` from a table's name to the table: plan, check, run, render."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.evaluation.sandbox import find_sandbox
from losia_cli.files import write_atomically
from losia_cli.processes import EXIT_INTERRUPTED, Stopped
from losia_cli.recipes.needs import needs_gpu
from losia_cli.reproduction import costs, outlook, render
from losia_cli.reproduction.agreement import disagreements, shortened
from losia_cli.reproduction.cell import BASE, Cell
from losia_cli.reproduction.live import LivePlan
from losia_cli.reproduction.numbers import collect
from losia_cli.reproduction.plan import MODEL, Plan, make, runs_code
from losia_cli.reproduction.run import run_cells, to_do, visible_gpu
from losia_cli.reproduction.store import DONE, FAILED, RUNNING, Store
from losia_cli.reproduction.tables import COMPARE, published

EXIT_UNFINISHED = 1
_WIDE = 150  # columns of a table that goes to a file
SANDBOXED = "sandboxed"
_CODE = {SANDBOXED: "true", "unsandboxed": "unsandboxed"}  # the option's values, the key's


@dataclass(frozen=True)
class Request:
    """What `losia reproduce` was asked for."""

    table: str
    models: Sequence[str] = ()
    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    seeds: Sequence[int] = ()
    overrides: Sequence[str] = ()
    output: Path | None = None
    data: Path | None = None
    allow_code: str | None = None
    keep: bool = False
    miniature: bool = False

    @property
    def root(self) -> Path:
        """The folder of all cells."""
        return self.output or Path("runs/reproduce-mini" if self.miniature else "runs/reproduce")


def dry_run(request: Request, console: Console) -> None:
    """Print the cells of a plan, what they take, and whether they can run here."""
    store, plan = store_of(request), plan_of(request)
    left = _checked(plan, _whole(request, plan), store)
    console.print(outlook.table(plan, store))
    for line in outlook.lines(plan, left, store):
        console.print(line)
    _warn_of_few_rows(left, request, console)
    try:
        _expect_runnable(plan.table, left, request, store)
    except UserError as error:
        console.print(f"cannot run here: {error}", style="yellow")


def show(request: Request, console: Console) -> None:
    """Print a table from what has been measured so far, and write it to files."""
    plan = plan_of(request)
    _report(plan, _whole(request, plan), store_of(request), console)


def reproduce(request: Request, console: Console) -> int:
    """Measure what is missing of a table, then print and write it; the exit code.

    Raises:
        UserError: the plan, its folder, its data or the machine cannot work, and nothing was
            started; or rows changed meanwhile, and what was measured is shown.
    """
    store, plan = store_of(request), plan_of(request)
    whole = _whole(request, plan)
    left = _checked(plan, whole, store)
    _expect_runnable(plan.table, left, request, store)
    store.open()
    from losia_cli.reproduction import inputs, miniature

    world = miniature.make(_world(request), console) if request.miniature else None
    inputs.make(left, world, console)
    if world is None and not request.data:
        with console.status("looking for what is asked, on the hub"):
            inputs.expect_documents(left)
    store.expect_same_data(whole.cells, left)  # once more, with what was made just now
    _warn_of_few_rows(left, request, console)
    following = LivePlan(plan.cells, store, console)

    def watch(cell: Cell | None, seconds: float) -> None:
        following.watch(cell, seconds)
        if cell is None:
            _write(whole, store)  # a table of weeks is there as far as it has come

    try:
        with following.live:
            run_cells(plan.cells, store, request.keep, watch, whole.cells)
    except Stopped:
        console.print("stopped; the same command goes on from here")
        return EXIT_INTERRUPTED
    except UserError:  # rows were prepared anew meanwhile
        _report(plan, whole, store, console)
        raise
    _report(plan, whole, store, console)
    return _tell_unfinished(plan, store, console)


def _warn_of_few_rows(left: Sequence[Cell], request: Request, console: Console) -> None:
    from losia_cli.reproduction.inputs import few_rows

    if not request.miniature and request.table != COMPARE:
        for what in few_rows(left):
            console.print(f"warning: {what}", style="yellow")


def plan_of(request: Request) -> Plan:
    """The plan that is asked for.

    Raises:
        UserError: a name that the table does not have, a folder that is not there, or a key that
            the table tries several values of.
    """
    if request.data and not request.data.is_dir():
        raise UserError(f"--data: there is no folder {request.data}")
    filters = request.models, request.methods, request.datasets
    plan = make(request.table, *filters, request.seeds, _change(request))
    for key in (text.partition("=")[0] for text in request.overrides):
        if key in plan.own_keys:
            advice = "take one of its models with --model" if key == MODEL else "leave it out"
            raise UserError(
                f"{key}: {request.table} gives it values of its own, by which its numbers are"
                f" named: {advice}"
            )
    return plan


def _whole(request: Request, plan: Plan) -> Plan:
    """The plan without its filters; a model that is named is that of the filtered one alone."""
    models = {cell.model for cell in plan.cells}
    named = [text for text in request.overrides if text.partition("=")[0] != MODEL]
    mine, others = _change(request), _change(replace(request, overrides=named))

    def change(cell: Cell) -> Cell:
        return (mine if cell.model in models else others)(cell)

    return make(request.table, seeds=request.seeds, change=change)


def _checked(plan: Plan, whole: Plan, store: Store) -> list[Cell]:
    """The cells that are to do; what no recipe may say, and an edited result, are refused."""
    for cell in plan.cells:
        recipes.check(cell.resolved)
    left = to_do(plan.cells, store)
    store.expect_same_data(whole.cells, left)
    return left


def _change(request: Request) -> Callable[[Cell], Cell]:
    """What is laid over every cell."""
    return _miniature(request) if request.miniature else _full(request)


def _full(request: Request) -> Callable[[Cell], Cell]:
    from losia_cli.reproduction.inputs import packaged_model

    model = recipes.override("model_name_or_path", packaged_model())
    small = [model] if request.table == COMPARE else []
    return lambda cell: _laid_over(cell, lambda _: [*small, *_asked_for(request)])


def _miniature(request: Request) -> Callable[[Cell], Cell]:
    from losia_cli.reproduction.miniature import at, overrides

    world = at(_world(request))

    def smaller(cell: Cell) -> list[str]:
        return [*overrides(world, cell), *_asked_for(request)]

    return lambda cell: _laid_over(cell, smaller)


def _world(request: Request) -> Path:
    return request.root / "world"


def _asked_for(request: Request) -> list[str]:
    data = [recipes.override("eval_data", request.data.absolute())] if request.data else []
    code = [f"eval_allow_code={_CODE[request.allow_code]}"] if request.allow_code else []
    return [*data, *code, *request.overrides]


def _laid_over(cell: Cell, common: Callable[[Cell], list[str]]) -> Cell:
    after = cell.after and _laid_over(cell.after, common)
    return replace(cell, common=tuple(common(cell)), after=after)


def store_of(request: Request) -> Store:
    """Where its cells are kept.

    Raises:
        UserError: the folder holds another plan's.
    """
    kind = {
        "miniature": request.miniature,
        "overrides": [text for text in request.overrides if text.partition("=")[0] != MODEL],
        "data": str(request.data.absolute()) if request.data else None,
    }
    return Store(request.root, kind)


def _expect_runnable(table: str, left: Sequence[Cell], request: Request, store: Store) -> None:
    if runs_code(left) and not request.allow_code:
        raise UserError(
            f"{table} scores MBPP, for which programs that the models write are run: allow it,"
            " in a sandbox, with --allow-code, or leave it out with --dataset"
        )
    if runs_code(left) and request.allow_code == SANDBOXED:
        find_sandbox()  # before the trainings, not after them
    if request.data:
        from losia_cli.reproduction.inputs import expect_documents

        expect_documents(left)
    if any(needs_gpu(cell.resolved.values) for cell in left if cell.method != BASE):
        costs.expect_enough(left, store.root, request.keep, costs.gpu())
        store.expect_idle(visible_gpu(os.environ))


def _report(plan: Plan, whole: Plan, store: Store, console: Console) -> None:
    """Print the plan's numbers; the files have those of the whole table."""
    beside, title = published(plan.table), _title(plan, store)
    wide = console if console.is_terminal else Console(file=console.file, width=_WIDE, markup=False)
    numbers = collect(plan, store.result)
    wide.print(render.terminal(title, numbers, beside.fields, beside.note, wide.width))
    for what in _reservations(plan, store):
        console.print(f"warning: {what}", style="yellow", markup=False, soft_wrap=True)
    if any(store.state(cell) in (DONE, FAILED) for cell in whole.cells):
        paths = _write(whole, store)
        console.print(f"written: {', '.join(map(str, paths))}", soft_wrap=True)


def _reservations(plan: Plan, store: Store) -> list[str]:
    """What keeps its numbers from being compared, with each other or the paper's."""
    results = [store.result(cell) for cell in plan.cells]
    few = [] if store.kind["miniature"] else shortened(results)
    return [*disagreements(results), *few]


def _title(plan: Plan, store: Store) -> str:
    apart = "; in miniature, whose scores mean nothing" if store.kind["miniature"] else ""
    return render.title(plan.table) + apart


def _write(whole: Plan, store: Store) -> list[Path]:
    """The table's files, those that were written."""
    numbers, beside = collect(whole, store.result), published(whole.table)
    page, data, picture = (store.root / f"{whole.table}.{end}" for end in ("md", "csv", "png"))
    reserved = [f"Note: {what}." for what in _reservations(whole, store)]
    note = "\n\n".join(text for text in (beside.note, *reserved) if text)
    write_atomically(page, render.markdown(_title(whole, store), numbers, beside.fields, note))
    write_atomically(data, render.comma_separated(numbers, beside.fields))
    if whole.table == COMPARE:
        from losia_cli.reproduction.plot import draw

        draw(numbers, picture)
    return [path for path in (page, data, picture) if path.is_file()]


def _tell_unfinished(plan: Plan, store: Store, console: Console) -> int:
    states = {cell: store.state(cell) for cell in plan.cells}
    for cell, state in states.items():
        if state == FAILED:
            console.print(f"failed: {cell.title}; its log: {store.log(cell)}", soft_wrap=True)
        elif state == RUNNING:
            console.print(f"running in another process: {cell.title}", soft_wrap=True)
        elif state != DONE:
            console.print(f"not begun: {cell.title}", soft_wrap=True)
    if all(state == DONE for state in states.values()):
        return 0
    console.print("the same command does what is missing")
    return EXIT_UNFINISHED
