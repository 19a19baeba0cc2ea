//! Frames with field blocks of other encoders (`testdata/hpack`), read by us and by the `h2` crate.

use std::hint::black_box;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use criterion::{BenchmarkId, Criterion, Throughput};
use futures_core::Stream;
use ruststrom_core::h2::frame::{Frame, FrameHeader, FrameReader, flag, kind};
use ruststrom_core::h2::hpack::{BlockLimits, Decoder, FieldBlock, Fit};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LIMITS: BlockLimits = BlockLimits { list_bytes: 65_535, fields: 200, hard_bytes: 1 << 20 };
/// So many stories of each encoder: the longest. The others are all set-up.
const STORIES: usize = 3;

/// A story: its blocks, each in a HEADERS frame of its own stream, and how many there are.
struct Story {
    name: String,
    bytes: Vec<u8>,
    blocks: usize,
}

/// The longest stories of an encoder, which both read whole.
fn stories(encoder: &str) -> Vec<Story> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hpack").join(encoder);
    let files = std::fs::read_dir(folder).expect("stories").map(|file| file.expect("a file").path());
    let mut stories: Vec<Story> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let (bytes, blocks) = frames(&path);
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Story { name, bytes, blocks }
        })
        .inspect(|story| assert_eq!(theirs(&story.bytes), story.blocks, "{}", story.name))
        .collect();
    stories.sort_by(|a, b| (b.bytes.len(), &a.name).cmp(&(a.bytes.len(), &b.name)));
    assert!(stories.len() >= STORIES, "{} stories of {encoder}", stories.len());
    stories.truncate(STORIES);
    stories
}

fn frames(path: &Path) -> (Vec<u8>, usize) {
    let text = std::fs::read_to_string(path).expect("a story");
    let story: Value = serde_json::from_str(&text).expect("JSON");
    let cases = story["cases"].as_array().expect("cases");
    let mut bytes = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        let hex = case["wire"].as_str().expect("hex");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let block: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let flags = flag::END_HEADERS | flag::END_STREAM;
        let (len, stream) = (block.len() as u32, 2 * n as u32 + 1);
        bytes.extend_from_slice(&FrameHeader { len, kind: kind::HEADERS, flags, stream }.bytes());
        bytes.extend_from_slice(&block);
    }
    (bytes, cases.len())
}

fn ours(bytes: &[u8], into: &mut FieldBlock) -> usize {
    let (mut reader, mut decoder) = (FrameReader::client(16_384), Decoder::new());
    let (mut at, mut blocks) = (0, 0);
    while let Ok((n, Some(Frame::Headers { block, .. }))) = reader.next(&bytes[at..]) {
        assert_eq!(decoder.decode(block, &LIMITS, into), Ok(Fit::Whole));
        black_box(&*into);
        at += n;
        blocks += 1;
    }
    blocks
}

/// Bytes to read; nothing is written.
struct Input<'a>(&'a [u8]);

impl AsyncRead for Input<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context, buf: &mut ReadBuf) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buf.remaining()));
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Input<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn theirs(bytes: &[u8]) -> usize {
    let mut codec: h2::Codec<_, bytes::Bytes> = h2::Codec::new(Input(bytes));
    let mut context = Context::from_waker(Waker::noop());
    let mut blocks = 0;
    loop {
        match Pin::new(&mut codec).poll_next(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                black_box(&frame);
                blocks += 1;
            }
            // The messages of the stories have fields of HTTP/1.1's connections. They are malformed, and
            // their blocks are read like any other: the tables have to stay in step.
            Poll::Ready(Some(Err(h2::proto::Error::Reset(..)))) => blocks += 1,
            Poll::Ready(Some(Err(error))) => panic!("{error:?}"),
            Poll::Ready(None) => return blocks,
            Poll::Pending => panic!("there is always something to read"),
        }
    }
}

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("field blocks");
    for encoder in ["nghttp2", "go-hpack"] {
        for Story { name, bytes, blocks } in stories(encoder) {
            let mut into = FieldBlock::new();
            assert_eq!(ours(&bytes, &mut into), blocks);
            group.throughput(Throughput::Elements(blocks as u64));
            let name = format!("{encoder} {name}");
            group.bench_function(BenchmarkId::new("ours", &name), |b| b.iter(|| ours(&bytes, &mut into)));
            group.bench_function(BenchmarkId::new("the h2 crate", &name), |b| b.iter(|| theirs(&bytes)));
        }
    }
    group.finish();
}
