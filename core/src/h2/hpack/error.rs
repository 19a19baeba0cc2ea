//! How a field block can be broken. Each ends the connection (RFC 9113 §4.3): the tables of the two sides
//! can't be brought into step again.

/// Why a field block could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends in the middle of a field.
    Truncated,
    /// An integer of more than 32 bits or more than five bytes behind its prefix (RFC 7541 §5.1).
    Integer,
    /// A code that stands for nothing, EOS, or padding that is too long or not of ones (RFC 7541 §5.2).
    Huffman,
    /// Index 0, or one beyond both tables (RFC 7541 §2.3.3).
    Index,
    /// A size update that is too large, or not at the beginning of the block (RFC 7541 §4.2, §6.3).
    SizeUpdate,
    /// The block doesn't begin with the size update that our smaller setting calls for (RFC 7541 §4.2).
    MissingSizeUpdate,
    /// The fields come to more than [`BlockLimits::hard_bytes`](super::BlockLimits::hard_bytes).
    TooLarge,
}

impl std::fmt::Display for HpackError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the field block ends in the middle of a field",
            Self::Integer => "an integer of the field block is too large",
            Self::Huffman => "a string of the field block has a bad Huffman code",
            Self::Index => "the field block has an index of no field",
            Self::SizeUpdate => "the field block has a bad size update",
            Self::MissingSizeUpdate => "the field block lacks the size update that a setting calls for",
            Self::TooLarge => "the field block expands to far more than is allowed",
        })
    }
}

impl std::error::Error for HpackError {}
