# SPDX-License-Identifier: Apache-2.0
"""fast_grpc.py serve PORT | drive HOST PORT: one gRPC stream both ways with messages of random sizes, each sent back, then an
error of the server's.

Run by Debian's python3, whose package python3-grpcio it needs.
"""
import concurrent.futures
import hashlib
import random
import sys
import time

import grpc

MESSAGES = 150
PAUSE_S = 0.02
LARGEST = 200 << 10
METHOD = "/sidetrack.Test/Echo"


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self.echo) if details.method == METHOD else None

    @staticmethod
    def echo(requests, context):
        yield from requests
        context.abort(grpc.StatusCode.DATA_LOSS, "as agreed")


def serve(port):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Handler()])
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def drive(host, port):
    generator = random.Random(1)
    sent = []

    def requests():
        for _ in range(MESSAGES):
            sent.append(generator.randbytes(1 + generator.randrange(LARGEST)))
            yield sent[-1]
            time.sleep(PAUSE_S)

    digest = hashlib.sha256()
    count = 0
    try:
        for got in grpc.insecure_channel(f"{host}:{port}").stream_stream(METHOD)(requests()):
            if got != sent[count]:
                sys.exit(f"message {count}: {len(got)} bytes instead of {len(sent[count])}")
            digest.update(got)
            count += 1
    except grpc.RpcError as error:
        print(count, "messages", digest.hexdigest(), error.code(), error.details())


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    drive(sys.argv[2], int(sys.argv[3]))
