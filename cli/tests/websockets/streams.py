# WebSockets on streams of one connection of HTTP/2 (RFC 8441), by h2 and the frames of websockets. Arguments: the port of
# the proxy, what to do, which is said when it is done, and for TLS a file of the authority that is trusted.
import os, socket, ssl, sys
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes
import h2.events as events
from hyperframe.frame import GoAwayFrame
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader


class Stream:
    def __init__(self, websocket):
        self.websocket = websocket
        self.head, self.reset, self.ended = None, None, False
        self.reader = StreamReader()
        self.body = b''
        self.frames = []
        self.parsing = None

    def receive(self, data):
        self.body += data
        if self.websocket and self.head[':status'] == '200':
            self.reader.feed_data(data)
            while True:
                if self.parsing is None:
                    self.parsing = Frame.parse(self.reader.read_exact, mask=False)
                try:
                    next(self.parsing)
                    return
                except StopIteration as done:
                    self.parsing = None
                    self.frames.append(done.value)


class Client:
    def __init__(self, port, authority=None):
        self.socket = socket.create_connection(('127.0.0.1', port), timeout=20)
        self.scheme = 'https' if authority else 'http'
        if authority:
            tls = ssl.create_default_context(cafile=authority)
            tls.set_alpn_protocols(['h2'])
            self.socket = tls.wrap_socket(self.socket, server_hostname='example.com')
            assert self.socket.selected_alpn_protocol() == 'h2'
        self.wire = H2Connection(H2Configuration(client_side=True, header_encoding='utf-8'))
        self.streams, self.leaving, self.closed = {}, False, False
        # h2 takes the first GOAWAY for the end of the connection, on which streams go on (RFC 9113 §6.8).
        self.wire._frame_dispatch_table[GoAwayFrame] = self.go_away
        self.wire.initiate_connection()
        # A stream that takes nothing leaves room to the others.
        self.wire.increment_flow_control_window(1 << 20)
        self.flush()
        # What a server takes stands in its SETTINGS.
        while not self.wire.remote_settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL):
            self.poll()

    def go_away(self, frame):
        assert frame.error_code == ErrorCodes.NO_ERROR, frame
        self.leaving = True
        return [], []

    def flush(self):
        self.socket.sendall(self.wire.data_to_send())

    def poll(self):
        data = self.socket.recv(1 << 16)
        if not data:
            self.closed = True
        for event in self.wire.receive_data(data) if data else []:
            stream = self.streams.get(getattr(event, 'stream_id', 0))
            if isinstance(event, events.ResponseReceived):
                stream.head = dict(event.headers)
            elif isinstance(event, events.DataReceived):
                stream.receive(event.data)
                self.wire.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, events.StreamEnded):
                stream.ended = True
            elif isinstance(event, events.StreamReset):
                stream.reset = event.error_code
        self.flush()

    def until(self, done):
        while not done():
            assert not self.closed, 'the connection is closed'
            self.poll()

    def ask(self, fields, end=False):
        stream = self.wire.get_next_available_stream_id()
        self.streams[stream] = Stream(websocket=fields[0][1] == 'CONNECT')
        self.wire.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def connect(self, path, protocol='websocket', version='13'):
        return self.ask([
            (':method', 'CONNECT'), (':protocol', protocol), (':scheme', self.scheme), (':path', path),
            (':authority', 'example.com'), ('sec-websocket-version', version), ('origin', 'http://example.com'),
        ])

    def status(self, stream):
        self.until(lambda: self.streams[stream].head)
        return self.streams[stream].head[':status']

    def open(self, path='/chat'):
        stream = self.connect(path)
        assert self.status(stream) == '200', self.streams[stream].head
        assert 'sec-websocket-accept' not in self.streams[stream].head
        return stream

    def send(self, stream, opcode, data):
        raw = Frame(opcode, data).serialize(mask=True)
        while raw:
            self.until(lambda: self.wire.local_flow_control_window(stream) > 0)
            n = min(len(raw), self.wire.local_flow_control_window(stream), self.wire.max_outbound_frame_size)
            self.wire.send_data(stream, raw[:n])
            self.flush()
            raw = raw[n:]

    def frame(self, stream):
        self.until(lambda: self.streams[stream].frames)
        return self.streams[stream].frames.pop(0)

    def echo(self, stream, data, opcode=Opcode.TEXT):
        self.send(stream, opcode, data)
        got = self.frame(stream)
        assert (got.opcode, got.data) == (opcode, data), (got.opcode, len(got.data))

    def close(self, stream):
        self.send(stream, Opcode.CLOSE, b'\x03\xe8')
        assert self.frame(stream).data == b'\x03\xe8'
        # The server closes its connection, and so do we.
        self.until(lambda: self.streams[stream].ended)
        try:
            self.wire.end_stream(stream)
            self.flush()
        except StreamClosedError:
            # It has been told that nobody listens.
            assert self.streams[stream].reset == ErrorCodes.NO_ERROR, self.streams[stream].reset

    def get(self, path):
        fields = [(':method', 'GET'), (':scheme', self.scheme), (':path', path), (':authority', 'example.com')]
        stream = self.ask(fields, end=True)
        self.until(lambda: self.streams[stream].ended)
        return self.streams[stream].head[':status'], self.streams[stream].body


def many(client):
    """Twenty at once, each with its own messages, and requests between them."""
    streams = [client.open(f'/chat?{n}') for n in range(20)]
    for n in range(30):
        for stream in streams:
            client.send(stream, Opcode.TEXT, f'{stream} {n}'.encode())
        for stream in streams:
            assert client.frame(stream).data == f'{stream} {n}'.encode()
        assert client.get('/health') == ('200', b'fine')
    for stream in streams[:4]:
        client.echo(stream, os.urandom(1 << 20), Opcode.BINARY)
    client.send(streams[0], Opcode.PING, b'are you there')
    got = client.frame(streams[0])
    assert (got.opcode, got.data) == (Opcode.PONG, b'are you there')
    for stream in streams:
        client.close(stream)


def stalled(client):
    """One that takes nothing holds up no other: what is sent to it waits with the server."""
    quiet = client.open()
    release = client.wire.acknowledge_received_data
    client.wire.acknowledge_received_data = lambda n, stream: stream != quiet and release(n, stream)
    data = os.urandom(200_000)
    for _ in range(3):
        client.send(quiet, Opcode.BINARY, data[:50_000])
    other = client.open()
    for n in range(50):
        client.echo(other, f'{n}'.encode())
    client.echo(other, data, Opcode.BINARY)
    client.wire.acknowledge_received_data = release
    release(len(client.streams[quiet].body), quiet)
    client.flush()
    for _ in range(3):
        assert client.frame(quiet).data == data[:50_000]
    for stream in (quiet, other):
        client.close(stream)


def ends(client):
    """A client that resets its stream, and one that says that it has nothing more to say."""
    gone, rest = client.open(), client.open()
    client.wire.reset_stream(gone, ErrorCodes.CANCEL)
    client.echo(rest, b'still here')
    # A server of WebSocket closes then, too, without the closing handshake.
    client.wire.end_stream(rest)
    client.flush()
    client.until(lambda: client.streams[rest].ended or client.streams[rest].reset is not None)
    assert client.streams[rest].reset in (None, ErrorCodes.CANCEL), client.streams[rest].reset
    client.close(client.open())


def refused(client):
    """What is no WebSocket there: a status of the server's, a success that opens nothing, and another protocol."""
    streams = [client.connect('/chat', version='7'), client.connect('/health'), client.connect('/', 'connect-udp')]
    statuses = []
    for stream in streams:
        statuses.append(client.status(stream))
        client.until(lambda: client.streams[stream].ended)
    assert statuses == ['400', '502', '501'], statuses
    assert b'Sec-WebSocket-Version' in client.streams[streams[0]].body, client.streams[streams[0]].body
    assert b'websocket_not_switched' in client.streams[streams[1]].body, client.streams[streams[1]].body
    assert b'unknown_protocol' in client.streams[streams[2]].body
    client.close(client.open())


def drained(client):
    """The proxy is told to stop meanwhile: the WebSocket goes on to its end, and the connection ends behind it."""
    stream = client.open()
    client.echo(stream, b'before')
    print('open', flush=True)
    client.until(lambda: client.leaving)
    for n in range(20):
        client.echo(stream, f'after {n}'.encode())
    client.close(stream)
    while not client.closed:
        client.poll()


globals()[sys.argv[2]](Client(int(sys.argv[1]), *sys.argv[3:]))
print('done')
