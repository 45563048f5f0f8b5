# SPDX-License-Identifier: Apache-2.0
"""packets.py STEP HOST...: what of a socket's options the network beyond the pod meets. A line for each: NAME and whether it does."""
import os
import re
import socket
import struct
import sys
import time

IP_LOCAL_PORT_RANGE = 51
IPV6_DSTOPTS = 59
IPV6_FLOWINFO_SEND = 33
IPV6_FLOWLABEL_MGR = 32
SO_MAX_PACING_RATE = 47
SHOW_PACKETS = 7213  # these are of probe_server.py
STAY = 7209


def read_line(sock):
    with sock.makefile("r", encoding="ascii") as lines:
        return lines.readline()


def new_socket(host):
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def what_is_seen(sock):
    """What the server says of a connected socket's packets."""
    with sock:
        return {name: int(value) for name, value in (word.split("=") for word in read_line(sock).split())}


def seen_with(host, *option):
    """... of one with this option."""
    sock = new_socket(host)
    sock.setsockopt(*option)
    sock.connect((host, SHOW_PACKETS))
    return what_is_seen(sock)


def with_flow_label(host, label):
    sock = new_socket(host)
    to_anyone, anybody, create = 0, 255, 1
    request = struct.pack("=16s4sBBHHHI", socket.inet_pton(socket.AF_INET6, host), struct.pack("!I", label),
                          to_anyone, anybody, create, 0, 0, 0)
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, request)
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)
    sock.connect((host, SHOW_PACKETS, label, 0))
    return what_is_seen(sock)


def with_data_in_syn(host):
    sock = new_socket(host)
    sock.sendto(b"early", socket.MSG_FASTOPEN, (host, SHOW_PACKETS))
    return what_is_seen(sock)


def step_headers(v4, v6):
    no_operation = struct.pack("BBBB4x", 0, 0, 1, 4)  # eight bytes of padding
    record_route = bytes([7, 15, 4]) + bytes(13)
    print("traffic class", seen_with(v6, socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x48)["tclass"] == 0x48)
    print("flow label", with_flow_label(v6, 0x12345)["label"] == 0x12345)
    print("IP options", seen_with(v4, socket.IPPROTO_IP, socket.IP_OPTIONS, record_route)["options"] > 0)
    print("extension headers", seen_with(v6, socket.IPPROTO_IPV6, IPV6_DSTOPTS, no_operation)["extensions"] > 0)
    print("maximum segment", seen_with(v4, socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600)["mss"] <= 600)
    print("data in the SYN", with_data_in_syn(v4)["syn_data"] > 0)


def step_port_range(host):
    """Linux 6.3."""
    sock = new_socket(host)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", 41_009 << 16 | 41_000))
    except OSError:
        print("unknown")
        sock.connect((host, SHOW_PACKETS))
        return
    sock.connect((host, SHOW_PACKETS))
    print("mine", 41_000 <= sock.getsockname()[1] <= 41_009)
    print("port range", 41_000 <= what_is_seen(sock)["port"] <= 41_009)


def socket_towards(host):
    """As ss shows the one that leads to the server: the application's own, or the engine's, which comes a moment later."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if shown := os.popen(f"ss -HOtinm state established dst {host}:{STAY}").read():
            return shown
    return "none"


def step_sockets(host):
    """Options of a socket that no packet shows."""
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as name:
        other = b"cubic" if name.read().strip() == "reno" else b"reno"
    sock = new_socket(host)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, other)
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    sock.connect((host, STAY))
    shown = socket_towards(host)
    print("sockets", len(shown.splitlines()))
    print("congestion control", other.decode() in shown.split())
    print("pacing rate", re.search(r"pacing_rate \S+/", shown) is not None)
    print("receive buffer", f",rb{sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)}," in shown)
    print("send buffer", f",tb{sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)}," in shown)


def step_reaches(host, option, value):
    """Does a socket with an option of SOL_SOCKET reach the server?"""
    sock = new_socket(host)
    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), int(value))
    try:
        sock.connect((host, SHOW_PACKETS))
        print("answer", len(read_line(sock)) > 0)
    except OSError as error:
        print(error.strerror)


def step_few_attempts(host):
    """A SYN after 0 and 1 s, the end after 3 s; the kernel's own patience takes minutes."""
    sock = new_socket(host)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
    try:
        sock.connect((host, STAY))
        sock.settimeout(4)
        sock.recv(1)
    except OSError as error:
        print(error.strerror or error)


globals()["step_" + sys.argv[1]](*sys.argv[2:])
