"""A mail server that answers as the recipient's name says, and writes down what it was asked and given, a JSON object per line.

ok..: taken. busy-2..: 451 twice, then taken. gone..: 550 5.1.1 at RCPT. policy..: 554 5.7.1 after DATA.
"""

import argparse
import asyncio
import collections
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

asked = collections.Counter()


def tell(**what):
    print(json.dumps(what), flush=True)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        asked[address] += 1
        tell(rcpt=address, tls=session.ssl is not None, user=session.auth_data)
        if name.startswith("busy-") and asked[address] <= int(name.split("-")[1]):
            return "451 4.7.1 greylisted, try again later"
        if name.startswith("gone"):
            return f"550 5.1.1 <{address}> no such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        if any(address.startswith("policy") for address in envelope.rcpt_tos):
            return "554 5.7.1 refused by policy"
        tell(mail=envelope.content.decode("ascii"), to=envelope.rcpt_tos)
        return "250 2.0.0 taken"


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("--listen", required=True)
    options.add_argument("--certificate")
    options.add_argument("--login")
    options = options.parse_args()
    host, port = options.listen.rsplit(":", 1)
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)

    def authenticate(server, session, envelope, mechanism, data):
        login = isinstance(data, LoginPassword) and f"{data.login.decode()}:{data.password.decode()}"
        tell(login=login == options.login)
        return AuthResult(success=login == options.login, auth_data=data.login.decode(), handled=False)

    def session():
        return SMTP(
            Handler(),
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=authenticate if options.login else None,
            auth_required=options.login is not None,
            auth_require_tls=True,
        )

    server = await asyncio.get_running_loop().create_server(session, host, int(port))
    tell(ready=True)
    await server.serve_forever()


sys.exit(asyncio.run(main()))
