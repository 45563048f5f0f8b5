# SPDX-License-Identifier: Apache-2.0
"""python_asyncio.py V4 V6: asyncio streams against st_echo and probe_server.py, many at a time.
python_asyncio.py faults HOST: against the servers of probe_server.py that fail."""
import asyncio
import hashlib
import sys


async def echo(host, seed):
    reader, writer = await asyncio.open_connection(host, 7000)
    data = bytes((i * seed) % 253 for i in range(50_021)) * 4

    async def send():
        for begin in range(0, len(data), 7_777):
            writer.write(data[begin:begin + 7_777])
            await writer.drain()
        writer.write_eof()

    _, answer = await asyncio.gather(send(), reader.read())
    peer = writer.get_extra_info("peername")[:2]
    writer.close()
    await writer.wait_closed()
    return f"{len(answer)} {answer == data} {hashlib.sha256(answer).hexdigest()} {peer}"


async def read_silent(host):
    reader, writer = await asyncio.open_connection(host, 7005)
    try:
        return repr(await asyncio.wait_for(reader.read(1), 0.3))
    except asyncio.TimeoutError:
        return "timeout"
    finally:
        writer.close()


async def read_reset(host):
    """The server resets once it has been told that its first bytes have come."""
    reader, writer = await asyncio.open_connection(host, 7201)
    print("before", len(await reader.readexactly(1000)))
    writer.write(b"x")
    try:
        return repr(await reader.read())
    except ConnectionResetError as error:
        return f"reset {error.errno}"
    finally:
        writer.close()


async def main():
    for host in sys.argv[1:3]:
        for line in await asyncio.gather(*(echo(host, seed) for seed in range(1, 31))):
            print("echo", line)
        print("silent", await read_silent(host))
        print("reset", await read_reset(host))


async def faults(host):
    for fault, port in (("reset", 7211), ("cut", 7212), ("refused", 9)):
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            print(fault, len(await reader.readexactly(100_000)))
        except (OSError, asyncio.IncompleteReadError) as error:
            print(fault, type(error).__name__, error)


asyncio.run(faults(sys.argv[2]) if sys.argv[1] == "faults" else main())
