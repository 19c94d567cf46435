#!/usr/bin/env python3
"""Checks a proof of `opsctl archive-audit prove` without opsctl: verify_proof.py PROOF ALLOWED_SIGNERS

It needs Python's standard library and `ssh-keygen`. Exit status: 0 the row that it prints was archived, 3 the proof proves nothing,
2 wrong command line. docs/archive-audit.md explains what a proof says.
"""
import hashlib, json, pathlib, subprocess, sys, tempfile

def sha256(data):
    return hashlib.sha256(data).digest()

def root(node, index, size, path):
    """The root over `size` leaves, from leaf `index` up along its path: RFC 6962, section 2.1.1."""
    if size < 2 or not path:
        return node if (index, size, path) == (0, 1, []) else b""
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha256(b"\x01" + root(node, index, split, path[:-1]) + path[-1])
    return sha256(b"\x01" + path[-1] + root(node, index - split, size - split, path[:-1]))

def is_signed(manifest, signature, signers):
    command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "opsctl", "-n", "opsctl-archive", "-s"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature.encode())
        file.flush()
        return subprocess.run([*command, file.name], input=manifest.encode(), capture_output=True).returncode == 0

def main(path, signers):
    proof = json.loads(pathlib.Path(path).read_bytes())
    if proof["version"] != 1 or not is_signed(proof["manifest"], proof["signature"], signers):
        return print("it proves nothing: the manifest is not signed by a key that may sign") or 3
    manifest = json.loads(proof["manifest"])
    leaf = sha256(b"\x00" + proof["line"].encode())
    if root(leaf, proof["index"], manifest["rows"], list(map(bytes.fromhex, proof["path"]))).hex() != manifest["merkle"]["root"]:
        return print("it proves nothing: the row does not lead to the root in the manifest") or 3
    print(f"{manifest['table']} of database {manifest['database']} had this row, archived {manifest['taken_at']}:\n{proof['line']}")
    return 0

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) == 3 else print(__doc__) or 2)
