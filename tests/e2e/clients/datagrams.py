# SPDX-License-Identifier: Apache-2.0
"""datagrams.py PORT HOST...: UDP (connected, as a DNS resolver does it) there and back."""
import socket
import sys

for host in sys.argv[2:]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.connect((host, int(sys.argv[1])))
        for number in range(20):
            sock.send(b"question %d" % number)
            print(sock.recv(100), sock.getpeername()[:2])
