# SPDX-License-Identifier: Apache-2.0
"""smtp_client.py PORT HOST...: smtplib, three messages in a session. smtp_client.py faults HOST: what it says of servers that fail."""
import smtplib
import sys


def deliver(host, port):
    with smtplib.SMTP(timeout=20) as session:
        print(session.connect(host, port))
        print(session.ehlo("client.example"))
        for number in range(3):
            print(session.mail("a@example.org"), session.rcpt("b@example.org"))
            print(session.data(b"Subject: %d\r\n\r\n" % number + b"a line of the message\r\n" * 20_000))
        print(session.docmd("VRFY", "nobody"))
        print(session.quit())


def complain(fault, host, port):
    try:
        with smtplib.SMTP(host, port, "client.example", timeout=2) as session:
            session.sendmail("a@example.org", ["b@example.org"], b"Subject: lost\r\n\r\na line\r\n")
            print(fault, "delivered")
    except OSError as error:  # SMTPException is one
        print(fault, type(error).__name__, error)


if sys.argv[1] == "faults":
    for name, number in (("reset", 7225), ("cut", 7226), ("silent", 7208), ("refused", 9)):  # of probe_server.py
        complain(name, sys.argv[2], number)
else:
    for each in sys.argv[2:]:
        deliver(each, int(sys.argv[1]))
