"""Runs a command where the name server accepts questions and never answers.

    unshare --net --mount python3 silent_dns.py COMMAND…

Needs a network and mounts of its own, in which it may do as it likes.
"""

import fcntl
import socket
import struct
import subprocess
import sys
import tempfile

# The loopback interface of a new network is down; SIOCSIFFLAGS with IFF_UP | IFF_LOOPBACK | IFF_RUNNING.
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(server, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
server.bind(("127.0.0.1", 53))
with tempfile.NamedTemporaryFile("w") as settings:
    settings.write("nameserver 127.0.0.1\noptions timeout:30\n")
    settings.flush()
    subprocess.run(["mount", "--bind", settings.name, "/etc/resolv.conf"], check=True)
    sys.exit(subprocess.run(sys.argv[1:]).returncode)
