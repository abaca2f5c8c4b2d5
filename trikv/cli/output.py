"""What a command prints: documents for programs, lines and tables for people.

Rules
- Standard output carries what was asked for and nothing else; all that is said about it goes to
  standard error. With `--json` both carry JSON, one document a line.
- Colour and width are for terminals. A pipe gets neither a control code nor a text cut short, and so
  does a terminal with NO_COLOR set (https://no-color.org) as far as colours go.
- A key or a value may hold anything, also what a terminal would obey. People are shown such characters
  escaped; programs get them as JSON has them.
- An output that is gone (`| head -1`) ends the command, without a word: ClosedPipe.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TextIO

from trikv.cli.outcome import ClosedPipe, CommandError, failed

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan", "reverse"]

_CODES: Mapping[Style, str] = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "cyan": "36",
    "reverse": "7",
}

#: Eighths of a cell, for bars.
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"

Cell = str | tuple[str, Style]


class Output:
    """Both streams of a command, and how to write on them."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        environment = os.environ if environment is None else environment
        for stream in (self.out, self.err):
            if hasattr(stream, "reconfigure"):
                # Half of a surrogate pair in an argument, or a character that the terminal lacks.
                stream.reconfigure(errors="backslashreplace")
        self.is_terminal = _is_terminal(self.out)
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        self.coloured = self.is_terminal and not plain and not as_json
        self._coloured_err = _is_terminal(self.err) and not plain and not as_json

    @property
    def width(self) -> int | None:
        """Of the terminal; None if this is none, so that nothing need be cut short."""
        return shutil.get_terminal_size((80, 24)).columns if self.is_terminal else None

    # -- standard output --------------------------------------------------------------------------

    def document(self, document: Mapping[str, Any], *, flush: bool = False) -> None:
        """One JSON document, on one line."""
        self._write(self._encoded(document, self.out) + "\n", flush=flush)

    def line(self, text: str = "", *, flush: bool = False) -> None:
        """A line for people."""
        self._write(text + "\n", flush=flush)

    def lines(self, lines: Sequence[str]) -> None:
        self._write("".join(f"{line}\n" for line in lines), flush=True)

    def over(self, text: str) -> None:
        """In place of the terminal's last line, which it stays on."""
        self._write(f"\r\x1b[K{text}", flush=True)

    def flush(self) -> None:
        """Raises ClosedPipe, CommandError: what was printed has not arrived."""
        self._write("", flush=True)

    def _write(self, text: str, *, flush: bool) -> None:
        try:
            self.out.write(text)
            if flush:
                self.out.flush()
        except OSError as error:
            let_go(self.out)
            # Windows says EINVAL where others say EPIPE.
            if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:
                raise ClosedPipe from None
            detail = f"cannot write the output: {error.strerror or error}"
            raise failed(detail, code="output_failed") from None

    # -- standard error ---------------------------------------------------------------------------

    def say(self, text: str, style: Style = "dim") -> None:
        """What is said beside the answer; not with --json."""
        if not self.as_json:
            self._complain(paint(text, style, on=self._coloured_err))

    def error(self, error: CommandError) -> None:
        """What ended the command."""
        if self.as_json:
            self._complain(self._encoded(error.document, self.err))
            return
        text = f"trikv: {visible_lines(error.detail)}"
        self._complain(paint(text, "red", on=self._coloured_err))
        if error.hint is not None:
            self._complain(visible_lines(error.hint))

    def _complain(self, text: str) -> None:
        with suppress(OSError, ValueError):  # closed, and there is nowhere else to say it
            self.out.flush()
        with suppress(OSError, ValueError):
            self.err.write(text + "\n")
            self.err.flush()

    @staticmethod
    def _encoded(document: Mapping[str, Any], stream: TextIO) -> str:
        utf8 = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
        text = json.dumps(document, ensure_ascii=not utf8, separators=(",", ":"))
        return text if text.isascii() or _is_encodable(text) else json.dumps(document)

    # -- parts ------------------------------------------------------------------------------------

    def paint(self, text: str, style: Style) -> str:
        return paint(text, style, on=self.coloured)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
        """Lines of a table; its last column may be cut short so that it fits."""
        return table(heads, rows, width=self.width, coloured=self.coloured)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def let_go(stream: TextIO) -> None:
    """Whatever is still in its buffer goes nowhere, quietly, also at the interpreter's end."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


# -- texts --------------------------------------------------------------------------------------------


def paint(text: str, style: Style, *, on: bool) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if on and text else text


def visible(text: str) -> str:
    """The text with whatever a terminal would obey, or not show, escaped."""
    return text if text.isprintable() else "".join(map(_visible_character, text))


def visible_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def _visible_character(character: str) -> str:
    if character.isprintable():
        return character
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def shown_json(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON for people: the same JSON, with nothing in it that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return visible_lines(text)


def cells(text: str) -> int:
    """How many columns a terminal needs for it."""
    return sum(map(_cells_of, text)) if not text.isascii() else len(text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int) -> str:
    """The text, cut short with an ellipsis if it needs more columns than that."""
    if cells(text) <= width:
        return text
    kept, used = [], 1
    for character in text:
        used += _cells_of(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    width: int | None,
    coloured: bool,
) -> list[str]:
    """Columns as wide as they must be, two spaces apart; a head that begins with `>` is right-aligned.

    In a terminal the last column gets what the others leave; if even that is too wide, lines are cut.
    """
    names = [head.removeprefix(">") for head in heads]
    plain = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows]
    widths = [max(map(cells, column)) for column in zip(names, *plain, strict=True)]
    if width is not None:
        others = sum(widths[:-1]) + 2 * (len(widths) - 1)
        widths[-1] = max(min(widths[-1], width - others), min(widths[-1], 8))
    lines = []
    for row in (names, *rows):
        parts = []
        for i, (cell, head, size) in enumerate(zip(row, heads, widths, strict=True)):
            text, style = (cell, None) if isinstance(cell, str) else cell
            text = clip(text, size)
            text = text if i == len(widths) - 1 else pad(text, size, right=head.startswith(">"))
            parts.append(text if style is None else paint(text, style, on=coloured))
        line = "  ".join(parts).rstrip()
        lines.append(paint(line, "dim", on=coloured) if row is names else line)
    return lines


def bar(fraction: float, width: int) -> str:
    """A bar of so many columns at most; whatever is not nothing is seen."""
    eighths = round(max(0.0, min(fraction, 1.0)) * width * 8)
    if fraction > 0:
        eighths = max(eighths, 1)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def sparkline(values: Sequence[float]) -> str:
    """A level for each value, the greatest one full."""
    top = max(values, default=0) or 1
    return "".join(_LEVELS[min(7, int(value / top * 7.999))] for value in values)


def count(number: float) -> str:
    """12,345"""
    return f"{number:,.0f}"


def milliseconds(value: float) -> str:
    """A time, short enough for a table."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else duration(value / 1000)


def duration(seconds: float) -> str:
    """1.5 s, 12 s, 3 min, 2 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def plural(noun: str, number: int) -> str:
    """`1 follower`, `2 followers`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
