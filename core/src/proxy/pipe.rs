//! One direction of an exchange: payload from where it comes from to where it goes, with what changes it on
//! the way.

use crate::local_reply::{Body, LocalReply};
use crate::middleware::{Counter, Transform};
use crate::page::{PageId, Pages};
use crate::planted::planted;
use crate::wire::{STREAM_CREDIT, Wire};

/// One direction of an exchange. How the payload is framed is the business of the wires at both ends.
#[derive(Debug)]
pub(crate) struct MessagePipe {
    pipe: Pipe,
    /// In the order in which the payload passes them.
    transforms: Option<Box<Transforms>>,
    /// The source's message is complete: nothing comes after what lies here.
    pub(crate) ended: bool,
    /// What comes is for a tunnel that is not there yet. Until it is, the message counts as ended, without
    /// what has come.
    waits: bool,
    /// The source has ended meanwhile.
    ended_early: bool,
    /// Transforms need not flush: the last read filled the room that it had, so another one follows at
    /// once, and says so if there is nothing more.
    pub(crate) more_follows: bool,
    /// Payload received from the source, in bytes.
    pub(crate) payload_bytes: u64,
    /// A trailer section, ready to send; empty: there is none.
    pub(crate) trailers: Vec<u8>,
}

/// Where the payload lies.
#[derive(Debug)]
enum Pipe {
    /// In the buffer it was received into. The first `kept` bytes have been sent, and stay for a retry.
    Lent { kept: u32 },
    /// In a page of the exchange's own, lent while there is any: that of a stream of many.
    Own { page: Option<PageId>, start: u32, end: u32, kept: u32 },
    /// In memory already: a response of our own.
    Local { body: Body, sent: usize },
}

/// The transforms of a pipe: few have any, so the others pay a pointer for them.
#[derive(Debug, Default)]
struct Transforms {
    steps: Vec<TransformStep>,
}

/// One transform, and the page that its output lies in.
#[derive(Debug)]
struct TransformStep {
    transform: Box<dyn Transform>,
    page: PageId,
    start: u32,
    end: u32,
    done: bool,
    /// It has been asked for what there is to count.
    counted: bool,
}

impl MessagePipe {
    /// Payload that is lent by the wire it comes from.
    pub(crate) fn lent() -> Self {
        Self::of(Pipe::Lent { kept: 0 })
    }

    /// Payload that is copied into a page, since its connection goes on with other streams.
    pub(crate) fn own() -> Self {
        Self::of(Pipe::Own { page: None, start: 0, end: 0, kept: 0 })
    }

    /// Payload that lies in memory.
    pub(crate) fn local(body: Body) -> Self {
        Self { ended: true, ..Self::of(Pipe::Local { body, sent: 0 }) }
    }

    #[inline]
    fn of(pipe: Pipe) -> Self {
        Self {
            pipe,
            transforms: None,
            ended: false,
            waits: false,
            ended_early: false,
            more_follows: false,
            payload_bytes: 0,
            trailers: Vec::new(),
        }
    }

    /// What comes from now on waits for a tunnel; `ended`: nothing comes.
    pub(crate) fn wait(&mut self, ended: bool) {
        (self.ended, self.waits, self.ended_early) = (true, true, ended);
    }

    /// The tunnel is there.
    pub(crate) fn open(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.ended = self.ended_early;
        }
    }

    /// What comes waits for a tunnel.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waits
    }

    /// The source has ended, behind all that it has sent.
    pub(crate) fn source_ended(&mut self) {
        if self.waits {
            self.ended_early = true;
        } else {
            self.ended = true;
        }
    }

    /// Whether the source has ended.
    pub(crate) fn has_source_ended(&self) -> bool {
        if self.waits { self.ended_early } else { self.ended }
    }

    fn steps(&self) -> &[TransformStep] {
        self.transforms.as_ref().map_or(&[], |transforms| &transforms.steps)
    }

    /// The transform whose output goes out.
    #[inline]
    fn last_step(&self) -> Option<&TransformStep> {
        self.transforms.as_ref()?.steps.last()
    }

    /// It lends from the wire it comes from, and nothing changes it.
    #[inline]
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.pipe, Pipe::Lent { .. }) && self.transforms.is_none()
    }

    /// Nothing is left of a message that has ended: no payload at its source, and none that is changed.
    #[inline(always)]
    pub(crate) fn is_through(&self, source: &Wire) -> bool {
        let empty = match &self.pipe {
            Pipe::Lent { .. } => source.payload_len() == 0,
            Pipe::Own { page, .. } => page.is_none() || self.waits,
            Pipe::Local { .. } => false,
        };
        empty && self.ended && self.transforms.is_none()
    }

    /// It lends from the wire it comes from.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.pipe, Pipe::Lent { .. })
    }

    /// Something changes the payload: its length is unknown, and what has passed cannot pass again.
    pub(crate) fn is_transformed(&self) -> bool {
        self.transforms.is_some()
    }

    /// Puts a transform behind those that are there. Its output needs a page.
    ///
    /// # Errors
    /// If none is free.
    pub(crate) fn add_transform(
        &mut self,
        transform: Box<dyn Transform>,
        pages: &mut Pages,
    ) -> Result<(), NoPage> {
        let page = pages.lend().ok_or(NoPage)?;
        let step = TransformStep { transform, page, start: 0, end: 0, done: false, counted: false };
        self.transforms.get_or_insert_default().steps.push(step);
        Ok(())
    }

    /// Payload came that does not lie in a buffer of its wire: it is copied.
    ///
    /// # Errors
    /// If there is no page, or no room: the stream had no credit for so much.
    pub(crate) fn put(&mut self, data: &[u8], pages: &mut Pages) -> Result<(), NoPage> {
        let Pipe::Own { page, start, end, kept } = &mut self.pipe else { return Err(NoPage) };
        if page.is_none() {
            *page = Some(pages.lend().ok_or(NoPage)?);
        }
        let page = page.as_ref().expect("just lent");
        let memory = pages.bytes_mut(page);
        if *end as usize + data.len() > memory.len() {
            memory.copy_within(*start as usize..*end as usize, 0);
            (*start, *end) = (0, *end - *start);
        }
        debug_assert!(*kept <= *end - *start);
        let room = memory.get_mut(*end as usize..*end as usize + data.len()).ok_or(NoPage)?;
        room.copy_from_slice(data);
        *end += data.len() as u32;
        self.payload_bytes += data.len() as u64;
        Ok(())
    }

    /// Whether nothing comes after the payload that lies ready.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        match self.last_step() {
            None => self.ended,
            Some(last) => last.done,
        }
    }

    /// Payload that lies ready and has not been sent, in bytes.
    #[inline]
    pub(crate) fn ready_len(&self, source: Option<&Wire>) -> usize {
        match self.last_step() {
            None => self.source_len(source),
            Some(last) => (last.end - last.start) as usize,
        }
    }

    fn source_len(&self, source: Option<&Wire>) -> usize {
        match &self.pipe {
            Pipe::Lent { kept } => source.map_or(0, |wire| wire.payload_len() - *kept as usize),
            Pipe::Own { .. } if self.waits => 0,
            Pipe::Own { start, end, kept, .. } => (end - start - kept) as usize,
            Pipe::Local { body, sent } => body.bytes().len() - sent,
        }
    }

    /// Whether more can come while what has been sent is kept: a stream's sender waits once it has no credit.
    pub(crate) fn has_room(&self, source: &Wire) -> bool {
        match &self.pipe {
            Pipe::Own { start, end, .. } => ((end - start) as usize) < STREAM_CREDIT,
            Pipe::Lent { .. } | Pipe::Local { .. } => source.has_room(),
        }
    }

    /// Payload that lies ready and has not been sent.
    #[inline]
    pub(crate) fn ready<'a>(&'a self, source: Option<&'a Wire>, pages: &'a Pages) -> &'a [u8] {
        match self.last_step() {
            None => self.source_bytes(source, pages),
            Some(last) => &pages.bytes(&last.page)[last.start as usize..last.end as usize],
        }
    }

    #[inline]
    fn source_bytes<'a>(&'a self, source: Option<&'a Wire>, pages: &'a Pages) -> &'a [u8] {
        match (&self.pipe, source) {
            // Mostly there is none: that is known without a look at the page.
            (Pipe::Lent { kept }, Some(wire)) if wire.payload_len() != *kept as usize => {
                &wire.payload(pages)[*kept as usize..]
            }
            (Pipe::Lent { .. }, _) => &[],
            (Pipe::Own { page: Some(page), start, end, kept }, _) if !self.waits => {
                &pages.bytes(page)[(start + kept) as usize..*end as usize]
            }
            (Pipe::Own { .. }, _) => &[],
            (Pipe::Local { body, sent }, _) => &body.bytes()[*sent..],
        }
    }

    /// `n` bytes of what lay ready have been sent.
    #[inline]
    pub(crate) fn advance(&mut self, n: usize) {
        match self.transforms.as_mut().and_then(|transforms| transforms.steps.last_mut()) {
            None => self.advance_source(n),
            Some(last) => last.start += n as u32,
        }
    }

    #[inline]
    fn advance_source(&mut self, n: usize) {
        match &mut self.pipe {
            Pipe::Lent { kept } | Pipe::Own { kept, .. } => *kept += n as u32,
            Pipe::Local { sent, .. } => *sent += n,
        }
    }

    /// What has been sent is needed no more; returns how many bytes that were.
    #[inline]
    pub(crate) fn release(&mut self, source: Option<&mut Wire>, pages: &mut Pages) -> usize {
        match (&mut self.pipe, source) {
            (Pipe::Lent { kept }, Some(wire)) => {
                let n = std::mem::take(kept) as usize;
                wire.release(n);
                n
            }
            (Pipe::Own { page, start, end, kept }, _) => {
                let n = std::mem::take(kept);
                *start += n;
                if start == end {
                    (*start, *end) = (0, 0);
                    if let Some(page) = page.take() {
                        pages.give_back(page);
                    }
                }
                n as usize
            }
            _ => 0,
        }
    }

    /// Everything goes out once more, from the start. A body that is transformed is rewound only if nothing
    /// of it has been sent: then all that the transforms have put still lies ready.
    pub(crate) fn rewind(&mut self) {
        if self.is_transformed() {
            return;
        }
        match &mut self.pipe {
            Pipe::Lent { kept } | Pipe::Own { kept, .. } => {
                if !planted!(13) {
                    *kept = 0;
                }
            }
            Pipe::Local { sent, .. } => *sent = 0,
        }
    }

    /// Lets the transforms work on what is there, until nothing moves any more.
    ///
    /// # Errors
    /// If one of them says that the body must not pass.
    pub(crate) fn run(&mut self, source: Option<&Wire>, pages: &mut Pages) -> Result<(), Box<LocalReply>> {
        let Some(mut transforms) = self.transforms.take() else { return Ok(()) };
        let result = self.run_steps(&mut transforms.steps, source, pages);
        self.transforms = Some(transforms);
        result
    }

    /// What the transforms have counted that have become done.
    pub(crate) fn counters(&mut self) -> impl Iterator<Item = Counter> {
        let steps = self.transforms.as_mut().map_or(&mut [][..], |transforms| &mut transforms.steps[..]);
        steps.iter_mut().filter_map(|step| {
            let first = step.done && !std::mem::replace(&mut step.counted, true);
            if first { step.transform.counter() } else { None }
        })
    }

    fn run_steps(
        &mut self,
        steps: &mut [TransformStep],
        source: Option<&Wire>,
        pages: &mut Pages,
    ) -> Result<(), Box<LocalReply>> {
        self.move_on(steps, source, pages)?;
        if self.more_follows {
            return Ok(());
        }
        for place in 0..steps.len() {
            let input_ended = if place == 0 { self.ended } else { steps[place - 1].done };
            // What one has held back passes those behind it, which may make room for more of it.
            while !input_ended && steps[place].flush(pages)? {
                self.move_on(steps, source, pages)?;
            }
        }
        Ok(())
    }

    /// Lets each work on the output of the one before it, until nothing moves any more.
    fn move_on(
        &mut self,
        steps: &mut [TransformStep],
        source: Option<&Wire>,
        pages: &mut Pages,
    ) -> Result<(), Box<LocalReply>> {
        loop {
            let mut moved = self.run_first(&mut steps[0], source, pages)?;
            for place in 1..steps.len() {
                moved |= run_next(steps, place, pages)?;
            }
            if !moved || steps.len() == 1 {
                return Ok(());
            }
        }
    }

    /// The first transform works on what the source has; whether anything moved.
    fn run_first(
        &mut self,
        step: &mut TransformStep,
        source: Option<&Wire>,
        pages: &mut Pages,
    ) -> Result<bool, Box<LocalReply>> {
        let mut output = step.take_room(pages);
        let mut result = Ok(false);
        loop {
            if step.done || step.end as usize == output.len() {
                break;
            }
            let input = match (&self.pipe, source) {
                (Pipe::Lent { kept }, Some(wire)) => &wire.payload(pages)[*kept as usize..],
                (Pipe::Own { page: Some(page), start, end, kept }, _) => {
                    &pages.bytes(page)[(start + kept) as usize..*end as usize]
                }
                (Pipe::Local { body, sent }, _) => &body.bytes()[*sent..],
                _ => &[],
            };
            match step.transform.run(input, &mut output[step.end as usize..], self.ended) {
                Ok(progress) => {
                    step.end += progress.put as u32;
                    step.done = progress.done;
                    self.advance_source(progress.taken);
                    if progress.taken == 0 && progress.put == 0 {
                        break;
                    }
                    result = Ok(true);
                }
                Err(reply) => {
                    result = Err(reply);
                    break;
                }
            }
        }
        step.give_room(output, pages);
        result
    }

    /// Gives back every page of its own.
    #[inline]
    pub(crate) fn drop_pages(&mut self, pages: &mut Pages) {
        let own = matches!(self.pipe, Pipe::Own { page: Some(_), .. });
        if own || self.transforms.is_some() {
            self.drop_own_pages(pages);
        }
        if let Pipe::Lent { kept } = &mut self.pipe {
            *kept = 0;
        }
    }

    #[cold]
    fn drop_own_pages(&mut self, pages: &mut Pages) {
        for step in self.transforms.take().into_iter().flat_map(|transforms| transforms.steps) {
            pages.give_back(step.page);
        }
        if let Pipe::Own { page, start, end, kept } = &mut self.pipe {
            if let Some(page) = page.take() {
                pages.give_back(page);
            }
            (*start, *end, *kept) = (0, 0, 0);
        }
    }

    /// Pages of its own.
    pub(crate) fn pages(&self) -> usize {
        self.steps().len() + usize::from(matches!(self.pipe, Pipe::Own { page: Some(_), .. }))
    }
}

/// The transform at `place` works on the output of the one before it; whether anything moved.
fn run_next(steps: &mut [TransformStep], place: usize, pages: &mut Pages) -> Result<bool, Box<LocalReply>> {
    let (before, behind) = steps.split_at_mut(place);
    let (from, step) = (&mut before[place - 1], &mut behind[0]);
    let mut output = step.take_room(pages);
    let mut result = Ok(false);
    while !step.done && (step.end as usize) < output.len() {
        let input = &pages.bytes(&from.page)[from.start as usize..from.end as usize];
        match step.transform.run(input, &mut output[step.end as usize..], from.done) {
            Ok(progress) => {
                step.end += progress.put as u32;
                step.done = progress.done;
                from.start += progress.taken as u32;
                if progress.taken == 0 && progress.put == 0 {
                    break;
                }
                result = Ok(true);
            }
            Err(reply) => {
                result = Err(reply);
                break;
            }
        }
    }
    step.give_room(output, pages);
    result
}

impl TransformStep {
    /// Takes the memory of its page out, with what has been sent of it dropped.
    fn take_room(&mut self, pages: &mut Pages) -> Box<[u8]> {
        let mut memory = pages.detach(&self.page);
        if self.start > 0 {
            memory.copy_within(self.start as usize..self.end as usize, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        memory
    }

    /// Puts out what it holds back; whether there was anything, and room for it.
    fn flush(&mut self, pages: &mut Pages) -> Result<bool, Box<LocalReply>> {
        let mut output = self.take_room(pages);
        let room = &mut output[self.end as usize..];
        let flushed = if room.is_empty() || self.done { Ok(0) } else { self.transform.flush(room) };
        self.give_room(output, pages);
        let put = flushed?;
        self.end += put as u32;
        Ok(put > 0)
    }

    fn give_room(&self, memory: Box<[u8]>, pages: &mut Pages) {
        pages.restore(&self.page, memory);
    }
}

/// No page is free, or the one there is has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPage;
