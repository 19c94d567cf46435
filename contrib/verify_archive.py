#!/usr/bin/env python3
"""Checks an archive of `opsctl archive-audit` without opsctl: verify_archive.py DIRECTORY ALLOWED_SIGNERS [ANCHOR]

DIRECTORY is that of one table. It needs Python's standard library, `bash`, `zstd` and `ssh-keygen` (encrypted: `age`). Exit status: 0 all is as it was
archived, 3 it is not, 2 wrong command line. docs/archive-audit.md explains what it looks at.
"""
import hashlib, json, os, pathlib, subprocess, sys

FINDINGS = []

def finding(segment, kind, what):
    FINDINGS.append(f"{segment}: {kind}: {what}")

def sha256(data):
    return hashlib.sha256(data).digest()

def root(hashes):
    """The Merkle tree hash of RFC 6962, section 2.1, over hashes of leaves or of blocks of equal size."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + root(hashes[:split]) + root(hashes[split:]))

def is_signed(folder, signers):
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "opsctl", "-n", "opsctl-archive", "-s"]
    signature, manifest = folder / "manifest.json.sig", (folder / "manifest.json").read_bytes()
    run = subprocess.run([*command, str(signature)], input=manifest, capture_output=True)
    return run.returncode == 0

def check_rows(name, folder, manifest):
    good = True
    for file in manifest["files"]:
        path = folder / file["name"]
        if not path.exists() or hashlib.file_digest(path.open("rb"), "sha256").hexdigest() != file["sha256"]:
            finding(name, "file", f"{file['name']} is missing, or is not the one that was stored")
            good = good and path.exists() and path.stat().st_size == file["bytes"]
    if not good:
        return
    size, blocks, block, lines, odd = manifest["merkle"]["block_lines"], [], [], 0, None
    columns = [column["name"] for column in manifest["columns"]]
    files = [str(folder / file["name"]) for file in manifest["files"]]
    if manifest.get("recipients") and "AGE_IDENTITY" not in os.environ:
        return print(f"{name}: without AGE_IDENTITY, a file for age, its rows are not looked at")
    script = 'for file; do age -d -i "$AGE_IDENTITY" "$file" || exit; done | zstd -dcq' if manifest.get("recipients") else 'zstd -dcq "$@"'
    # Without files there are no rows, and zstd would read what comes in.
    shell = ["bash", "-o", "pipefail", "-c", script if files else "true", "-", *files]
    zstd = subprocess.Popen(shell, stdout=-1, stderr=subprocess.DEVNULL)
    for line in zstd.stdout:
        lines, line = lines + 1, line.removesuffix(b"\n")
        block.append(sha256(b"\x00" + line))
        try:
            row = json.loads(line, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
        except ValueError:
            row = None
        odd = odd or (lines if row != columns else None)
        if len(block) == size:
            blocks, block = [*blocks, root(block)], []
    blocks += [root(block)] if block else []
    if zstd.wait() != 0:
        return finding(name, "rows", f"they break off after line {lines}")
    wanted = [bytes.fromhex(block) for block in manifest["merkle"]["blocks"]]
    if blocks != wanted:
        same = next((n for n, pair in enumerate(zip(blocks, wanted)) if pair[0] != pair[1]), min(len(blocks), len(wanted)))
        finding(name, "rows", f"a line from {same * size + 1} to {(same + 1) * size} is not as it was archived")
    elif odd:
        finding(name, "rows", f"line {odd} is not a row with the columns of the manifest")

def main(directory, signers, anchor=None):
    chain, directory = [], pathlib.Path(directory)
    for path in sorted(directory.glob("*/*/manifest.json")):
        name, data = str(path.parent.relative_to(directory)), path.read_bytes()
        if not is_signed(path.parent, signers):
            finding(name, "signature", "there is none of a key that may sign")
        try:
            manifest = json.loads(data)
            tree, blocks = manifest["merkle"], list(map(bytes.fromhex, manifest["merkle"]["blocks"]))
            if root(blocks).hex() != tree["root"] or -(-manifest["rows"] // tree["block_lines"]) != len(blocks):
                raise ValueError("it contradicts itself")
            chain.append((manifest["number"], name, manifest, sha256(data).hex()))
        except (ValueError, KeyError, TypeError) as error:
            finding(name, "manifest", error)
    chain.sort(key=lambda item: item[0])
    for n, (number, name, manifest, _) in enumerate(chain):
        before = chain[n - 1] if n else (0, None, None, None)
        if number != before[0] + 1 or manifest["previous_sha256"] != before[3]:
            finding(name, "chain", f"number {number} does not follow {before[1]}, number {before[0]}")
        check_rows(name, directory / name, manifest)
    covers = sorted((m["window"]["from"], m["window"]["to"], name) for _, name, m, _ in chain if not m["late"])
    for (_, end, _), (begin, _, name) in zip(covers, covers[1:]):
        if begin != end:
            finding(name, "gap" if begin > end else "overlap", f"the window before ends {end}, this one begins {begin}")
    for was in json.loads(pathlib.Path(anchor).read_bytes()).values() if anchor else []:
        there = {number: (digest, name) for number, name, _, digest in chain}.get(was["number"], (None, "-"))
        if there[0] != was["sha256"]:
            finding(there[1], "anchor", f"number {was['number']} is not the one that was seen")
    print("\n".join(FINDINGS) or f"{len(chain)} segments are as they were archived")
    return 3 if FINDINGS or not chain else 0

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else print(__doc__) or 2)
