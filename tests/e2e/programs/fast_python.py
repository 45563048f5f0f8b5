# SPDX-License-Identifier: Apache-2.0
"""fast_python.py serve KIND PORT | drive KIND HOST PORT: messages of random sizes, sent back and compared, for three seconds.

KIND: blocking, timeout (settimeout: poll before each call), asyncio. A message is its length in 4 bytes, then its bytes; the
messages go over two connections in turn. Then the server is asked with a length of 0 to reset the first one, and the other
one is closed in one direction: the server answers "bye". What each call says then is printed.
fast_python.py redis HOST PORT PAUSE_S: SET and GET of random values over asyncio.
"""
import asyncio
import errno
import hashlib
import random
import socket
import socketserver
import struct
import sys
import time

MESSAGES = 150
PAUSE_S = 0.02
LARGEST = 200 << 10


def bodies():
    generator = random.Random(1)
    for _ in range(MESSAGES):
        yield generator.randbytes(1 + generator.randrange(LARGEST))


class Check:
    def __init__(self):
        self.digest = hashlib.sha256()
        self.count = 0

    def take(self, got, sent):
        if got != sent:
            sys.exit(f"message {self.count}: {len(got)} bytes instead of {len(sent)}")
        self.digest.update(got)
        self.count += 1

    def report(self):
        print(self.count, "messages", self.digest.hexdigest())


def read_exactly(sock, size):
    parts = []
    while size:
        part = sock.recv(min(size, 65536))
        if not part:
            sys.exit("the end came early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def frame(body):
    return struct.pack("!I", len(body)) + body


def read_message(sock):
    return read_exactly(sock, struct.unpack("!I", read_exactly(sock, 4))[0])


def reset_at_close(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def said(call):
    """What a call on a socket says: the errno's name, or the result."""
    try:
        return call()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


class Echo(socketserver.BaseRequestHandler):
    timeout = None

    def handle(self):
        self.request.settimeout(self.timeout)
        while head := self.request.recv(4, socket.MSG_PEEK):
            if len(head) < 4:
                continue
            body = read_message(self.request)
            if not body:
                reset_at_close(self.request)
                self.request.close()  # the server class would shut it down first: FIN
                return
            self.request.sendall(frame(body))
        self.request.sendall(frame(b"bye"))


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    daemon_threads = True


def serve(timeout, port):
    Echo.timeout = timeout
    with Server(("::", port), Echo) as server:
        print("ready", flush=True)
        server.serve_forever()


def drive(timeout, host, port):
    check = Check()
    pair = [socket.create_connection((host, port), timeout=timeout) for _ in range(2)]
    for number, body in enumerate(bodies()):
        sock = pair[number % 2]
        sock.sendall(frame(body))
        check.take(read_message(sock), body)
        time.sleep(PAUSE_S)
    check.report()
    pair[0].sendall(frame(b""))
    print("reset:", said(lambda: pair[0].recv(1)), said(lambda: pair[0].send(b"x")), said(lambda: pair[0].recv(1)))
    pair[1].shutdown(socket.SHUT_WR)
    print("half-close:", said(lambda: pair[1].send(b"x")), read_message(pair[1]), said(lambda: pair[1].recv(1)))


async def read_async(reader):
    return await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0])


async def echo_async(reader, writer):
    try:
        while body := await read_async(reader):
            writer.write(frame(body))
            await writer.drain()
        reset_at_close(writer.get_extra_info("socket"))
    except asyncio.IncompleteReadError:
        writer.write(frame(b"bye"))
    writer.close()


async def serve_async(port):
    server = await asyncio.start_server(echo_async, None, port)
    print("ready", flush=True)
    await server.serve_forever()


async def drive_async(host, port):
    check = Check()
    pair = [await asyncio.open_connection(host, port) for _ in range(2)]
    for number, body in enumerate(bodies()):
        reader, writer = pair[number % 2]
        writer.write(frame(body))
        await writer.drain()
        check.take(await read_async(reader), body)
        await asyncio.sleep(PAUSE_S)
    check.report()
    reader, writer = pair[0]
    writer.write(frame(b""))
    try:
        print("reset:", await reader.read(1))
    except OSError as error:
        print("reset:", errno.errorcode[error.errno])
    reader, writer = pair[1]
    writer.write_eof()
    print("half-close:", await read_async(reader), await reader.read(1))


async def drive_redis(host, port, pause_s):
    check = Check()
    reader, writer = await asyncio.open_connection(host, port)

    async def line():
        return (await reader.readuntil(b"\r\n"))[:-2]

    for number, body in enumerate(bodies()):
        key = b"key%d" % (number % 7)
        writer.write(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(body), body))
        writer.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
        await writer.drain()
        if (answer := await line()) != b"+OK":
            sys.exit(f"SET: {answer}")
        length = int((await line())[1:])
        check.take((await reader.readexactly(length + 2))[:-2], body)
        await asyncio.sleep(pause_s)
    writer.close()
    check.report()


def main():
    what = sys.argv[1:3]
    timeout = 30 if what[1] == "timeout" else None
    if what == ["serve", "asyncio"]:
        asyncio.run(serve_async(int(sys.argv[3])))
    elif what == ["drive", "asyncio"]:
        asyncio.run(drive_async(sys.argv[3], int(sys.argv[4])))
    elif what[0] == "redis":
        asyncio.run(drive_redis(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    elif what[0] == "serve":
        serve(timeout, int(sys.argv[3]))
    else:
        drive(timeout, sys.argv[3], int(sys.argv[4]))


main()
