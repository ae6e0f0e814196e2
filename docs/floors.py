"""The folders of `caa_lens` as a house, drawn from a table of imports such as `IMPORTS` in `folders.py`.

A folder stands one floor above the highest that it imports, so every arrow points down. An arrow that follows from
others is left out: who imports `studies` need not be shown to reach what `studies` imports. Arrows to one folder that
pass other floors share one line there. `python docs/write.py docs/architecture.md` writes the drawing and the table of
the page; a test compares both with what is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Imports = Mapping[str, Sequence[str]]
"""Each folder with those that it imports, from the top floor down."""

Item = tuple[str, int]
"""A folder on its floor, or, on another floor, the place where the arrows to that folder pass."""

Arrow = tuple[Item, Item]
"""From a floor to the next one below."""

WIDTH, MARGIN = 500, 10
BOX = (100, 32)
PASSING = 8
GAP, BETWEEN = 12, 28
"""Units of the drawing: 500 is the width of a phone's screen and a half, where the letters can still be read."""

STYLE = (
    ".wall { fill: #ffffff } .box { fill: #eceff1; stroke: #607d8b } .arrow { fill: none; stroke: #78909c } "
    ".head { fill: #78909c } .name { fill: #212121 } "
    "@media (prefers-color-scheme: dark) { .wall { fill: #1f2129 } .box { fill: #37414a; stroke: #90a4ae } "
    ".arrow { stroke: #90a4ae } .head { fill: #90a4ae } .name { fill: #f5f5f5 } }"
)


def floors(imports: Imports) -> dict[str, int]:
    """The floor of each folder: 0 for what imports nothing, else one above the highest that it imports."""
    found: dict[str, int] = {}
    for folder in reversed(list(imports)):
        found[folder] = max((found[below] + 1 for below in imports[folder]), default=0)
    return found


def needed(imports: Imports) -> dict[str, list[str]]:
    """The arrows from which all others follow."""
    reached: dict[str, set[str]] = {}
    for folder in reversed(list(imports)):
        reached[folder] = set(imports[folder]).union(*(reached[below] for below in imports[folder]))
    return {
        folder: [below for below in targets if not any(below in reached[other] for other in targets)]
        for folder, targets in imports.items()
    }


def table(imports: Imports) -> str:
    """Who imports whom, as a table of Markdown from the top floor down."""
    rows = ["| folder | imports | is imported by |", "|---|---|---|"]
    for folder in imports:
        above = [other for other, targets in imports.items() if folder in targets]
        below = [other for other in imports if other in imports[folder]]
        rows.append(f"| **{folder}** | {', '.join(below) or 'nothing'} | {', '.join(above) or 'nothing'} |")
    return "\n".join(rows) + "\n"


def drawing(imports: Imports) -> str:
    """The house as an SVG image: it needs no script and no font, and has a light and a dark side."""
    arrows, of_floor = _arrows(imports), floors(imports)
    rows = _ordered(_rows(imports, arrows), arrows)
    place = _placed(rows, arrows, of_floor)
    top = {item: MARGIN + number * (BOX[1] + BETWEEN) for number, row in enumerate(rows) for item in row}
    height = 2 * MARGIN + len(rows) * BOX[1] + (len(rows) - 1) * BETWEEN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14" role="img" aria-label="The folders of caa_lens on '
        'floors; each imports only what stands below it.">',
        f"<style>{STYLE}</style>",
        f'<rect class="wall" width="{WIDTH}" height="{height}"/>',
    ]
    for one, other in arrows:
        start, end = top[one] + BOX[1], top[other]
        middle, is_folder = (start + end) / 2, of_floor[other[0]] == other[1]
        x, to = place[one], place[other]
        parts.append(f'<path class="arrow" d="M{x:g} {start} C{x:g} {middle:g} {to:g} {middle:g} {to:g} {end}"/>')
        if is_folder:
            parts.append(f'<path class="head" d="M{to:g} {end} l-4 -8 h8 z"/>')
    for item in (item for row in rows for item in row):
        x, y = place[item], top[item]
        if of_floor[item[0]] != item[1]:
            parts.append(f'<path class="arrow" d="M{x:g} {y} v{BOX[1]}"/>')
            continue
        parts.append(f'<rect class="box" x="{x - BOX[0] / 2:g}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="4"/>')
        parts.append(f'<text class="name" x="{x:g}" y="{y + 21}" text-anchor="middle">{item[0]}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrows(imports: Imports) -> list[Arrow]:
    """The needed arrows, cut at every floor that they pass; what arrows to one folder share is there once."""
    of_floor, cut = floors(imports), dict[Arrow, None]()
    for folder, targets in needed(imports).items():
        for target in targets:
            at: Item = (folder, of_floor[folder])
            for floor in range(of_floor[folder] - 1, of_floor[target] - 1, -1):
                cut[at, (target, floor)] = None
                at = (target, floor)
    return list(cut)


def _rows(imports: Imports, arrows: Sequence[Arrow]) -> list[list[Item]]:
    """What stands or passes on each floor, the top one first."""
    of_floor = floors(imports)
    items = dict.fromkeys([*of_floor.items(), *(item for arrow in arrows for item in arrow)])
    return [[item for item in items if item[1] == floor] for floor in range(max(of_floor.values()), -1, -1)]


def _crossings(rows: Sequence[Sequence[Item]], arrows: Sequence[Arrow]) -> int:
    """How often arrows cross, with the items of each floor in this order."""
    at = {item: number for row in rows for number, item in enumerate(row)}
    pairs = [(one, other) for number, one in enumerate(arrows) for other in arrows[number + 1 :]]
    return sum((at[a] - at[c]) * (at[b] - at[d]) < 0 for (a, b), (c, d) in pairs if a[1] == c[1])


def _ordered(rows: Sequence[Sequence[Item]], arrows: Sequence[Arrow]) -> list[list[Item]]:
    """The items of each floor in an order with few crossings: each near the middle of those that it is joined to."""
    best = now = [list(row) for row in rows]
    fewest = _crossings(now, arrows)
    for turn in range(24):
        now = [list(row) for row in now]
        ways = range(1, len(now)) if turn % 2 == 0 else range(len(now) - 2, -1, -1)
        for number in ways:
            beside = now[number - 1 if turn % 2 == 0 else number + 1]
            at = {item: (place + 0.5) / len(beside) for place, item in enumerate(beside)}
            own = {item: (place + 0.5) / len(now[number]) for place, item in enumerate(now[number])}
            middle = {
                item: _mean([at[each] for each in _joined(item, arrows) if each in at], own[item]) for item in own
            }
            now[number].sort(key=lambda item, middle=middle: middle[item])
        if (crossings := _crossings(now, arrows)) < fewest:
            best, fewest = now, crossings
    return best


def _joined(item: Item, arrows: Sequence[Arrow]) -> list[Item]:
    return [other if one == item else one for one, other in arrows if item in (one, other)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _placed(rows: Sequence[Sequence[Item]], arrows: Sequence[Arrow], of_floor: Mapping[str, int]) -> dict[Item, float]:
    """The middle of each item, left to right: as near as its floor's others let it to those that it is joined to."""
    wide = {item: BOX[0] if of_floor[item[0]] == item[1] else PASSING for row in rows for item in row}
    place = {item: WIDTH / 2 for row in rows for item in row}
    for row in rows:
        place |= _spread(row, wide, [WIDTH * (number + 0.5) / len(row) for number in range(len(row))])
    for turn in range(60):
        for row in rows if turn % 2 == 0 else rows[::-1]:
            place |= _spread(row, wide, [_wanted(item, arrows, place, wide) for item in row])
    return {item: round(middle) for item, middle in place.items()}


def _wanted(item: Item, arrows: Sequence[Arrow], place: Mapping[Item, float], wide: Mapping[Item, int]) -> float:
    """In the middle of what it is joined to; a line goes straight on where it can."""
    joined = _joined(item, arrows)
    line = [each for each in joined if wide[item] == wide[each] == PASSING]
    return _mean([place[each] for each in line or joined], WIDTH / 2)


def _spread(row: Sequence[Item], wide: Mapping[Item, int], wanted: Sequence[float]) -> dict[Item, float]:
    """Middles as near to the wanted ones as may be, in order, a gap between neighbours, all within the margins."""
    before = [0.0]
    for one, other in zip(row, row[1:], strict=False):
        before.append(before[-1] + (wide[one] + wide[other]) / 2 + GAP)
    blocks: list[
        tuple[float, int, int]
    ] = []  # neighbours that stand together: the mean wanted, its weight, their number
    for item, want, offset in zip(row, wanted, before, strict=True):
        mean, weight, count = want - offset, 1 if wide[item] == BOX[0] else 8, 1
        while blocks and blocks[-1][0] > mean:
            other, more, others = blocks.pop()
            mean = (mean * weight + other * more) / (weight + more)
            weight, count = weight + more, count + others
        blocks.append((mean, weight, count))
    low = MARGIN + wide[row[0]] / 2
    high = WIDTH - MARGIN - wide[row[-1]] / 2 - before[-1]
    shifts = [max(low, min(mean, high)) for mean, _, count in blocks for _ in range(count)]
    return {item: shift + offset for item, shift, offset in zip(row, shifts, before, strict=True)}
