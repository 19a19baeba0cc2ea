"""Servers of gRPC, as many as the argument says, in one process. Prints the port of each; then, for each call that was cancelled, a line."""
import sys
import threading
import time
from concurrent import futures

import grpc

same = lambda data: data
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


def serve(name):
    def unary(data, context):
        return data

    def who(data, context):
        return name

    def server_stream(data, context):
        for n in range(int(data)):
            yield b"%d" % n

    def client_stream(messages, context):
        return b"%d" % sum(len(data) for data in messages)

    def both(messages, context):
        for data in messages:
            yield data

    def fail(data, context):
        context.set_trailing_metadata([("why-bin", b"\0\xff")])
        context.abort(grpc.StatusCode.ALREADY_EXISTS, "gr\u00fcn 100%")

    def metadata(data, context):
        found = {key: value for key, value in context.invocation_metadata() if key.startswith("x-")}
        context.send_initial_metadata([("y-head-bin", found["x-bytes-bin"])])
        context.set_trailing_metadata([("y-end-bin", found["x-bytes-bin"]), ("y-text", found["x-text"])])
        return b""

    def slow(data, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        if gone.wait(20):
            print("gone after", data.decode(), flush=True)
        return b""

    def slow_stream(data, context):
        yield b"first"
        yield slow(data, context)

    # The protocol of health checks, by its bytes: a name in field 1, and a status in field 1.
    mood = [1]

    def check(data, context):
        if data not in (b"", b"\x0a\x09test.Echo"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return bytes([8, mood[0]])

    def set_mood(data, context):
        mood[0] = int(data)
        return name

    u, us = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    su, ss = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods = {
        "Unary": u(unary), "Who": u(who), "Stream": us(server_stream), "Collect": su(client_stream), "Both": ss(both),
        "Fail": u(fail), "Metadata": u(metadata), "Slow": u(slow), "SlowStream": us(slow_stream), "Mood": u(set_mood),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=400), options=LARGE)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", methods)])
    health = {"Check": u(check)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", health)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


servers = [serve(b"server-%d" % n) for n in range(int(sys.argv[1]))]
print(*(port for _, port in servers), flush=True)
sys.stdin.read()
