//! Typical messages: short ones of load generators, and those of browsers and application servers.

/// The request of a load generator.
pub const SMALL_REQUEST: &[u8] = b"GET /b/200 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The request of a browser.
pub const BROWSER_REQUEST: &[u8] = b"GET /some/page/index.html?q=1&lang=en HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.com/some/page/index.html?q=0\r\n\
    Cookie: sid=5f2b6c1e8a9d4b7c; theme=dark; _ga=GA1.1.1234567890.1700000000\r\n\
    Cache-Control: no-cache\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Upgrade-Insecure-Requests: 1\r\n\r\n";

/// The head of a small response.
pub const SMALL_RESPONSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n";

/// The head of an application's response.
pub const BROWSER_RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: app/1.0\r\n\
    Date: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 200\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: \"5f2b6c1e8a9d4b7c\"\r\n\
    Last-Modified: Sun, 22 Nov 2026 09:30:00 GMT\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    Set-Cookie: sid=5f2b6c1e8a9d4b7c; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\
    X-Content-Type-Options: nosniff\r\n\
    X-Frame-Options: SAMEORIGIN\r\n\
    Strict-Transport-Security: max-age=31536000\r\n\r\n";

fn with_body(mut head: Vec<u8>, size: usize) -> Vec<u8> {
    head.resize(head.len() + size, b'x');
    head
}

/// The small response with its content of 200 bytes.
#[must_use]
pub fn small_response() -> Vec<u8> {
    with_body(SMALL_RESPONSE_HEAD.to_vec(), 200)
}

/// The application's response with its content of 200 bytes.
#[must_use]
pub fn browser_response() -> Vec<u8> {
    with_body(BROWSER_RESPONSE_HEAD.to_vec(), 200)
}

/// A response with `size` bytes of content.
#[must_use]
pub fn response(size: usize) -> Vec<u8> {
    with_body(
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n").into_bytes(),
        size,
    )
}

/// A request with `size` bytes of content.
#[must_use]
pub fn upload(size: usize) -> Vec<u8> {
    with_body(
        format!("POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n").into_bytes(),
        size,
    )
}

/// `size` bytes in chunks of `chunk`, the last chunk, and no trailers.
#[must_use]
pub fn chunks(size: usize, chunk: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut left = size;
    while left > 0 {
        let n = left.min(chunk);
        wire.extend_from_slice(format!("{n:x}\r\n").as_bytes());
        wire.resize(wire.len() + n, b'x');
        wire.extend_from_slice(b"\r\n");
        left -= n;
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// A response with `size` bytes of content in chunks of `chunk`.
#[must_use]
pub fn chunked_response(size: usize, chunk: usize) -> Vec<u8> {
    let mut wire =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    wire.extend_from_slice(&chunks(size, chunk));
    wire
}
