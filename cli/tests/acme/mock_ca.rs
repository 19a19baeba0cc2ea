//! A CA that trusts everyone and offers renewal information (RFC 9773), over plain HTTP on the loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    SerialNumber,
};
use ruststrom_core::http::date::civil_date;

const DAY: u64 = 86_400;

/// What it was asked.
#[derive(Default)]
pub(crate) struct Asked {
    /// Method and path of each request.
    pub(crate) requests: Vec<String>,
    /// What each order replaces.
    pub(crate) replaces: Vec<Option<String>>,
    certificates: Vec<String>,
}

pub(crate) struct MockCa {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Asked>>,
    /// The root that its certificates are trusted by.
    pub(crate) root: String,
}

struct Signer {
    issuer: Issuer<'static, KeyPair>,
    address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
}

impl MockCa {
    /// One whose first certificate is to be renewed at once, and no other in the next days.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "a mock CA");
        let root = ca.self_signed(&key).expect("a root").pem();
        let asked = Arc::<Mutex<Asked>>::default();
        let signer = Signer { issuer: Issuer::new(ca, key), address, asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                signer.serve(stream);
            }
        });
        Self { address, asked, root }
    }
}

impl Signer {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        if let Some((method, path, body)) = request(&mut reader) {
            let (status, fields, body) = self.answer(&method, &path, &body);
            let nonce = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
            let body = if method == "HEAD" { String::new() } else { body };
            let head = format!(
                "HTTP/1.1 {status} X\r\nReplay-Nonce: n{nonce}\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = reader.get_mut().write_all((head + &body).as_bytes());
        }
    }

    fn answer(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut asked = self.asked.lock().expect("no panic");
        asked.requests.push(format!("{method} {path}"));
        let url = |path: &str| format!("http://{}{path}", self.address);
        let located = |path: &str| format!("Location: {}\r\n", url(path));
        let plain = |body: String| (200, String::new(), body);
        let (kind, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let nth = rest.parse::<usize>().unwrap_or(0);
        match kind {
            "dir" => plain(format!(
                "{{\"newNonce\":\"{}\",\"newAccount\":\"{}\",\"newOrder\":\"{}\",\"renewalInfo\":\"{}\"}}",
                url("/nonce"),
                url("/account"),
                url("/order"),
                url("/ari")
            )),
            "nonce" => plain(String::new()),
            "account" => (201, located("/account/1"), "{\"status\":\"valid\"}".into()),
            "order" if rest.is_empty() => {
                let replaces = payload(body, "replaces");
                asked.replaces.push(replaces.clone());
                let nth = asked.replaces.len();
                (201, located(&format!("/order/{nth}")), self.order(nth, "ready", replaces.as_deref()))
            }
            "order" => plain(self.order(nth, "valid", None)),
            "finalize" => {
                let csr = decode(&payload(body, "csr").expect("a request"));
                let certificate = self.sign(csr, asked.certificates.len() as u8 + 1);
                asked.certificates.push(certificate);
                plain(self.order(nth, "valid", None))
            }
            "certificate" => plain(asked.certificates[nth - 1].clone()),
            "ari" => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
                let first = asked.certificates.len() == 1;
                let (start, end) =
                    if first { (now - 7200, now - 3600) } else { (now + 2 * DAY, now + 3 * DAY) };
                let body = format!(
                    "{{\"suggestedWindow\":{{\"start\":\"{}\",\"end\":\"{}\"}},\"explanationURL\":\"https://ca.example/why\"}}",
                    rfc3339(start),
                    rfc3339(end)
                );
                (200, "Retry-After: 3600\r\n".into(), body)
            }
            _ => (404, String::new(), String::new()),
        }
    }

    fn order(&self, nth: usize, status: &str, replaces: Option<&str>) -> String {
        let url = |kind: &str| format!("http://{}/{kind}/{nth}", self.address);
        let replaces = replaces.map(|id| format!(",\"replaces\":\"{id}\"")).unwrap_or_default();
        format!(
            "{{\"status\":\"{status}\",\"authorizations\":[\"{}\"],\"finalize\":\"{}\",\"certificate\":\"{}\"{replaces}}}",
            url("authorization"),
            url("finalize"),
            url("certificate")
        )
    }

    /// A certificate since yesterday, for five days.
    fn sign(&self, csr: Vec<u8>, serial: u8) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).expect("a request");
        let today = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() / DAY;
        let date = |days: u64| {
            let (year, month, day) = civil_date(days);
            rcgen::date_time_ymd(year as i32, month as u8, day as u8)
        };
        request.params.not_before = date(today - 1);
        request.params.not_after = date(today + 4);
        request.params.serial_number = Some(SerialNumber::from(vec![serial]));
        request.params.use_authority_key_identifier_extension = true;
        request.signed_by(&self.issuer).expect("a certificate").pem()
    }
}

/// Method, path and body; `None` at the end.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, String::from_utf8(body).ok()?))
}

/// A string of the payload of a signed request.
fn payload(body: &str, key: &str) -> Option<String> {
    let text = String::from_utf8(decode(&string(body, "payload")?)).ok()?;
    string(&text, key)
}

/// A string of a JSON object without escapes.
fn string(json: &str, key: &str) -> Option<String> {
    let rest = json.split_once(&format!("\"{key}\":\""))?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

/// base64url (RFC 4648 §5), without padding.
fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            _ => 63,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

fn rfc3339(at: u64) -> String {
    let (year, month, day) = civil_date(at / DAY);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at % DAY / 3600, at % 3600 / 60, at % 60)
}
