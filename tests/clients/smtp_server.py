"""A mail server for the tests of notifications: aiosmtpd, with TLS from the
start or after STARTTLS, and a login. It prints its port, and puts each mail
into a file of its own."""

import argparse
import asyncio
import pathlib
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Keeper:
    """Keeps mails; refuses those to `refused@`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.count = 0

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if address.startswith("refused@"):
            return "550 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        tls = server.transport.get_extra_info("ssl_object") is not None
        text = envelope.content.decode().replace("\r\n", "\n")
        note = f"X-Session: tls={tls} login={session.authenticated}\n"
        draft = self.folder / f"{self.count}.draft"
        draft.write_text(note + text)
        draft.rename(self.folder / f"{self.count:04}.eml")
        return "250 OK"


def authenticate(_server, _session, _envelope, _mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"isimud", b"geheim"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--certificate", required=True, help="a certificate and its key")
    parser.add_argument("--starttls", action="store_true")
    args = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.certificate)
    options = {"authenticator": authenticate, "auth_required": True, "hostname": "localhost"}
    if args.starttls:
        options.update(tls_context=context, require_starttls=True)
    else:
        options.update(auth_require_tls=False)
    asyncio.run(serve(args, options, None if args.starttls else context))


async def serve(args, options, context):
    keeper = Keeper(args.folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(keeper, **options), "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    main()
