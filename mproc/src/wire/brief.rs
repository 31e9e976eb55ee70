//! Bytes that are kept for a while and are few more often than not.

use std::ops::Deref;

/// Bytes of any number; fifteen, or less, take no memory beside the value itself.
#[derive(Clone)]
pub(crate) enum Brief {
    Short(u8, [u8; MOST]),
    Long(Vec<u8>),
}

/// As many as fit beside their number where a `Vec` would have its address and length.
const MOST: usize = 15;

impl Brief {
    #[inline]
    pub(crate) fn new(bytes: &[u8]) -> Self {
        if let Ok(eight) = <[u8; 8]>::try_from(bytes) {
            // The most frequent length, and a copy of any other is a call.
            let mut all = [0; MOST];
            all[..8].copy_from_slice(&eight);
            return Self::Short(8, all);
        }
        Self::short(bytes).unwrap_or_else(|| Self::Long(bytes.to_vec()))
    }

    fn short(bytes: &[u8]) -> Option<Self> {
        let mut all = [0; MOST];
        all.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Short(bytes.len() as u8, all))
    }
}

impl From<Vec<u8>> for Brief {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self::short(&bytes).unwrap_or(Self::Long(bytes))
    }
}

impl From<Brief> for Vec<u8> {
    fn from(bytes: Brief) -> Self {
        match bytes {
            Brief::Short(..) => bytes.to_vec(),
            Brief::Long(bytes) => bytes,
        }
    }
}

impl Deref for Brief {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_bytes_comes_back() {
        assert_eq!(size_of::<Brief>(), size_of::<Vec<u8>>());
        for length in 0..40 {
            let bytes: Vec<u8> = (1..=length).collect();
            for brief in [Brief::new(&bytes), bytes.clone().into()] {
                assert_eq!(*brief, *bytes);
                assert_eq!(Vec::from(brief), bytes);
            }
        }
    }
}
