# SPDX-License-Identifier: Apache-2.0
"""smtp_client.py PORT HOST...: smtplib, three messages in a session."""
import smtplib
import sys

for host in sys.argv[2:]:
    with smtplib.SMTP(timeout=20) as session:
        print(session.connect(host, int(sys.argv[1])))
        print(session.ehlo("client.example"))
        for number in range(3):
            print(session.mail("a@example.org"), session.rcpt("b@example.org"))
            print(session.data(b"Subject: %d\r\n\r\n" % number + b"a line of the message\r\n" * 20_000))
        print(session.docmd("VRFY", "nobody"))
        print(session.quit())
