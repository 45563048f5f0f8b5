# SPDX-License-Identifier: Apache-2.0
"""smtp_server.py PORT: as much of RFC 5321 as a delivery needs. The server speaks first."""
import hashlib
import socket
import socketserver
import sys


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def take_data(self):
        self.say("354 go on")
        digest = hashlib.sha256()
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            digest.update(line)
        self.say(f"250 taken {digest.hexdigest()}")

    def handle(self):
        self.say("220 mail.example ESMTP ready")
        while line := self.rfile.readline():
            verb = line[:4].decode().upper()
            if verb == "EHLO":
                self.say("250-mail.example")
                self.say("250 SIZE 10000000")
            elif verb in ("MAIL", "RCPT", "RSET", "NOOP"):
                self.say("250 ok")
            elif verb == "DATA":
                self.take_data()
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("502 not known here")


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


with Server(("::", int(sys.argv[1])), Session) as server:
    print("ready", flush=True)
    server.serve_forever()
