//! Bytes of a fuzzer as choices: those that have run out are zeros, so that every input means something.

/// What is left of an input.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// Two bytes of length and so many bytes, or what is left.
    pub(super) fn piece(&mut self) -> &'a [u8] {
        let n = usize::from(u16::from_be_bytes([self.byte(), self.byte()])).min(self.0.len());
        let (piece, rest) = self.0.split_at(n);
        self.0 = rest;
        piece
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cuts for `len` bytes: none, everywhere, or as a small generator has it.
pub(super) fn cuts(seed: u8, len: usize) -> Vec<usize> {
    match seed {
        0 => vec![len],
        1 => (1..=len).collect(),
        _ => {
            let (mut cuts, mut at, mut state) = (Vec::new(), 0, u32::from(seed).wrapping_mul(0x9e37_79b9));
            while at < len {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                at += 1 + (state >> 3) as usize % (1 << (1 + state % 7));
                cuts.push(at.min(len));
            }
            cuts
        }
    }
}
