"""A QR code for a terminal: a phone, or another machine with a camera, opens the page without typing its address.

Two rows of the code are one line of text. Knows nothing of what the text means.
"""

from __future__ import annotations

from ovirt_imageio import errors

__all__ = ["check", "draw"]

# The light border that readers ask for.
BORDER = 4

# By what is dark: the upper and the lower half.
HALVES = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}

# Black on white, whatever the colors of the terminal are: a reader wants it so.
COLORS = ("\033[30;107m", "\033[0m")


def check() -> None:
    """Raise errors.BackendUnavailable if no code can be drawn here."""
    try:
        import segno  # noqa: F401
    except ImportError as e:
        reason = "segno is missing; install python3-segno, or pip install 'ovirt-imageio[qr]'"
        raise errors.BackendUnavailable("draw a QR code", reason) from e


def draw(text: str, has_colors: bool) -> str:
    """Return the lines of a code; without colors it is for a terminal that is dark on light."""
    import segno

    rows = [[bool(module) for module in row] for row in segno.make_qr(text, error="l").matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    begin, end = COLORS if has_colors else ("", "")
    lines = ("".join(HALVES[pair] for pair in zip(upper, lower)) for upper, lower in zip(rows[::2], rows[1::2]))
    return "\n".join(f"{begin}{line}{end}" for line in lines)
