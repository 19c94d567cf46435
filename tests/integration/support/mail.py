"""A mail server for a test, alive as long as its standard input.

    mail.py DIR starttls|implicit|none [CERTIFICATE KEY]

Listens on a free port of 127.0.0.1 and prints `ready PORT`. Each mail becomes a file in DIR: the envelope's
recipients on the first line, then the mail as it came. With a certificate it wants TLS, and a login as `opsctl` with the
password in MAILTEST_PASSWORD.
"""

import asyncio
import os
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

directory, mode, *certificate = sys.argv[1:]
count = 0


class Handler:
    async def handle_DATA(self, server, session, envelope):
        global count
        count += 1
        path = pathlib.Path(directory, f"{count:04}")
        partial = path.with_suffix(".partial")
        partial.write_bytes(", ".join(envelope.rcpt_tos).encode() + b"\r\n" + envelope.content)
        partial.rename(path)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    known = LoginPassword(b"opsctl", os.environ.get("MAILTEST_PASSWORD", "").encode())
    return AuthResult(success=data == known, handled=False)


async def main():
    loop = asyncio.get_running_loop()
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)

    def protocol():
        auth = {"authenticator": authenticate, "auth_required": True} if context else {}
        if mode == "starttls":
            return SMTP(Handler(), tls_context=context, require_starttls=True, **auth)
        # Over TLS from the first byte, the server does not know that it is there.
        return SMTP(Handler(), auth_require_tls=False, **auth)

    wrapped = context if mode == "implicit" else None
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=wrapped)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


asyncio.run(main())
