"""A client of gRPC that goes through every kind of call. Argument: the address of the proxy. Prints a line for each."""
import collections
import os
import sys
import threading
import time

import grpc

same = lambda data: data
OPTIONS = [
    ("grpc.default_authority", "example.com"), ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
]
channel = grpc.insecure_channel(sys.argv[1], options=OPTIONS)
path = lambda name: "/test.Echo/" + name
unary = lambda name: channel.unary_unary(path(name), request_serializer=same, response_deserializer=same)
stream = lambda name: channel.unary_stream(path(name), request_serializer=same, response_deserializer=same)


def said(name, value):
    print(name, value, flush=True)


def ended(call):
    try:
        call()
        return "OK"
    except grpc.RpcError as error:
        return error.code().name


said("unary", unary("Unary")(b"hello", timeout=20))
said("empty", unary("Unary")(b"", timeout=20))
said("server stream", [int(m) for m in stream("Stream")(b"1000", timeout=20)] == list(range(1000)))
collect = channel.stream_unary(path("Collect"), request_serializer=same, response_deserializer=same)
said("client stream", collect((b"x" * 1000 for _ in range(500)), timeout=20))

both = channel.stream_stream(path("Both"), request_serializer=same, response_deserializer=same)
# Each message goes only when the answer to the one before has come.
answered = threading.Semaphore(1)
def in_turns():
    for n in range(100):
        assert answered.acquire(timeout=10)
        yield b"%d" % n
got = []
for message in both(in_turns(), timeout=20):
    got.append(int(message))
    answered.release()
said("both ways", got == list(range(100)))

try:
    unary("Fail")(b"", timeout=20)
except grpc.RpcError as error:
    said("trailers only", (error.code().name, error.details(), dict(error.trailing_metadata())["why-bin"]))

some = bytes(range(256))
_, call = unary("Metadata").with_call(b"", timeout=20, metadata=[("x-bytes-bin", some), ("x-text", "a b, c")])
head, end = dict(call.initial_metadata()), dict(call.trailing_metadata())
said("metadata", (head["y-head-bin"] == some, end["y-end-bin"] == some, end["y-text"]))

large = os.urandom(4 << 20)
said("4 MB", unary("Unary")(large, timeout=60) == large)

said("deadline", ended(lambda: unary("Slow")(b"a deadline", timeout=0.5)))
call = unary("Slow").future(b"a cancellation", timeout=30)
time.sleep(0.3)
call.cancel()
call = stream("SlowStream")(b"a cancelled stream", timeout=30)
said("first of a stream", next(call))
call.cancel()

count = collections.Counter(unary("Who")(b"", timeout=20) for _ in range(30))
said("balanced", sorted(count.values()))

names = collections.Counter()
many = [both(iter([b"%d" % n]), timeout=60) for n in range(1000)]
said("1000 at once", all([message for message in call] == [b"%d" % n] for n, call in enumerate(many)))
# All wait for messages at the same time.
gate = threading.Event()
def held(n):
    yield b"%d" % n
    gate.wait(60)
    yield b"end"
held_calls = [both(held(n), timeout=60) for n in range(int(sys.argv[2]))]
firsts = [next(call) for call in held_calls]
gate.set()
said("open at once", firsts == [b"%d" % n for n in range(len(firsts))] and all([m for m in c] == [b"end"] for c in held_calls))
