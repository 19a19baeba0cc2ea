//! One encoder for every coding: what it takes in, what it puts out, and how much memory it may need.

use brotli::enc::StandardAlloc;
use brotli::enc::encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct};
use flate2::{Compress, Compression, FlushCompress, Status};
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, zstd_sys::ZSTD_EndDirective};

use crate::http::ContentCoding;

/// Levels where the configuration says none. zlib-rs makes text at 2 smaller than zlib does at 1, and brotli
/// at 3 needs a quarter of the memory that it needs at 4, for 3 % more bytes.
const DEFLATE_LEVEL: u8 = 2;
/// At 1 zlib-rs 0.6 loses bytes where output has to wait for room, and what it makes is a quarter longer.
const MIN_DEFLATE_LEVEL: u8 = 2;
const BROTLI_QUALITY: u8 = 3;
const ZSTD_LEVEL: u8 = 3;

/// Window of gzip and deflate, as a power of two: the format's largest.
const DEFLATE_WINDOW: u8 = 15;
/// Windows of brotli: memory grows with them.
const MAX_BROTLI_WINDOW: u8 = 18;
const MIN_BROTLI_WINDOW: u8 = 10;
/// Above this quality brotli needs the large window: for small ones it uses tables of 34 MB.
const MAX_QUALITY_OF_SMALL_WINDOWS: u8 = 4;
/// Window of zstd; clients need not take more than 8 MB (RFC 9659).
const ZSTD_WINDOW: u8 = 18;

/// What an encoder is made for: encoders of the same kind may take each other's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    coding: ContentCoding,
    level: u8,
    /// As a power of two.
    window: u8,
}

impl Kind {
    /// `len`: bytes of the content, if they are known.
    pub(super) fn new(coding: ContentCoding, level: Option<u8>, len: Option<u64>) -> Self {
        let default = match coding {
            ContentCoding::Br => BROTLI_QUALITY,
            ContentCoding::Zstd => ZSTD_LEVEL,
            ContentCoding::Gzip | ContentCoding::Deflate => DEFLATE_LEVEL,
        };
        let level = match coding {
            ContentCoding::Gzip | ContentCoding::Deflate => level.unwrap_or(default).max(MIN_DEFLATE_LEVEL),
            _ => level.unwrap_or(default),
        };
        let window = match coding {
            ContentCoding::Br if level > MAX_QUALITY_OF_SMALL_WINDOWS => MAX_BROTLI_WINDOW,
            ContentCoding::Br => brotli_window(len),
            ContentCoding::Zstd => ZSTD_WINDOW,
            ContentCoding::Gzip | ContentCoding::Deflate => DEFLATE_WINDOW,
        };
        Self { coding, level, window }
    }

    /// Whether an encoder of this kind can begin anew.
    pub(super) fn is_reusable(self) -> bool {
        self.coding != ContentCoding::Br
    }

    /// The most memory that an encoder of this kind uses, in bytes; a test measures it.
    pub(super) fn bytes(self) -> u64 {
        let kib = match (self.coding, self.level) {
            (ContentCoding::Gzip | ContentCoding::Deflate, _) => 384,
            (ContentCoding::Zstd, ..=2) => 1400,
            (ContentCoding::Zstd, 3) => 1900,
            (ContentCoding::Zstd, ..=6) => 3800,
            (ContentCoding::Zstd, 7) => 6400,
            (ContentCoding::Zstd, _) => 11_400,
            (ContentCoding::Br, ..=3) => 1300,
            (ContentCoding::Br, 4) => 4700,
            (ContentCoding::Br, 5 | 6) => 8600,
            (ContentCoding::Br, 7) => 13_300,
            (ContentCoding::Br, 8) => 21_500,
            (ContentCoding::Br, _) => 40_000,
        };
        kib * 1024
    }
}

/// The smallest window that holds the whole content.
fn brotli_window(len: Option<u64>) -> u8 {
    let fits = |window: &u8| len.is_some_and(|len| len <= (1 << *window) - 16);
    (MIN_BROTLI_WINDOW..MAX_BROTLI_WINDOW).find(fits).unwrap_or(MAX_BROTLI_WINDOW)
}

/// What to do with what has been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// More comes: the encoder puts out what it likes to.
    Process,
    /// More comes later: everything that was taken can be decoded from what has been put out.
    Flush,
    /// Nothing more comes.
    Finish,
}

/// What one call did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoded {
    pub(super) taken: usize,
    pub(super) put: usize,
    /// A flush or a finish is complete.
    pub(super) done: bool,
}

/// The encoder's library reported an error, which it never does when it is used as it is here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed;

/// An encoder in the middle of a body.
pub(super) struct Encoder {
    kind: Kind,
    engine: Engine,
}

enum Engine {
    Deflate(Deflate),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(CCtx<'static>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

impl Encoder {
    /// One that begins a body of `len` bytes, if that is known. `None` if it cannot be made.
    pub(super) fn new(kind: Kind, len: Option<u64>) -> Option<Self> {
        let level = Compression::new(kind.level.into());
        let engine = match kind.coding {
            ContentCoding::Gzip => Engine::Deflate(Deflate::new(Compress::new_gzip(level, kind.window))),
            ContentCoding::Deflate => {
                Engine::Deflate(Deflate::new(Compress::new_with_window_bits(level, true, kind.window)))
            }
            ContentCoding::Br => Engine::Brotli(brotli(kind, len)),
            ContentCoding::Zstd => Engine::Zstd(zstd(kind)?),
        };
        let mut encoder = Self { kind, engine };
        encoder.expect_len(len)?;
        Some(encoder)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Begins another body. `None` if it cannot.
    pub(super) fn begin(&mut self, len: Option<u64>) -> Option<()> {
        match &mut self.engine {
            Engine::Deflate(deflate) => deflate.reset(),
            Engine::Zstd(zstd) => {
                zstd.reset(ResetDirective::SessionOnly).ok()?;
            }
            Engine::Brotli(_) => return None,
        }
        self.expect_len(len)
    }

    /// Tables need not be larger than the content.
    fn expect_len(&mut self, len: Option<u64>) -> Option<()> {
        if let Engine::Zstd(zstd) = &mut self.engine {
            zstd.set_pledged_src_size(len).ok()?;
        }
        Some(())
    }

    /// Takes from `input`, puts into `output`. An operation that is not done goes on with the next call,
    /// which must be of the same operation; nothing is taken until a flush is done.
    pub(super) fn run(
        &mut self,
        input: &[u8],
        output: &mut [u8],
        operation: Operation,
    ) -> Result<Encoded, Failed> {
        match &mut self.engine {
            Engine::Deflate(deflate) => deflate.run(input, output, operation),
            Engine::Brotli(brotli) => run_brotli(brotli, input, output, operation),
            Engine::Zstd(zstd) => run_zstd(zstd, input, output, operation),
        }
    }
}

/// Room, in bytes, in which the end of a flush is made where less is left. The library wants more than six: a
/// flush that ends with its room is repeated by the next call, so that rooms of up to five bytes, the length
/// of what ends a flush, would be filled for ever.
const MIN_FLUSH_ROOM: usize = 32;

/// An encoder of the deflate format, and the end of a flush that waits for room.
struct Deflate {
    compress: Compress,
    waiting: [u8; MIN_FLUSH_ROOM],
    /// Where what waits begins and ends.
    start: usize,
    end: usize,
}

impl Deflate {
    fn new(compress: Compress) -> Self {
        Self { compress, waiting: [0; MIN_FLUSH_ROOM], start: 0, end: 0 }
    }

    fn reset(&mut self) {
        self.compress.reset();
        (self.start, self.end) = (0, 0);
    }

    fn run(&mut self, input: &[u8], output: &mut [u8], operation: Operation) -> Result<Encoded, Failed> {
        let waited = self.put_waiting(output);
        let output = &mut output[waited..];
        if self.start < self.end {
            return Ok(Encoded { taken: 0, put: waited, done: false });
        }
        let mut encoded = if operation == Operation::Flush && output.len() < MIN_FLUSH_ROOM {
            let made = deflate(&mut self.compress, input, &mut self.waiting, operation)?;
            (self.start, self.end) = (0, made.put);
            let put = self.put_waiting(output);
            Encoded { put, done: made.done && self.start == self.end, ..made }
        } else {
            deflate(&mut self.compress, input, output, operation)?
        };
        encoded.put += waited;
        Ok(encoded)
    }

    /// Bytes of what waits that there was room for.
    fn put_waiting(&mut self, output: &mut [u8]) -> usize {
        let len = output.len().min(self.end - self.start);
        output[..len].copy_from_slice(&self.waiting[self.start..self.start + len]);
        self.start += len;
        len
    }
}

fn deflate(
    compress: &mut Compress,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Encoded, Failed> {
    let flush = match operation {
        Operation::Process => FlushCompress::None,
        Operation::Flush => FlushCompress::Sync,
        Operation::Finish => FlushCompress::Finish,
    };
    let before = (compress.total_in(), compress.total_out());
    let status = compress.compress(input, output, flush).map_err(|_| Failed)?;
    let taken = (compress.total_in() - before.0) as usize;
    let put = (compress.total_out() - before.1) as usize;
    let done = match operation {
        Operation::Process => false,
        // It is, unless there was no room for all of it.
        Operation::Flush => put < output.len(),
        Operation::Finish => status == Status::StreamEnd,
    };
    Ok(Encoded { taken, put, done })
}

fn brotli(kind: Kind, len: Option<u64>) -> Box<BrotliEncoderStateStruct<StandardAlloc>> {
    let mut brotli = Box::new(BrotliEncoderStateStruct::new(StandardAlloc::default()));
    brotli.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, kind.level.into());
    brotli.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, kind.window.into());
    // From 1 MB on it would use tables of four times the size.
    let hint = len.and_then(|len| u32::try_from(len).ok()).unwrap_or(u32::MAX).min(1 << 19);
    brotli.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_SIZE_HINT, hint);
    brotli
}

pub(super) fn zstd(kind: Kind) -> Option<CCtx<'static>> {
    let mut zstd = CCtx::try_create()?;
    zstd.set_parameter(CParameter::CompressionLevel(kind.level.into())).ok()?;
    zstd.set_parameter(CParameter::WindowLog(kind.window.into())).ok()?;
    Some(zstd)
}

fn run_brotli(
    brotli: &mut BrotliEncoderStateStruct<StandardAlloc>,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Encoded, Failed> {
    let operation_code = match operation {
        Operation::Process => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
        Operation::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
        Operation::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
    };
    let (mut left, mut taken, mut room, mut put) = (input.len(), 0, output.len(), 0);
    let worked = brotli.compress_stream(
        operation_code,
        &mut left,
        input,
        &mut taken,
        &mut room,
        output,
        &mut put,
        &mut None,
        &mut |_, _, _, _| (),
    );
    if !worked {
        return Err(Failed);
    }
    let done = match operation {
        Operation::Process => false,
        Operation::Flush => left == 0 && !brotli.has_more_output(),
        Operation::Finish => brotli.is_finished(),
    };
    Ok(Encoded { taken, put, done })
}

pub(super) fn run_zstd(
    zstd: &mut CCtx<'static>,
    input: &[u8],
    output: &mut [u8],
    operation: Operation,
) -> Result<Encoded, Failed> {
    let directive = match operation {
        Operation::Process => ZSTD_EndDirective::ZSTD_e_continue,
        Operation::Flush => ZSTD_EndDirective::ZSTD_e_flush,
        Operation::Finish => ZSTD_EndDirective::ZSTD_e_end,
    };
    let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
    let left = zstd.compress_stream2(&mut to, &mut from, directive).map_err(|_| Failed)?;
    let done = operation != Operation::Process && left == 0 && from.pos == input.len();
    Ok(Encoded { taken: from.pos, put: to.pos(), done })
}
