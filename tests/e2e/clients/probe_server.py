# SPDX-License-Identifier: Apache-2.0
"""probe_server.py: servers whose behaviour or view of a connection is what a test is about. Says "ready"."""
import array
import fcntl
import select
import socket
import struct
import sys
import termios
import threading
import time

IP_PKTOPTIONS = 9
IPV6_2292PKTOPTIONS = 6
IPV6_DSTOPTS = 59
IPV6_FLOWINFO = 11
IPV6_RECVDSTOPTS = 58
TCPI_OPT_SYN_DATA = 32
TCP_MD5SIG_EXT = 32
MD5_PORT = 7210


def reset_midstream(sock, _peer):
    """1,000 bytes, then, once the client has read them and said so, RST."""
    sock.sendall(b"r" * 1000)
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer_in_part(sock):
    """Reads a request of HTTP or Redis; answers with the head of 100,000 bytes and 1,000 of them."""
    request = b""
    while not request.endswith(b"\r\n\r\n" if request.startswith(b"G") else b"\r\n"):
        if not (piece := sock.recv(65536)):
            return
        request += piece
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" if request.startswith(b"G") else b"$100000\r\n"
    sock.sendall(head + b"p" * 1000)


def exactly(sock, size):
    data = b""
    while len(data) < size:
        if not (piece := sock.recv(size - len(data))):
            raise EOFError
        data += piece
    return data


def answer_postgres_in_part(sock):
    """Lets anybody in and answers a query with one row, without the end of the answer."""
    def message(kind, body):
        return kind + struct.pack("!I", len(body) + 4) + body

    while True:
        body = exactly(sock, struct.unpack("!I", exactly(sock, 4))[0] - 4)
        if struct.unpack("!I", body[:4])[0] not in (80877103, 80877104):  # asks for TLS or GSSAPI
            break
        sock.sendall(b"N")
    sock.sendall(message(b"R", struct.pack("!I", 0)) + message(b"Z", b"I"))
    exactly(sock, struct.unpack("!cI", exactly(sock, 5))[1] - 4)
    column = b"word\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)
    row = b"p" * 1000
    sock.sendall(message(b"T", struct.pack("!h", 1) + column) + message(b"D", struct.pack("!hI", 1, len(row)) + row))


def answer_h2_in_part(sock):
    """HTTP/2 without TLS: the head of an answer and 1,000 bytes that are not its end."""
    def frame(kind, flags, stream, body):
        return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body

    def read_until(kind, flags):
        """The stream of the first such frame."""
        while True:
            head = exactly(sock, 9)
            exactly(sock, struct.unpack("!I", b"\0" + head[:3])[0])
            if head[3] == kind and head[4] & flags == flags:
                return struct.unpack("!I", head[5:])[0]

    data, headers, settings, acknowledged, status_200 = 0, 1, 4, 1, b"\x88"
    exactly(sock, len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    stream = read_until(headers, 0)
    sock.sendall(frame(settings, 0, 0, b"") + frame(settings, acknowledged, 0, b"") + frame(headers, 4, stream, status_200)
                 + frame(data, 0, stream, b"p" * 1000))
    read_until(settings, acknowledged)  # the client has read it, and nothing is left to be sent


def take_mail_in_part(sock):
    """RFC 5321: greets, takes a message, and does not say so."""
    sock.sendall(b"220 mail.example ESMTP\r\n")
    lines = sock.makefile("rb")
    while line := lines.readline():
        if line == b".\r\n":
            return
        verb = line[:4].upper()
        if verb in (b"EHLO", b"MAIL", b"RCPT"):
            sock.sendall(b"250 ok\r\n")
        elif verb == b"DATA":
            sock.sendall(b"354 go on\r\n")
    raise EOFError


def close_after(answer):
    return lambda sock, _peer: answer(sock)


def reset_after(answer):
    def behave(sock, _peer):
        answer(sock)
        waiting = array.array("i", [1])
        while waiting[0]:  # an RST takes away what the client's kernel does not have yet
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, waiting)
            time.sleep(0.001)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return behave


def close_cleanly(sock, _peer):
    sock.recv(1)


def control_messages(buffer):
    """(level, kind, data) of each."""
    while len(buffer) >= 16:
        length, level, kind = struct.unpack_from("@qii", buffer)
        yield level, kind, buffer[16:length]
        buffer = buffer[(length + 7) // 8 * 8:]


def show_tos(sock, _peer):
    """The type of service that the client's packets carried."""
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    shown = "none"
    for level, kind, data in control_messages(sock.getsockopt(socket.IPPROTO_IP, IP_PKTOPTIONS, 256)):
        if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS):
            shown = str(data[0])
    sock.sendall(shown.encode())


def ipv6_headers(sock):
    """Of what the client sent last: traffic class, flow label, bytes of extension headers."""
    seen = {"tclass": 0, "label": 0, "extensions": 0}
    for level, kind, data in control_messages(sock.getsockopt(socket.IPPROTO_IPV6, IPV6_2292PKTOPTIONS, 512)):
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
            seen["tclass"] = struct.unpack("@i", data)[0]
        elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_FLOWINFO):
            seen["label"] = struct.unpack("!I", data)[0] & 0xfffff
        elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_DSTOPTS):
            seen["extensions"] += len(data)
    return seen


def show_packets(sock, peer):
    """What came with the client's packets, NAME=VALUE each."""
    seen = {"port": peer[1],
            "mss": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
            "syn_data": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[5] & TCPI_OPT_SYN_DATA}
    if peer[0].startswith("::ffff:"):
        seen["options"] = len(sock.getsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, 40))
    else:
        seen |= ipv6_headers(sock)
    sock.sendall(" ".join(f"{name}={value}" for name, value in seen.items()).encode() + b"\n")
    stay(sock, peer)  # to end with unread bytes would be an RST


def watch_headers(listener):
    """What an accepted socket is to remember of the SYN, and that the SYN may have data."""
    for option in (IPV6_FLOWINFO, socket.IPV6_RECVTCLASS, IPV6_RECVDSTOPTS):
        listener.setsockopt(socket.IPPROTO_IPV6, option, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)


def show_peer(sock, peer):
    sock.sendall(f"{peer[0].removeprefix('::ffff:')} {peer[1]}".encode())


def split_urgent(sock, _peer):
    """What comes in the stream, and what comes as urgent byte."""
    stream, urgent = b"", b"none"
    while not stream.endswith(b"."):
        if select.select([sock], [], [sock])[2]:
            urgent = sock.recv(1, socket.MSG_OOB)
        else:
            stream += sock.recv(100)
    sock.sendall(stream + b" urgent " + urgent)


class Remembered:
    """How the last connection to `watch_end` ended; the next client of `tell_end` is told."""
    ended = threading.Event()
    how = ""


def watch_end(sock, _peer):
    try:
        sock.sendall(b"go")
        while sock.recv(1000):
            pass
        Remembered.how = "EOF"
    except OSError as error:
        Remembered.how = f"errno {error.errno}"
    Remembered.ended.set()


def tell_end(sock, _peer):
    Remembered.ended.wait(10)
    Remembered.ended.clear()
    sock.sendall(Remembered.how.encode())


def stay(sock, _peer):
    """Open until the client goes."""
    while sock.recv(1000):
        pass


def serve(port, behave, prepare):
    family = socket.AF_INET if port == MD5_PORT else socket.AF_INET6
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    prepare(listener)
    listener.listen(64)

    def one(sock, peer):
        with sock:
            try:
                behave(sock, peer)
            except (EOFError, ConnectionError):
                pass  # who only looked whether it is there

    while True:
        threading.Thread(target=one, args=listener.accept(), daemon=True).start()


def no_preparation(_listener):
    pass


def sign(listener):
    """TCP MD5 (RFC 2385), one key for every client."""
    any_v4 = struct.pack("=HH4s120x", socket.AF_INET, 0, b"\0\0\0\0")
    key = any_v4 + struct.pack("=BBHI80s", 1, 0, 3, 0, b"key")
    try:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG_EXT, key)
    except OSError as error:
        print("no md5:", error, file=sys.stderr)


SERVERS = {
    7201: (reset_midstream, no_preparation),
    7202: (close_cleanly, no_preparation),
    7203: (show_tos, no_preparation),
    7204: (show_peer, no_preparation),
    7205: (split_urgent, no_preparation),
    7206: (watch_end, no_preparation),
    7207: (tell_end, no_preparation),
    7208: (stay, no_preparation),
    7209: (stay, no_preparation),
    MD5_PORT: (show_peer, sign),
    7211: (reset_after(answer_in_part), no_preparation),
    7212: (close_after(answer_in_part), no_preparation),
    7213: (show_packets, watch_headers),
    7221: (reset_after(answer_postgres_in_part), no_preparation),
    7222: (close_after(answer_postgres_in_part), no_preparation),
    7223: (reset_after(answer_h2_in_part), no_preparation),
    7224: (close_after(answer_h2_in_part), no_preparation),
    7225: (reset_after(take_mail_in_part), no_preparation),
    7226: (close_after(take_mail_in_part), no_preparation),
}
for number, (behaviour, preparation) in SERVERS.items():
    threading.Thread(target=serve, args=(number, behaviour, preparation), daemon=True).start()
for number in SERVERS:
    while True:
        try:
            if number != MD5_PORT:
                socket.create_connection(("127.0.0.1", number)).close()
            break
        except ConnectionRefusedError:
            pass
print("ready", flush=True)
sys.stdin.read()
