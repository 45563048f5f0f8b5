# SPDX-License-Identifier: Apache-2.0
"""probe.py STEP HOST [PORT...]: one observation that an application could make, a line for each thing seen."""
import array
import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import time

IP_MTU = 14
IP_RECVERR = 11
MSG_ZEROCOPY = 0x4000000
SO_ZEROCOPY = 60
TCP_MD5SIG = 14
TCP_USER_TIMEOUT = 18
LISTENER_PORTS = range(15900, 16000)


def name_of(error):
    if error.errno is None:
        return "timeout"  # Python's own: settimeout()
    return errno.errorcode.get(error.errno, str(error))


def attempt(what, action):
    """Says what came of it. False: an error."""
    try:
        action()
    except OSError as error:
        print(what, name_of(error))
        return False
    print(what, "ok")
    return True


def show(what, action):
    try:
        print(what, action())
    except OSError as error:
        print(what, name_of(error))


def new_socket(host, timeout=None):
    """Without a timeout it really blocks; with one, Python waits for a socket that does not."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.settimeout(timeout)
    return sock


def connect(host, port, timeout=None):
    sock = new_socket(host, timeout)
    sock.connect((host, port))
    return sock


def read_all(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def step_read(host, port, timeout=None):
    sock = new_socket(host, timeout and float(timeout))
    if attempt("connect", lambda: sock.connect((host, int(port)))):
        show("read", lambda: sock.recv(100))
        show("again", lambda: sock.recv(100))


def step_read_each(*places):
    """`read` of all at once: an ICMP error that comes while connect() has the socket is only told with that of the second SYN."""
    pairs = list(zip(places[::2], places[1::2]))
    probes = [subprocess.Popen([sys.executable, __file__, "read", *pair], stdout=subprocess.PIPE, text=True) for pair in pairs]
    for pair, each in zip(pairs, probes):
        print(*pair)
        print(each.communicate()[0], end="")


def step_nonblocking(host, port):
    sock = new_socket(host, 0.0)
    attempt("connect", lambda: sock.connect((host, int(port))))
    select.select([], [sock], [], 20)
    value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    print("SO_ERROR", errno.errorcode.get(value, value))
    if not value:
        sock.settimeout(20)
        show("read", lambda: sock.recv(100))


def step_latency(host, port):
    """Is the connect over before the network can have answered?"""
    sock = new_socket(host, 5.0)
    begin = time.monotonic()
    attempt("connect", lambda: sock.connect((host, int(port))))
    print("within 0.2 s", time.monotonic() - begin < 0.2)


def step_reset(host):
    sock = connect(host, 7201)
    data = b""
    while len(data) < 1000:
        data += sock.recv(1000)
    print("got", len(data))
    sock.send(b"x")
    show("read", lambda: sock.recv(100))
    show("again", lambda: sock.recv(100))
    show("write", lambda: sock.send(b"x"))


def step_eof(host):
    sock = connect(host, 7202)
    sock.send(b"x")
    show("read", lambda: sock.recv(100))
    show("again", lambda: sock.recv(100))


def step_client_ends(host):
    for how in ("close", "reset", "unread"):
        sock = connect(host, 7206)
        if how != "unread":
            print(sock.recv(2))
        else:
            select.select([sock], [], [], 20)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        print(how, read_all(connect(host, 7207)))


def step_names(host):
    addresses, ports = set(), set()
    for _ in range(4):
        sock = connect(host, 7204)
        seen = read_all(sock).decode().split()
        here = sock.getsockname()
        addresses.add(here[0] == seen[0])
        ports.add(here[1] == int(seen[1]))
        print("peer", sock.getpeername())
    print("server sees my address", addresses)
    print("server sees my port", all(ports))


def step_bound(host, source):
    sock = new_socket(host)
    sock.bind((source, 0))
    sock.connect((host, 7204))
    print("name", sock.getsockname()[0])
    print("server sees", read_all(sock).decode().split()[0])


def step_leaving(host):
    sock = new_socket(host)
    sock.connect((host, 7204))
    print("the server sees my name", sock.getsockname()[0] == read_all(sock).decode().split()[0])


def step_one_port_twice(host):
    """Two connections from one local port, to two servers."""
    first = new_socket(host)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind(("0.0.0.0", 40123))
    attempt("first", lambda: first.connect((host, 7208)))
    results = set()
    for port in (7202, 7203, 7204, 7205, 7206, 7209, 7201):
        sock = new_socket(host)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("0.0.0.0", 40123))
        try:
            sock.connect((host, port))
            results.add("ok")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        except OSError as error:
            results.add(name_of(error))
    print("others", sorted(results))


def step_tables(host):
    """Where /proc/net/tcp and ss say that the socket leads to."""
    sock = connect(host, 7208)
    local_port = sock.getsockname()[1]
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table][1:]
    remote = [row[2] for row in rows if row[3] == "01" and int(row[1].split(":")[1], 16) == local_port]
    address, port = remote[0].split(":")
    address = socket.inet_ntoa(struct.pack("<I", int(address, 16)))
    print("proc", "destination" if (address, int(port, 16)) == (host, 7208) else
          "listener" if address == "127.0.0.1" and int(port, 16) in LISTENER_PORTS else "?")
    shown = os.popen(f"ss -Htn state established 'sport = :{local_port}'").read()
    print("ss", "destination" if f"{host}:7208" in shown else "listener" if "127.0.0.1:159" in shown else shown)
    print("getpeername", sock.getpeername() == (host, 7208))


def step_path(host):
    sock = connect(host, 7208)
    print("mss is ethernet's", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1460)
    print("mtu is ethernet's", sock.getsockopt(socket.IPPROTO_IP, IP_MTU) <= 1500)


def step_tos(host):
    sock = new_socket(host)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x48)
    sock.connect((host, 7203))
    print("mine", sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS), "server sees", read_all(sock).decode())


def step_ttl(host):
    """A router in between drops what may not pass it."""
    sock = new_socket(host)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    if attempt("connect", lambda: sock.connect((host, 7204))):
        show("answer", lambda: len(sock.recv(100)) > 0)


def step_listener_ports(_host):
    open_ports = []
    for port in LISTENER_PORTS:
        try:
            sock = connect("127.0.0.1", port)
        except ConnectionRefusedError:
            continue
        open_ports.append((port, sock))
    print("some are open", bool(open_ports))
    for what in ("127.0.0.1", "0.0.0.0"):
        ends = set()
        for port, _ in open_ports or [(LISTENER_PORTS[0], None)]:
            probe = socket.socket()
            try:
                probe.bind((what, port))
                probe.listen()
                ends.add("ok")
            except OSError as error:
                ends.add(name_of(error))
            probe.close()
        print("bind", what, sorted(ends))
    ends = set()
    for _, sock in open_ports:
        try:
            sock.settimeout(20)
            ends.add(sock.recv(1))
        except OSError as error:
            ends.add(name_of(error))
    print("read", sorted(ends, key=str))


def step_urgent(host):
    sock = connect(host, 7205)
    sock.send(b"one ")
    sock.send(b"!", socket.MSG_OOB)
    sock.send(b" two.")
    print(read_all(sock))


def unacknowledged(sock):
    value = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, value)
    return value[0]


def wait_for_the_cut():
    """Says that it is connected; the test then changes the network and writes a line."""
    print("connected", flush=True)
    sys.stdin.readline()


def step_cut(host, port):
    """The network is cut after the connection was made, between the lines "connected" and that on stdin."""
    sock = connect(host, int(port))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
    wait_for_the_cut()
    sock.send(b"x" * 500)
    sock.settimeout(5)
    deadline = time.monotonic() + 0.3
    while unacknowledged(sock) and time.monotonic() < deadline:
        time.sleep(0.005)
    print("acknowledged", unacknowledged(sock) == 0)
    show("read", lambda: sock.recv(100))


def step_icmp(host, port):
    """The destination becomes unreachable between the lines "connected" and that on stdin; errors are asked for."""
    sock = connect(host, int(port))
    sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    wait_for_the_cut()
    sock.send(b"x")
    sock.settimeout(1)
    show("read", lambda: sock.recv(100))


def step_zerocopy(host, port):
    """The network is cut as for `cut`: is a buffer given back all the same?"""
    sock = connect(host, int(port))
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    wait_for_the_cut()
    sock.send(b"z" * 20_000, MSG_ZEROCOPY)
    waiter = select.poll()
    waiter.register(sock, 0)  # POLLERR is always told
    print("completed", bool(waiter.poll(500)))


def step_as_user(user, host, port):
    os.setuid(int(user))
    step_read(host, port)


def step_fill(host, port):
    """How much a server takes that never reads."""
    sock = new_socket(host, 1.0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sock.connect((host, int(port)))
    sent = 0
    try:
        while True:
            sent += sock.send(b"f" * 65536)
    except socket.timeout:
        pass
    print("sent", sent, flush=True)


def step_md5(host):
    sock = new_socket(host, 2.0)
    address = struct.pack("=H2s4s120x", socket.AF_INET, struct.pack("!H", 0), socket.inet_aton(host))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, address + struct.pack("=BBHI80s", 0, 0, 3, 0, b"key"))
    attempt("connect", lambda: sock.connect((host, 7210)))
    show("read", lambda: len(sock.recv(100)) > 0)


globals()["step_" + sys.argv[1]](*sys.argv[2:])
