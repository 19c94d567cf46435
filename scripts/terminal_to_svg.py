#!/usr/bin/env python3
"""Runs a command in a terminal and draws what is on the screen at its end as SVG, on stdout: `make screenshots`.

    terminal_to_svg.py [--columns N] [--shown COMMAND] [--status N] [--replace OLD=NEW]... -- COMMAND [ARGUMENT]...

--shown is what stands behind the prompt, --status how the command has to end (0). --replace puts another text in the place of
what only this machine has, such as a temporary directory.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from xml.sax.saxutils import escape

# Widths of one character of the font below, and heights of one line.
WIDTH, HEIGHT, MARGIN, BAR = 8.43, 18, 16, 34
FOREGROUND, BACKGROUND = "#d6deeb", "#11161d"
COLOURS = ["#5c6773", "#ff6b6b", "#7ee787", "#ffd166", "#79c0ff", "#d2a8ff", "#76e3ea", "#d6deeb"]


def run(command, columns):
    """Returns how the command ended, and all that it wrote to its terminal."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    child = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
    os.close(its)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            # The other end is closed.
            break
        if not piece:
            break
        written += piece
    return child.wait(), written.decode()


def screen(text):
    """Returns the lines as they are on the screen at the end: each a list of characters with their style."""
    lines, row, column, style = [[]], 0, 0, (None, False, False)
    at = 0
    while at < len(text):
        control = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])").match(text, at)
        if control:
            numbers = [int(n) if n.isdigit() else 0 for n in control[1].split(";")]
            kind = control[2]
            if kind == "m":
                style = restyled(style, numbers)
            elif kind == "K":
                lines[row] = [] if numbers[0] == 2 else lines[row][:column]
            elif kind == "A":
                row = max(0, row - max(1, numbers[0]))
            elif kind not in "hl":
                raise SystemExit(f"terminal_to_svg.py: what is {control[0]!r}?")
            at = control.end()
            continue
        character = text[at]
        at += 1
        if character == "\n":
            row += 1
            if row == len(lines):
                lines.append([])
        elif character == "\r":
            column = 0
        else:
            line = lines[row]
            line.extend([(" ", style)] * (column + 1 - len(line)))
            line[column] = (character, style)
            column += 1
    while lines and not "".join(c for c, _ in lines[-1]).strip():
        lines.pop()
    return lines


def restyled(style, numbers):
    """Returns the style (colour, bold, faint) after an instruction."""
    colour, bold, faint = style
    for number in numbers:
        if number == 0:
            colour, bold, faint = None, False, False
        elif number == 1:
            bold = True
        elif number == 2:
            faint = True
        elif number == 22:
            bold = faint = False
        elif number == 39:
            colour = None
        elif 30 <= number <= 37:
            colour = number - 30
        elif 90 <= number <= 97:
            colour = number - 90
    return colour, bold, faint


def wrapped(lines, columns):
    for line in lines:
        for start in range(0, max(1, len(line)), columns):
            yield line[start : start + columns]


def svg(lines, columns, title):
    width, height = MARGIN * 2 + WIDTH * columns, BAR + MARGIN + HEIGHT * len(lines)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
    ]
    drawn += [f'<circle cx="{20 + 18 * n}" cy="17" r="5.5" fill="#39424e"/>' for n in range(3)]
    drawn.append(f'<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="{FOREGROUND}">')
    for number, line in enumerate(lines):
        y = BAR + HEIGHT * (number + 0.8)
        start = 0
        while start < len(line):
            end = start
            while end < len(line) and line[end][1] == line[start][1]:
                end += 1
            text = "".join(character for character, _ in line[start:end])
            if text.strip():
                colour, bold, faint = line[start][1]
                look = f' fill="{COLOURS[colour]}"' if colour is not None else ""
                look += ' font-weight="bold"' if bold else ""
                look += ' opacity="0.6"' if faint else ""
                # The length is said, so that columns stay columns whatever font there is.
                drawn.append(
                    f'<text x="{MARGIN + WIDTH * start:.1f}" y="{y:.1f}" textLength="{WIDTH * len(text):.1f}"'
                    f' xml:space="preserve"{look}>{escape(text)}</text>'
                )
            start = end
    return "\n".join(drawn) + "\n</g>\n</svg>\n"


def main():
    parser = argparse.ArgumentParser(description="Draws what a command shows in a terminal.")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--shown")
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--replace", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    status, text = run(options.command, options.columns)
    if status != options.status:
        raise SystemExit(f"terminal_to_svg.py: {options.command} ended with {status}:\n{text}")
    for replaced in options.replace:
        old, _, new = replaced.partition("=")
        text = text.replace(old, new)
    shown = options.shown or " ".join(options.command)
    prompt = [("$", (2, True, False)), (" ", (None, False, False))]
    lines = [prompt + [(character, (None, True, False)) for character in shown], *screen(text)]
    sys.stdout.write(svg(list(wrapped(lines, options.columns)), options.columns, shown))


if __name__ == "__main__":
    main()
