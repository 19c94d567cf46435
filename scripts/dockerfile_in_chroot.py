#!/usr/bin/env python3
"""Carries out the last stage of a Dockerfile in a directory that has the system it begins with, where there is no engine.

    dockerfile_in_chroot.py DOCKERFILE ROOT [--build-arg NAME=VALUE]... [--file PATH=FILE]...

A file that is copied from another stage is the one that --file names. What is said of the image (USER, ENV, WORKDIR,
ENTRYPOINT, CMD) is printed as JSON. Any instruction that it does not know is an error, so that nothing is left out unseen.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys


def instructions(text):
    """Returns the instructions, with lines that go on joined and comments left out."""
    found, open_line = [], ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or not (line.strip() or open_line):
            continue
        open_line += line.rstrip("\\") if line.endswith("\\") else line
        if not line.endswith("\\"):
            name, _, rest = open_line.strip().partition(" ")
            found.append((name.upper(), rest.strip()))
            open_line = ""
    return found


def unquoted(text):
    return text[1:-1] if text[:1] == '"' and text[-1:] == '"' else text


def main():
    parser = argparse.ArgumentParser(description="Carries out the last stage of a Dockerfile in a directory.")
    parser.add_argument("dockerfile")
    parser.add_argument("root")
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--file", action="append", default=[])
    options = parser.parse_args()
    given = dict(item.split("=", 1) for item in options.build_arg)
    files = dict(item.split("=", 1) for item in options.file)

    with open(options.dockerfile, encoding="utf-8") as file:
        steps = instructions(file.read())
    last = max(at for at, (name, _) in enumerate(steps) if name == "FROM")
    arguments, image = {}, {"env": {}, "user": "0", "workdir": "/", "entrypoint": [], "cmd": []}
    for name, rest in steps[last + 1 :]:
        if name == "ARG":
            argument, _, default = rest.partition("=")
            arguments[argument] = given.pop(argument, unquoted(default))
        elif name == "ENV":
            variable, _, value = rest.partition("=")
            image["env"][variable] = unquoted(value)
        elif name == "RUN":
            environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **image["env"], **arguments}
            # As an engine does, but as another user only at the end.
            assert image["user"] == "0", "RUN behind USER"
            subprocess.run(["chroot", options.root, "/bin/sh", "-c", rest], env=environment, check=True, stdin=subprocess.DEVNULL,
                           stdout=sys.stderr)
        elif name == "COPY":
            source, target = re.fullmatch(r"--from=\S+ (\S+) (\S+)", rest).groups()
            place = os.path.join(options.root, target.lstrip("/"))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy(files.pop(source), place)
            os.chmod(place, 0o755)
        elif name in ("USER", "WORKDIR"):
            image[name.lower()] = rest
        elif name in ("ENTRYPOINT", "CMD"):
            image[name.lower()] = json.loads(rest)
        else:
            raise SystemExit(f"what is {name}?")
    if given or files:
        raise SystemExit(f"the Dockerfile does not use {sorted(given) + sorted(files)}")
    print(json.dumps(image))


if __name__ == "__main__":
    main()
