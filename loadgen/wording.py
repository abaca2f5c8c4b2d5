"""Small pieces of English, for reports that put numbers into sentences."""

ENDINGS = {1: "st", 2: "nd", 3: "rd"}


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th; 11th to 13th, and then again 21st."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ENDINGS.get(number % 10, 'th')}"


def plural(noun: str, count: int) -> str:
    """The noun, in its plural unless there is exactly one."""
    if count == 1:
        return noun
    return f"{noun[:-1]}ies" if noun == "copy" else f"{noun}s"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def ms(value: float | None) -> str:
    """A figure in milliseconds, without its unit; a dash for none."""
    return "-" if value is None else f"{value:.1f}"


def ms_range(values_ms: list[float]) -> str:
    """`3.1 to 4.5 ms`, or one figure where both ends read the same."""
    low, high = ms(min(values_ms)), ms(max(values_ms))
    return f"{low} ms" if low == high else f"{low} to {high} ms"
