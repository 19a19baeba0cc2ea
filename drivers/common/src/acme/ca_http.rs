//! Requests to an authority: one at a time, by a blocking client on a thread of its own, with a deadline for
//! the whole exchange and a limit for the body.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use ruststrom_core::acme::ProblemKind;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::problem::{LastAnswer, NoAnswer};
use crate::tls::provider::provider;

/// From the look-up of the name to the last byte of the body.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest body, in bytes: a chain of certificates or a directory has a few thousand.
const MAX_BODY: u64 = 1 << 20;
/// Largest head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Redirects of one request.
const MAX_REDIRECTS: u32 = 3;
/// What is told of an answer that is no problem document, in bytes.
const MAX_EXCERPT: usize = 120;
/// When renewal information may be asked for again, if the answer does not say (RFC 9773 §4.3.3), in
/// seconds.
const DEFAULT_RETRY_AFTER: HeaderValue = HeaderValue::from_static("21600");
const OURS: HeaderValue = HeaderValue::from_static(concat!("rust-strom/", env!("CARGO_PKG_VERSION")));

/// What the client of the protocol sends its requests by. Proxies of the environment (`HTTPS_PROXY`,
/// `NO_PROXY`) are used.
#[derive(Clone)]
pub(super) struct CaHttp {
    agent: Agent,
    last: Arc<Mutex<LastAnswer>>,
}

impl CaHttp {
    /// One that trusts these authorities with the directory's own certificate, each in DER.
    pub(super) fn new(roots: &[impl AsRef<[u8]>]) -> Self {
        Self::within(DEADLINE, roots)
    }

    fn within(deadline: Duration, roots: &[impl AsRef<[u8]>]) -> Self {
        let roots = roots.iter().map(|der| Certificate::from_der(der.as_ref()).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .unversioned_rustls_crypto_provider(provider())
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .max_response_header_size(MAX_HEAD)
            .timeout_global(Some(deadline))
            .build();
        Self { agent: config.into(), last: Arc::default() }
    }

    /// What the last answer said besides its body.
    pub(super) fn last(&self) -> LastAnswer {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_last(&self, last: LastAnswer) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    /// Sends a request and waits for the whole answer.
    fn exchange(&self, mut request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Error> {
        request.headers_mut().insert(USER_AGENT, OURS);
        let (is_get, uri) = (*request.method() == Method::GET, request.uri().clone());
        let sent = if is_get || *request.method() == Method::HEAD {
            self.agent.run(request.map(drop))
        } else {
            self.agent.run(request)
        };
        let answer = sent.map_err(|e| no_answer(&e, &uri))?;
        self.set_last(LastAnswer {
            status: answer.status().as_u16(),
            retry_after: retry_after(answer.headers(), SystemTime::now()),
        });
        let (mut parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(MAX_BODY).read_to_vec().map_err(|e| no_answer(&e, &uri))?;
        if is_get && parts.status.is_success() && !parts.headers.contains_key(RETRY_AFTER) {
            // Without the field the client of the protocol refuses what is good otherwise.
            parts.headers.insert(RETRY_AFTER, DEFAULT_RETRY_AFTER);
        }
        let is_error = parts.status.is_client_error() || parts.status.is_server_error();
        let body = match is_error && serde_json::from_slice::<instant_acme::Problem>(&body).is_err() {
            true => document(parts.status, &body),
            false => body,
        };
        Ok(Response::from_parts(parts, body))
    }
}

impl HttpClient for CaHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<bytes::Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        client.set_last(LastAnswer::default());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let mut body = BytesResponse::from(Response::new(body)).body;
            let body = body.into_bytes().await.map_err(Error::Other)?.to_vec();
            let answer = smol::unblock(move || client.exchange(Request::from_parts(parts, body))).await?;
            Ok(BytesResponse::from(answer.map(BodyWrapper::from)))
        })
    }
}

/// A problem document in the place of an error page: proxies and balancers before an authority send those.
fn document(status: http::StatusCode, body: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_EXCERPT)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let detail = if text.is_empty() {
        format!("the answer was {status}")
    } else {
        format!("the answer was {status}: {text}")
    };
    let document = serde_json::json!({ "type": "about:blank", "status": status.as_u16(), "detail": detail });
    document.to_string().into_bytes()
}

/// Seconds from now (RFC 9110 §10.2.3).
fn retry_after(fields: &HeaderMap, now: SystemTime) -> Option<u64> {
    let value = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).map_or(0, |wait| wait.as_secs() + 1))
}

fn no_answer(error: &ureq::Error, uri: &http::Uri) -> Error {
    use ureq::Error as E;
    let host = uri.authority().map_or("?", |authority| authority.as_str());
    let (kind, text) = match error {
        E::Timeout(_) => (
            ProblemKind::Unreachable,
            format!("no whole answer of {host} within {} seconds", DEADLINE.as_secs()),
        ),
        E::HostNotFound => (ProblemKind::Unreachable, format!("the name {host} has no address here")),
        E::Rustls(e) => (
            ProblemKind::Unreachable,
            format!("{host} cannot be trusted: {e}; is `ca_file` the authority of its certificate?"),
        ),
        E::Io(e) if e.get_ref().is_some_and(|e| e.is::<rustls::Error>()) => (
            ProblemKind::Unreachable,
            format!("{host} cannot be trusted: {e}; is `ca_file` the authority of its certificate?"),
        ),
        E::Io(e) => (ProblemKind::Unreachable, format!("{host}: {e}")),
        E::BodyExceedsLimit(_) | E::LargeResponseHeader(..) | E::Protocol(_) => {
            (ProblemKind::BadAnswer, format!("{host}: {error}"))
        }
        _ => (ProblemKind::Unreachable, format!("{host}: {error}")),
    };
    Error::Other(Box::new(NoAnswer { kind, text }))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Instant;

    use super::*;
    use crate::acme::problem;
    use ruststrom_core::acme::Problem;

    /// A server that takes one connection, sends `pieces` with a pause before each, and then waits for the
    /// client to go; what it was sent comes out in the end.
    fn server(pieces: Vec<Vec<u8>>, pause: Duration) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = String::new();
            // The body of a POST may come on its own.
            while !(request.ends_with("{}") || request.starts_with("GET") && request.ends_with("\r\n\r\n")) {
                let mut piece = [0; 4096];
                let n = stream.read(&mut piece).expect("a request");
                assert!(n > 0, "it has gone after {request}");
                request.push_str(&String::from_utf8_lossy(&piece[..n]));
            }
            for piece in pieces {
                std::thread::sleep(pause);
                if stream.write_all(&piece).is_err() {
                    break;
                }
            }
            // It may have been reset.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            request
        };
        (address, std::thread::spawn(serve))
    }

    fn ask(
        http: &CaHttp,
        method: Method,
        address: SocketAddr,
    ) -> Result<(http::response::Parts, String), Error> {
        let request = Request::builder().method(method).uri(format!("http://{address}/x"));
        let request = request.body(BodyWrapper::from(b"{}".to_vec())).expect("a request");
        smol::block_on(async {
            let mut answer = http.request(request).await?;
            let body = answer.body.into_bytes().await.expect("in memory");
            Ok((answer.parts, String::from_utf8_lossy(&body).into_owned()))
        })
    }

    fn problem_of(http: &CaHttp, error: &Error) -> Problem {
        problem::of(error, http.last())
    }

    const NONE: &[&[u8]] = &[];

    #[test]
    fn an_answer_comes_with_its_fields_and_says_when_to_come_back() {
        let http = CaHttp::new(NONE);
        let answer =
            b"HTTP/1.1 201 Created\r\nReplay-Nonce: n\r\nRetry-After: 120\r\nContent-Length: 2\r\n\r\nab";
        let (address, server_side) = server(vec![answer.to_vec()], Duration::ZERO);
        let (parts, body) = ask(&http, Method::POST, address).expect("an answer");
        assert_eq!((parts.status.as_u16(), &*body), (201, "ab"));
        assert_eq!(parts.headers["replay-nonce"], "n");
        assert_eq!(http.last(), LastAnswer { status: 201, retry_after: Some(120) });
        drop(http);
        let sent = server_side.join().expect("no panic").to_ascii_lowercase();
        assert!(sent.starts_with("post /x http/1.1\r\n") && sent.ends_with("\r\n\r\n{}"), "{sent}");
        assert!(sent.contains("user-agent: rust-strom/"), "{sent}");
    }

    #[test]
    fn pages_of_errors_become_problem_documents() {
        let page = "<html>\n <h1>Bad   Gateway</h1></html>";
        let document = "{\"type\":\"urn:ietf:params:acme:error:rateLimited\",\"detail\":\"no\"}";
        // (status, body, what is in the body that is handed on)
        let table = [
            (502, page, "the answer was 502 Bad Gateway: <html> <h1>Bad Gateway</h1></html>"),
            (503, "", "\"detail\":\"the answer was 503 Service Unavailable\""),
            (429, document, document),
        ];
        for (status, body, expected) in table {
            let http = CaHttp::new(NONE);
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let (address, _) = server(vec![answer.into_bytes()], Duration::ZERO);
            let (_, got) = ask(&http, Method::POST, address).expect("an answer");
            assert!(got.contains(expected), "{got}");
            assert!(serde_json::from_str::<instant_acme::Problem>(&got).is_ok(), "{got}");
        }
    }

    #[test]
    fn an_answer_that_trickles_has_a_deadline() {
        let http = CaHttp::within(Duration::from_millis(400), NONE);
        let mut pieces = vec![b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec()];
        pieces.extend((0..100).map(|_| b"x".to_vec()));
        let (address, _) = server(pieces, Duration::from_millis(50));
        let begun = Instant::now();
        let error = ask(&http, Method::GET, address).expect_err("no whole answer");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        let problem = problem_of(&http, &error);
        assert_eq!(problem.kind, ProblemKind::Unreachable);
        assert!(problem.text.contains("no whole answer"), "{}", problem.text);
    }

    #[test]
    fn a_body_has_a_limit() {
        for head in ["Content-Length: 2000000\r\n", ""] {
            let http = CaHttp::new(NONE);
            let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
            let (address, _) = server(vec![answer, vec![b'x'; 2_000_000]], Duration::ZERO);
            let error = ask(&http, Method::GET, address).expect_err("too long");
            assert_eq!(problem_of(&http, &error).kind, ProblemKind::BadAnswer, "{error}");
        }
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let http = CaHttp::new(NONE);
        let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
        let error = ask(&http, Method::GET, closed).expect_err("nobody is there");
        let problem = problem_of(&http, &error);
        assert_eq!((problem.kind, problem.retry_after), (ProblemKind::Unreachable, None));
        assert!(problem.text.contains("refused"), "{}", problem.text);
    }

    #[test]
    fn when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        // RFC 9110 §10.2.3; the date is that of its example, in the first row 37 seconds from now.
        let table = [
            ("Sun, 06 Nov 1994 08:50:14 GMT", Some(38)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(1)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ];
        for (text, expected) in table {
            let mut fields = HeaderMap::new();
            fields.insert(RETRY_AFTER, HeaderValue::from_static(text));
            assert_eq!(retry_after(&fields, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
