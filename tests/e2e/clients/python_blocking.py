# SPDX-License-Identifier: Apache-2.0
"""python_blocking.py V4 V6: blocking sockets, sockets with a timeout, and urllib against st_echo and a web server.
python_blocking.py faults HOST: http.client against the servers of probe_server.py that fail."""
import hashlib
import http.client
import socket
import sys
import threading
import urllib.request


def exchange(sock, data):
    """Sends all of it and half-closes while it receives to the end."""
    def send():
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    digest = hashlib.sha256()
    length = 0
    while piece := sock.recv(65536):
        digest.update(piece)
        length += len(piece)
    sender.join()
    return f"{length} {digest.hexdigest()}"


def main():
    data = bytes(i * 7 % 251 for i in range(100_003)) * 30
    for host in sys.argv[1:3]:
        with socket.create_connection((host, 7000)) as sock:
            print("echo", sock.getpeername()[:2], exchange(sock, data))
        with socket.create_connection((host, 7004), timeout=20) as sock:
            print("greeting", sock.recv(100))
            sock.settimeout(0.3)
            try:
                print("more", sock.recv(100))
            except socket.timeout as error:
                print("timeout", error)
            sock.settimeout(20)
            sock.sendall(b"after the timeout")
            print("answer", sock.recv(100))
        url_host = f"[{host}]" if ":" in host else host
        for _ in range(3):
            with urllib.request.urlopen(f"http://{url_host}:8080/data", timeout=20) as answer:
                print("urllib", answer.status, hashlib.sha256(answer.read()).hexdigest())


def faults(host):
    for fault, port in (("reset", 7211), ("cut", 7212), ("refused", 9)):
        try:
            connection = http.client.HTTPConnection(host, port)
            connection.request("GET", "/")
            print(fault, len(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            print(fault, repr(error))


if sys.argv[1] == "faults":
    faults(sys.argv[2])
else:
    main()
