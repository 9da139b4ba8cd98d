"""A run's loss as a picture: in characters for the terminal, and as PNG. Knows not where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[float, float]]


def chart(curves: Mapping[str, Points], marks: Mapping[float, str], width: int = 72, height: int = 14) -> str:
    """Curves by name, each with the first letter of its name; where two meet, `=`. Marks are verticals at an x."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return "nothing to draw"
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = (right - left) or 1.0, (high - low) or 1.0
    grid = [[" "] * width for _ in range(height)]

    def column(x: float) -> int:
        return round((x - left) / across * (width - 1))

    for x in marks:
        if left <= x <= right:
            for row in grid:
                row[column(x)] = ":"
    for name, curve in curves.items():
        for x, y in curve:
            line, at = grid[height - 1 - round((y - low) / up * (height - 1))], column(x)
            line[at] = name[0] if line[at] in (" ", ":", name[0]) else "="
    lines = [f"{high:8.3f} |" + "".join(grid[0])]
    lines += ["         |" + "".join(row) for row in grid[1:-1]]
    lines += [f"{low:8.3f} |" + "".join(grid[-1]), "         +" + "-" * width]
    lines.append(f"          round {left:.0f}" + f"round {right:.0f}".rjust(width - len(f"round {left:.0f}")))
    lines.append("          " + ", ".join([f"{name[0]} {name}" for name in curves] + ["= both"]))
    lines += [f"          : at round {x:.0f}, {text}" for x, text in sorted(marks.items())]
    return "\n".join(line.rstrip() for line in lines)


def draw(path: Path, title: str, curves: Mapping[str, Points], marks: Mapping[float, str]) -> None:
    """The same as PNG. Raises ImportError where matplotlib, of the extra `plot`, is not installed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for style, (name, curve) in zip(("-", "--", ":"), curves.items(), strict=False):
        axes.plot([x for x, _ in curve], [y for _, y in curve], style, label=name)
    for x, text in sorted(marks.items()):
        axes.axvline(x, color="grey", linewidth=0.8)
        axes.annotate(text, (x, 0.97), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", size=8)
    axes.set(title=title, xlabel="round", ylabel="training loss (nats)", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
