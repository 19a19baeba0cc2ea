# A WebSocket server: echoes, sends its name (the argument) for `name`, pings for `ping`, closes with 4001 for `close`.
# It answers health checks, and says on which port it listens.
import asyncio, http, sys, websockets
async def echo(ws):
    async for m in ws:
        if m == 'name': await ws.send(sys.argv[1])
        elif m == 'ping': await asyncio.wait_for(await ws.ping(), 10); await ws.send('ponged')
        elif m == 'close': await ws.close(4001, 'as you wish'); return
        else: await ws.send(m)
async def health(path, headers):
    if path == '/health': return http.HTTPStatus.OK, [], b'fine'
async def main():
    async with websockets.serve(lambda ws: echo(ws), '127.0.0.1', 0, process_request=health, max_size=1 << 24) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
