"""Whether a table holds what its entry in dataset_info.json says, and the stage needs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from losia_cli.data import info
from losia_cli.data.conversion import Defect, defect
from losia_cli.data.formats import PAIRED, Columns, needs, suggest
from losia_cli.data.info import Entry
from losia_cli.data.rows import Table
from losia_cli.data.shape import BOOLEAN, ITEM, LIST, OBJECT, TEXT, Clash, Field, learn
from losia_cli.spelling import nearest

_NEEDED_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag")
_ADVICE = "; say under columns what each of the rows' columns is for"


@dataclass
class Fit:
    """A table with rows, held against its entry and the stage.

    Attributes:
        table: the rows.
        entry: what dataset_info.json says of them.
        stage: LLaMA-Factory's, or `PREDICT`.
        limit: how many rows are trained on, from the first; None: all.
    """

    table: Table
    entry: Entry
    stage: str
    limit: int | None
    columns: Columns = field(init=False)
    clashes: list[Clash] = field(init=False)

    def __post_init__(self) -> None:
        self.columns, self.clashes = learn(self.table.rows)

    def faults(self) -> Iterator[str]:
        """One sentence on each misfit; rows are looked at one by one if their columns fit."""
        misfits = [*self._entry_misfits(), *self._missing_columns(), *self._missing_parts()]
        if misfits:
            misfits[-1] += self._spelling() or self._suggestion() or _ADVICE
        wrong = [
            *self._clashes(),
            *self._late_columns(),
            *self._wrong_kinds(),
            *self._incomplete_rows(),
        ]
        yield from misfits + wrong
        if not misfits and not wrong:
            yield from self._defective_rows()

    def _entry_misfits(self) -> Iterator[str]:
        """What the entry says and the stage cannot use, or leaves out and the stage needs."""
        where, stage = f"{self.entry.info}, {self.entry.name}", self.stage
        if self.entry.ranking and stage not in PAIRED:
            yield f"{where}: ranking: true is for dpo and rm, not for the stage {stage}"
        if not self.entry.ranking and stage in PAIRED:
            yield f'{where}: the stage {stage} needs "ranking": true, and two answers in each row'
        unsaid = [
            role for role in needs(self.entry.formatting, stage) if role not in self.entry.columns
        ]
        if unsaid:
            yield f"{where}: columns does not say which column is {' and which is '.join(unsaid)}"
        if self.entry.formatting != "alpaca":
            tags = [tag for tag in _NEEDED_TAGS if tag not in self.entry.tags]
            if tags:
                yield f"{where}: tags has no {' and no '.join(tags)}"

    def _missing_columns(self) -> Iterator[str]:
        if missing := self._missing():
            there = f"its columns are {', '.join(self.columns) or 'none'}"
            absent = f"there is no column {' and no '.join(missing)}"
            yield f"{self.table.place(0)}: {absent} ({there})"

    def _missing_parts(self) -> Iterator[str]:
        """Messages that lack what the tags say they have."""
        for message in self._messages():
            missing = [tag for tag in self._message_tags() if tag not in message.parts]
            if message.kind is OBJECT and missing:
                there = f"it has {', '.join(message.parts) or 'nothing'}"
                absent = f"a message has no {' and no '.join(missing)} ({there})"
                yield f"{self.table.place(message.row)}, column {message.name}: {absent}"

    def _wrong_kinds(self) -> Iterator[str]:
        expected = self._expected().items()
        wanted = [(self.columns.get(self.entry.columns[role]), kind) for role, kind in expected]
        for message in self._messages():
            wanted.append((message, OBJECT))
            wanted += [(message.parts.get(tag), TEXT) for tag in self._message_tags()]
        for column, kind in wanted:
            if column is not None and kind is not None and column.kind not in (kind, None):
                held = f"{column.holds()}, and must hold {kind}"
                yield f"{self.table.place(column.row)}, column {column.name} holds {held}"

    def _clashes(self) -> Iterator[str]:
        for clash in self.clashes:
            before = f"{self.table.place(clash.field.row)} holds {clash.field.holds()}"
            held = f"column {clash.field.name} holds {clash.kind}, where {before}"
            yield f"{self.table.place(clash.row)}, {held}; a column must hold one kind of value"

    def _late_columns(self) -> Iterator[str]:
        piece = self.table.first_piece
        for late in _late(self.columns, piece):
            held = f"column {late.name} holds its first value, {late.holds()}"
            rule = f"the loader fixes columns and kinds after row {piece:,}"
            yield f"{self.table.place(late.row)}: {held}, and {rule}; move this row to the top"

    def _incomplete_rows(self) -> Iterator[str]:
        """Rows without a column that others have and the stage cannot do without.

        LLaMA-Factory drops them in silence, as it drops nulls; but nobody leaves a key out of some
        rows on purpose.
        """
        for role in needs(self.entry.formatting, self.stage):
            name = self.entry.columns.get(role)
            chosen = self.table.rows[: self.limit] if name in self.columns else []
            if lacking := [index for index, row in enumerate(chosen) if name not in row]:
                there = f"its columns are {', '.join(chosen[lacking[0]]) or 'none'}"
                more = f", one of {len(lacking):,} such rows" if len(lacking) > 1 else ""
                absent = f"there is no column {name}, which other rows have ({there}{more})"
                yield f"{self.table.place(lacking[0])}: {absent}; add it or take the row out"

    def defects(self) -> dict[int, Defect]:
        """The rows that cannot be trained on, by their number, where all columns fit."""
        return {
            index: found
            for index, row in enumerate(self.table.rows[: self.limit])
            if (found := defect(row, self.entry, self.stage)) is not None
        }

    def _defective_rows(self) -> Iterator[str]:
        chosen, defects = self.table.rows[: self.limit], self.defects()
        fatal = [index for index in defects if defects[index].fatal]
        if fatal:
            more = f" (one of {len(fatal):,} rows that cannot be used)" if len(fatal) > 1 else ""
            why = f"{self.table.place(fatal[0])} {defects[fatal[0]].why}{more}"
            yield f"{why}; mend it or take it out"
        elif defects and len(defects) == len(chosen):
            why = f"{self.table.place(0)} {defects[0].why}"
            none = f"none of its rows ({len(chosen):,}) can be trained on"
            yield f"{self.entry.path}: {none}: {why}{self._suggestion()}"

    def _expected(self) -> dict[str, str | None]:
        """What LLaMA-Factory reads a column for -> what it must hold (None: anything)."""
        alpaca, openai = (self.entry.formatting == name for name in ("alpaca", "openai"))
        kinds: dict[str, str | None] = {"kto_tag": BOOLEAN}
        kinds |= dict.fromkeys(("images", "videos", "audios"))
        if alpaca:
            kinds |= {"prompt": TEXT, "query": TEXT, "history": LIST}
        else:
            kinds |= {"messages": LIST}
        if not openai:  # which does without these columns, and takes tools as they are
            kinds |= {"system": TEXT, "tools": TEXT}
        if self.entry.ranking:
            kinds |= dict.fromkeys(("chosen", "rejected"), TEXT if alpaca else OBJECT)
        elif alpaca:
            kinds |= {"response": TEXT}
        return {role: kind for role, kind in kinds.items() if role in self.entry.columns}

    def _messages(self) -> Iterator[Field]:
        """The fields that hold one message: the items of messages, and two answers."""
        if self.entry.formatting == "alpaca":
            return
        for role, kind in self._expected().items():
            column = self.columns.get(self.entry.columns[role])
            if column is None or column.kind is not kind:
                continue
            if kind is OBJECT:
                yield column
            elif kind is LIST and ITEM in column.parts:
                yield column.parts[ITEM]

    def _message_tags(self) -> list[str]:
        tags = self.entry.tags
        return [tags[tag] for tag in ("role_tag", "content_tag") if tag in tags]

    def _missing(self) -> list[str]:
        names = [self.entry.columns[role] for role in self._expected()]
        return [name for name in names if name not in self.columns]

    def _spelling(self) -> str:
        """Which columns were meant, where some are missing and all of those merely misspelt."""
        guesses = [nearest(name, self.columns) for name in self._missing()]
        if self.entry.columns == info.DEFAULT_COLUMNS or not guesses or not all(guesses):
            return ""
        return f"; did you mean {' and '.join(' or '.join(names) for names in guesses)}?"

    def _suggestion(self) -> str:
        """What to write in dataset_info.json instead, where the columns tell."""
        entry, suggested = self.entry, suggest(self.columns, self.stage)
        if suggested is None or self._says(suggested):
            return ""
        written = json.dumps(suggested, ensure_ascii=False)[1:-1]
        return f"; in {entry.info}, write for {entry.name}: {written}"

    def _says(self, suggested: dict[str, Any]) -> bool:
        """Whether the entry says all that already, and names no column that is not there."""
        tags = suggested.get("tags", info.DEFAULT_TAGS)
        return (
            not self._missing()
            and suggested["formatting"] == self.entry.formatting
            and suggested.get("ranking", False) == self.entry.ranking
            and suggested["columns"].items() <= self.entry.columns.items()
            and (self.entry.formatting == "alpaca" or tags.items() <= self.entry.tags.items())
        )


def _late(columns: Columns, first_piece: int) -> Iterator[Field]:
    for column in columns.values():
        if column.row >= first_piece:
            yield column
        else:
            yield from _late(column.parts, first_piece)
