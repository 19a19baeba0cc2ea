# Twelve WebSocket clients at once. Arguments: a URL, the address and port to connect to, and for wss:// a file of the
# authority that is trusted. Prints the names of the servers that they reached.
import asyncio, os, ssl, sys, websockets
from urllib.parse import urlsplit
url = sys.argv[1]
tls = {}
if url.startswith('wss:'):
    # The name of the URL, not the address.
    tls = {'ssl': ssl.create_default_context(cafile=sys.argv[4]), 'server_hostname': urlsplit(url).hostname}
async def one(i):
    async with websockets.connect(url, host=sys.argv[2], port=int(sys.argv[3]), max_size=1 << 24, subprotocols=['chat', 'superchat'], extra_headers={}, **tls) as ws:
        await ws.send('name')
        name = await ws.recv()
        for n in range(50):
            await ws.send(f'{i} {n}')
            assert await ws.recv() == f'{i} {n}'
        big = os.urandom(1 << 20)
        await ws.send(big)
        assert await ws.recv() == big
        for n in range(200): await ws.send(str(n))
        for n in range(200): assert await ws.recv() == str(n)
        await asyncio.wait_for(await ws.ping(b'are you there'), 10)
        await ws.send('ping')
        assert await ws.recv() == 'ponged'
        if i % 2:
            await ws.send('close')
            try:
                await ws.recv()
                assert False, 'it was not closed'
            except websockets.ConnectionClosed as e:
                assert e.rcvd.code == 4001 and e.rcvd.reason == 'as you wish', e
        return name
async def main():
    names = await asyncio.gather(*(one(i) for i in range(12)))
    print(' '.join(sorted(names)))
asyncio.run(asyncio.wait_for(main(), 40))
