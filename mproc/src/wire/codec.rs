//! Values to bytes and back: the only file that knows which format is used.
//!
//! The format is [bincode] 2.0.1, little-endian with integers of fixed size. Fixed size, because between processes of
//! one machine bytes cost little and packing them much: a `Vec<i64>` is written about six times and read three times
//! faster than with bincode's variable-length integers.
//!
//! bincode's own serde front end is not enough between processes that may be hostile, or merely wrong: nine bytes abort
//! the reader by claiming a string of a terabyte, deep nesting overflows its stack, and a skipped field makes it read
//! what was never written. `strict` is the front end we use instead. This file lends it bincode's encoders and decoders
//! of strings and bytes, writes numbers as bincode does, and names the type in its errors.
//!
//! # If bincode must go
//!
//! It is unmaintained (RUSTSEC-2025-0141): 2.0.1 is the last release, 3.0.0 is a tombstone that does not compile, hence
//! the exact pin. What a successor has to provide is what `strict::Sink` and `strict::Source` ask for: to write a number,
//! string or slice of bytes into a writer, and to read it from a slice, borrowing strings and bytes and looking whether
//! they are there before it does anything in proportion to their length. Then this file is the whole of the exchange.
//! Both ends of a channel are the same binary or agree on a version first, so the bytes themselves are no promise.
//!
//! [bincode]: https://docs.rs/bincode/2.0.1

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::io;

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::de::read::{BorrowReader, Reader};
use bincode::de::{BorrowDecode, Decode, DecoderImpl};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::strict::{self, Cause, Refusal, Sink, Source};

type Format = Configuration<LittleEndian, Fixint>;

const FORMAT: Format = bincode::config::standard().with_fixed_int_encoding();

/// Appends the encoding of `value` to `to`.
///
/// After an error, `to` may hold the beginning of an encoding.
#[inline(always)]
pub(crate) fn encode<T, W>(value: &T, to: &mut W) -> Result<(), CodecError>
where
    T: Serialize + ?Sized,
    W: io::Write,
{
    strict::write(value, ToWriter { to, written: 0 })
        .map_err(|refusal| CodecError::new::<T>("encode", refusal))
}

/// Decodes one value from the front of `from` and moves `from` past it.
///
/// After an error, `from` is where it was. Whatever the bytes, this reads no further than they go, and reserves and
/// loops no more than in proportion to them.
#[inline(always)]
pub(crate) fn decode<T: DeserializeOwned>(from: &mut &[u8]) -> Result<T, CodecError> {
    let (value, left) = strict::read(FromSlice { rest: from })
        .map_err(|refusal| CodecError::new::<T>("decode", refusal))?;
    *from = &from[from.len() - left..];
    Ok(value)
}

struct ToWriter<'w, W> {
    to: &'w mut W,
    written: usize,
}

impl<W: io::Write> Writer for ToWriter<'_, W> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let index = self.written;
        self.written += bytes.len();
        self.to
            .write_all(bytes)
            .map_err(|inner| EncodeError::Io { inner, index })
    }
}

macro_rules! put {
    ($($put:ident($type:ty)),* $(,)?) => {$(
        #[inline]
        fn $put(&mut self, value: $type) -> Result<(), Refusal> {
            value
                .encode(&mut EncoderImpl::new(self, FORMAT))
                .map_err(not_written)
        }
    )*};
}

// What bincode does with them, which its own functions do four calls away: they are not inlined, and a number took ten times as long.
macro_rules! put_numbers {
    ($($put:ident($type:ty)),* $(,)?) => {$(
        #[inline(always)]
        fn $put(&mut self, value: $type) -> Result<(), Refusal> {
            self.put_run(&value.to_le_bytes())
        }
    )*};
}

impl<W: io::Write> Sink for ToWriter<'_, W> {
    put! { put_bool(bool), put_char(char), put_str(&str), put_bytes(&[u8]) }

    put_numbers! {
        put_f32(f32), put_f64(f64),
        put_i8(i8), put_i16(i16), put_i32(i32), put_i64(i64), put_i128(i128),
        put_u8(u8), put_u16(u16), put_u32(u32), put_u64(u64), put_u128(u128),
    }

    #[inline(always)]
    fn put_run(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.written += bytes.len();
        self.to.write_all(bytes).map_err(Refusal::io)
    }

    #[inline]
    fn written(&self) -> usize {
        self.written
    }
}

#[derive(Clone, Copy)]
struct FromSlice<'de> {
    rest: &'de [u8],
}

impl Reader for &mut FromSlice<'_> {
    #[inline(always)]
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        bytes.copy_from_slice(self.take_bytes(bytes.len())?);
        Ok(())
    }
}

impl<'de> BorrowReader<'de> for &mut FromSlice<'de> {
    #[inline(always)]
    fn take_bytes(&mut self, length: usize) -> Result<&'de [u8], DecodeError> {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(DecodeError::UnexpectedEnd {
                additional: length - self.rest.len(),
            }),
        }
    }
}

macro_rules! take {
    ($($take:ident -> $type:ty),* $(,)?) => {$(
        #[inline]
        fn $take(&mut self) -> Result<$type, Refusal> {
            <$type>::decode(&mut DecoderImpl::new(self, FORMAT, ())).map_err(not_read)
        }
    )*};
}

// As with `put_numbers`.
macro_rules! take_numbers {
    ($($take:ident -> $type:ty),* $(,)?) => {$(
        #[inline(always)]
        fn $take(&mut self) -> Result<$type, Refusal> {
            let Some((bytes, rest)) = self.rest.split_first_chunk() else {
                return Err(too_few(size_of::<$type>() - self.rest.len()));
            };
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*bytes))
        }
    )*};
}

impl<'de> Source<'de> for FromSlice<'de> {
    take! { take_bool -> bool, take_char -> char }

    take_numbers! {
        take_f32 -> f32, take_f64 -> f64,
        take_i8 -> i8, take_i16 -> i16, take_i32 -> i32, take_i64 -> i64, take_i128 -> i128,
        take_u8 -> u8, take_u16 -> u16, take_u32 -> u32, take_u64 -> u64, take_u128 -> u128,
    }

    // Borrowed, because bincode reserves what an owned string claims before it looks whether the bytes are there.

    #[inline]
    fn take_str(&mut self) -> Result<&'de str, Refusal> {
        <&str>::borrow_decode(&mut DecoderImpl::new(self, FORMAT, ())).map_err(not_read)
    }

    #[inline]
    fn take_bytes(&mut self) -> Result<&'de [u8], Refusal> {
        <&[u8]>::borrow_decode(&mut DecoderImpl::new(self, FORMAT, ())).map_err(not_read)
    }

    #[inline]
    fn left(&self) -> usize {
        self.rest.len()
    }
}

#[cold]
#[inline(never)]
fn not_written(error: EncodeError) -> Refusal {
    match error {
        EncodeError::Io { inner, .. } => Refusal::io(inner),
        other => Refusal::text(other),
    }
}

#[cold]
#[inline(never)]
fn too_few(more: usize) -> Refusal {
    Refusal::text(format_args!(
        "the bytes end too early, {more} more are needed"
    ))
}

#[cold]
#[inline(never)]
fn not_read(error: DecodeError) -> Refusal {
    match error {
        DecodeError::UnexpectedEnd { additional } => too_few(additional),
        DecodeError::Utf8 { inner } => {
            Refusal::text(format_args!("a string is not UTF-8: {inner}"))
        }
        DecodeError::InvalidBooleanValue(byte) => Refusal::text(format_args!("{byte} is no bool")),
        DecodeError::InvalidCharEncoding(_) => Refusal::text("a char is not UTF-8"),
        other => Refusal::text(other),
    }
}

/// Why a value could not be encoded or decoded.
// Boxed, so that a result is one or two registers where nothing fails.
#[derive(Debug)]
pub(crate) struct CodecError(Box<Failed>);

#[derive(Debug)]
struct Failed {
    action: &'static str,
    type_name: &'static str,
    cause: Cause,
}

impl CodecError {
    #[cold]
    fn new<T: ?Sized>(action: &'static str, refusal: Refusal) -> Self {
        Self(Box::new(Failed {
            action,
            type_name: type_name::<T>(),
            cause: refusal.into_cause(),
        }))
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed {
            action,
            type_name,
            cause,
        } = &*self.0;
        match cause {
            // The cause itself is in `source`.
            Cause::Io(_) => write!(f, "cannot write a value of type `{type_name}`"),
            Cause::Text(text) => write!(f, "cannot {action} a value of type `{type_name}`: {text}"),
        }
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Cause::Io(error) => Some(error),
            Cause::Text(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
    use std::fmt::Debug;
    use std::marker::PhantomData;
    use std::net::{IpAddr, SocketAddr};
    use std::num::{NonZeroU32, Wrapping};
    use std::ops::{Bound, Range, RangeInclusive};
    use std::path::PathBuf;
    use std::time::{Duration, Instant, SystemTime};

    use serde::de::{Deserializer, SeqAccess, Visitor};
    use serde::ser::{SerializeSeq, SerializeStruct, Serializer};
    use serde::{Deserialize, Serialize};

    use super::super::strict::MAX_DEPTH;
    use super::*;

    fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        bytes
    }

    fn decoded<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, CodecError> {
        let value = decode(&mut bytes)?;
        assert_eq!(bytes.len(), 0, "all bytes belong to the value");
        Ok(value)
    }

    #[track_caller]
    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        assert_eq!(decoded::<T>(&encoded(&value)).unwrap(), value);
    }

    #[track_caller]
    fn refused_by_encode<T: Serialize + ?Sized>(value: &T, because: &str) {
        let error = encode(value, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(because), "{error}");
        assert!(error.contains(type_name::<T>()), "{error}");
    }

    #[track_caller]
    fn refused_by_decode<T: DeserializeOwned>(mut bytes: &[u8], because: &str) {
        let all = bytes;
        let error = match decode::<T>(&mut bytes) {
            Ok(_) => panic!("decoded"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(because), "{error}");
        assert!(error.contains(type_name::<T>()), "{error}");
        assert_eq!(bytes, all, "after an error nothing is consumed");
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Default)]
    struct Point {
        x: i32,
        y: i32,
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    struct Pair(String, u8);

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    struct Newtype(Vec<u16>);

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    struct Unit;

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    enum Shape {
        Nothing,
        Circle(f64),
        Line(Point, Point),
        Text { at: Point, text: String },
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
    enum Tree {
        Leaf,
        Node(Box<Tree>, Vec<Tree>),
        Named {
            name: Option<String>,
            next: Option<Box<Tree>>,
        },
    }

    #[test]
    fn numbers_are_written_as_bincode_writes_them() {
        macro_rules! alike {
            ($($value:expr),*) => {$(
                let bytes = bincode::encode_to_vec($value, FORMAT).unwrap();
                assert_eq!(encoded(&$value), bytes);
                comes_back($value);
            )*};
        }
        alike!(1u8, 0x102u16, u32::MAX - 1, 1u64 << 60, u128::MAX - 5);
        alike!(
            -1i8,
            -2i16,
            i32::MIN + 1,
            -3i64,
            i128::MIN + 7,
            1.5f32,
            -2.5e300f64
        );
    }

    #[test]
    fn bytes_are_written_as_their_number_and_themselves() {
        #[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Copy)]
        #[serde(transparent)]
        struct Byte(u8);

        for length in [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000] {
            let value: Vec<u8> = (0..length).map(|n: u32| n.to_le_bytes()[0]).collect();
            let mut expected = u64::from(length).to_le_bytes().to_vec();
            expected.extend(&value);
            assert_eq!(encoded(&value), expected);
            let wrapped: Vec<Byte> = value.iter().copied().map(Byte).collect();
            assert_eq!(encoded(&wrapped), expected);
            comes_back(wrapped);
            comes_back(VecDeque::from(value.clone()));
            comes_back((vec![value.clone(), value.clone()], value, 7_u8));
        }
    }

    #[test]
    fn a_sequence_of_bytes_is_that_to_its_end() {
        struct Collected(&'static [Either], bool);
        enum Either {
            Byte(u8),
            Number(u32),
        }
        use Either::{Byte, Number};

        impl Serialize for Either {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    Byte(value) => serializer.serialize_u8(*value),
                    Number(value) => serializer.serialize_u32(*value),
                }
            }
        }

        impl Serialize for Collected {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if self.1 {
                    return serializer.collect_seq(self.0);
                }
                serializer.collect_seq(Lying(self.0.iter()))
            }
        }

        struct Lying(std::slice::Iter<'static, Either>);
        impl Iterator for Lying {
            type Item = &'static Either;

            fn next(&mut self) -> Option<&'static Either> {
                self.0.next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                (2, Some(2))
            }
        }

        refused_by_encode(&Collected(&[Byte(1), Number(2)], true), "in different ways");
        refused_by_encode(&Collected(&[], false), "2 elements");
        refused_by_encode(&Collected(&[Byte(1)], false), "2 elements");
        refused_by_encode(
            &Collected(&[Byte(1), Byte(2), Byte(3)], false),
            "2 elements",
        );
        refused_by_encode(
            &Collected(&[Number(1), Number(2), Number(3)], false),
            "2 elements",
        );
        let fine = encoded(&Collected(&[Byte(1), Byte(2)], false));
        assert_eq!(decoded::<Vec<u8>>(&fine).unwrap(), [1, 2]);
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        comes_back((true, -1i8, -2i16, -3i32, -4i64, i128::MIN));
        comes_back((1u8, 2u16, 3u32, 4u64, u128::MAX, 5usize, 6isize));
        comes_back((1.5f32, -2.5f64, 'x', 'é', '🦀', ()));
        comes_back(String::from("grüße"));
        comes_back((Some(1u8), None::<u8>, Some(Some(())), Some(None::<()>)));
        comes_back([Some(Unit), None]);
        comes_back(Point { x: 1, y: -1 });
        comes_back(Pair("two".into(), 2));
        comes_back(Newtype(vec![1, 2, 3]));
        comes_back(vec![
            Shape::Nothing,
            Shape::Circle(1.0),
            Shape::Line(Point::default(), Point { x: 1, y: 2 }),
            Shape::Text {
                at: Point::default(),
                text: "hi".into(),
            },
        ]);
        comes_back(Tree::Node(
            Box::new(Tree::Leaf),
            vec![Tree::Named {
                name: Some("n".into()),
                next: Some(Box::new(Tree::Leaf)),
            }],
        ));
        comes_back([[1u8; 3]; 4]);
        comes_back([(); 3]);
        comes_back((vec![(); 1000], vec![Unit; 1000]));
    }

    #[test]
    fn every_type_of_std_comes_back() {
        comes_back(BTreeMap::from([(1, "one".to_string()), (2, "two".into())]));
        comes_back(HashMap::from(
            [(Pair("k".into(), 1), vec![1.0])].map(|(k, v)| (k.0, v)),
        ));
        comes_back(BTreeMap::from([((), ())]));
        comes_back((BTreeSet::from([1, 2]), HashSet::from(['a', 'b'])));
        comes_back((VecDeque::from([1, 2]), LinkedList::from([3])));
        comes_back((Box::new(1), Cow::<str>::Owned("c".into())));
        comes_back((Duration::new(1, 2), SystemTime::now()));
        comes_back((1..2, 3..=4));
        comes_back::<(Range<u8>, RangeInclusive<char>)>((1..2, 'a'..='z'));
        comes_back((Bound::Included(1), Bound::<u8>::Unbounded));
        comes_back((NonZeroU32::MIN, Wrapping(3u8), std::cmp::Reverse(1)));
        comes_back("127.0.0.1".parse::<IpAddr>().unwrap());
        comes_back("[::1]:80".parse::<SocketAddr>().unwrap());
        comes_back((PathBuf::from("/tmp"), std::ffi::OsString::from("os")));
        comes_back(std::ffi::CString::new("c").unwrap());
        comes_back((Ok::<u8, String>(1), Err::<u8, String>("no".into())));
        comes_back(PhantomData::<u8>);
        comes_back::<(Box<str>, Box<[u8]>)>(("s".into(), [1, 2].into()));
    }

    #[test]
    fn values_follow_one_another() {
        let mut bytes = Vec::new();
        encode("first", &mut bytes).unwrap();
        encode(&[1u8, 2][..], &mut bytes).unwrap();
        let mut rest = &bytes[..];
        assert_eq!(decode::<String>(&mut rest).unwrap(), "first");
        assert_eq!(decode::<Vec<u8>>(&mut rest).unwrap(), [1, 2]);
        assert_eq!(rest, [0u8; 0]);
        decode::<u8>(&mut rest).unwrap_err();
    }

    #[test]
    fn the_format_is_compact() {
        assert_eq!(encoded(&1u64).len(), 8);
        assert_eq!(encoded(&(1u8, 'a', true)).len(), 3);
        assert_eq!(encoded("abc").len(), 8 + 3);
        assert_eq!(encoded(&Point::default()).len(), 2 + 8);
        assert_eq!(encoded(&Shape::Nothing).len(), 4);
    }

    /// Bytes as `serde_bytes` would write and read them.
    #[derive(PartialEq, Debug)]
    struct Bytes(Vec<u8>);

    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(!serializer.is_human_readable());
            serializer.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct BytesVisitor;
            impl Visitor<'_> for BytesVisitor {
                type Value = Bytes;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
            }
            assert!(!deserializer.is_human_readable());
            deserializer.deserialize_byte_buf(BytesVisitor)
        }
    }

    #[test]
    fn byte_buffers_come_back() {
        comes_back(Bytes(vec![7; 100_000]));
        comes_back(vec![Bytes(vec![]), Bytes(vec![1])]);
    }

    /// A length of 2^40, and then `rest`.
    fn claim_of_a_terabyte(rest: &[u8]) -> Vec<u8> {
        [&(1u64 << 40).to_le_bytes(), rest].concat()
    }

    #[test]
    fn claimed_lengths_reserve_nothing() {
        for bytes in [claim_of_a_terabyte(b"x"), vec![0xff; 9]] {
            refused_by_decode::<String>(&bytes, "");
            refused_by_decode::<Bytes>(&bytes, "");
            refused_by_decode::<Box<str>>(&bytes, "");
            refused_by_decode::<PathBuf>(&bytes, "");
            refused_by_decode::<std::ffi::CString>(&bytes, "");
            refused_by_decode::<Vec<u8>>(&bytes, "elements are claimed by a message with");
            refused_by_decode::<HashMap<u8, u8>>(&bytes, "elements are claimed by a message with");
            refused_by_decode::<VecDeque<String>>(&bytes, "elements are claimed by a message with");
        }
    }

    /// A visitor that trusts hints, as some crates' do.
    struct Trusting;

    impl<'de> Deserialize<'de> for Trusting {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct TrustingVisitor;
            impl<'de> Visitor<'de> for TrustingVisitor {
                type Value = Trusting;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a sequence")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<Trusting, A::Error> {
                    assert!(access.size_hint().unwrap() <= 8);
                    Ok(Trusting)
                }
            }
            deserializer.deserialize_seq(TrustingVisitor)
        }
    }

    #[test]
    fn hints_are_no_larger_than_the_bytes() {
        let mut bytes = 1000u64.to_le_bytes().to_vec();
        bytes.extend([0; 8]);
        refused_by_decode::<Trusting>(&bytes, "left elements unread");
    }

    #[test]
    fn elements_without_bytes_are_bounded() {
        let start = Instant::now();
        let many = (1u64 << 36).to_le_bytes();
        refused_by_decode::<Vec<()>>(
            &many,
            "68719476736 elements are claimed by a message with 0 bytes left",
        );
        refused_by_decode::<HashMap<(), ()>>(&many, "68719476736 elements");
        refused_by_encode(&vec![(); 1 << 36], "elements that take no bytes");
        refused_by_encode(&vec![Box::new(()); (1 << 20) + 1], "no bytes");
        // Each alone would pass.
        let nested = vec![vec![(); 1 << 19]; 3];
        refused_by_encode(&nested, "no bytes");
        let mut bytes = 1000u64.to_le_bytes().to_vec();
        for _ in 0..1000 {
            bytes.extend((1u64 << 19).to_le_bytes());
        }
        refused_by_decode::<Vec<Vec<()>>>(&bytes, "elements are claimed by a message with");
        assert!(start.elapsed() < Duration::from_secs(10));

        comes_back(vec![(); 1 << 20]);
        comes_back(vec![[(); 3]; 1 << 20]);
        comes_back(vec![Vec::<()>::new(); (1 << 20) + 5]);
        comes_back(vec![None::<u8>; (1 << 20) + 5]);
        comes_back(vec![vec![vec![(); 5]; 5]; 5]);
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Chain(Option<Box<Chain>>);

    fn chain(links: u32) -> Chain {
        let mut chain = Chain(None);
        for _ in 1..links {
            chain = Chain(Some(Box::new(chain)));
        }
        chain
    }

    /// Each link of the kinds below is of another shape, and each adds one level.
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Nest {
        End,
        Newtype(Box<Nest>),
        Tuple(u8, Box<Nest>),
        Struct { before: u64, inner: Box<Nest> },
    }

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Rows(Vec<Rows>);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Maps {
        inner: BTreeMap<u8, Maps>,
    }

    fn nest(levels: u32) -> Nest {
        let mut nest = Nest::End;
        for level in 0..levels {
            let inner = Box::new(nest);
            nest = match level % 3 {
                0 => Nest::Newtype(inner),
                1 => Nest::Tuple(0, inner),
                _ => Nest::Struct { before: 0, inner },
            };
        }
        nest
    }

    #[test]
    fn nesting_is_bounded_on_both_sides() {
        comes_back(nest(MAX_DEPTH));
        refused_by_encode(&nest(MAX_DEPTH + 1), "nested deeper");
        // A link is a newtype and an option.
        comes_back(chain(MAX_DEPTH / 2));
        refused_by_encode(&chain(MAX_DEPTH / 2 + 1), "nested deeper");
        refused_by_encode(&chain(2000), "nested deeper");

        refused_by_decode::<Chain>(&vec![1; 10_000_000], "nested deeper");
        refused_by_decode::<Nest>(&[1, 0, 0, 0].repeat(10_000_000 / 4), "nested deeper");
        refused_by_decode::<Rows>(&1u64.to_le_bytes().repeat(10_000_000 / 8), "nested deeper");
        let map = [&[1, 0][..], &1u64.to_le_bytes(), &[0]].concat();
        refused_by_decode::<Maps>(&map.repeat(1_000_000), "nested deeper");
    }

    #[test]
    fn the_deepest_value_fits_half_of_a_small_stack() {
        let fits = |test: fn()| {
            std::thread::Builder::new()
                .stack_size(1 << 20)
                .spawn(test)
                .unwrap()
                .join()
                .unwrap();
        };
        fits(|| comes_back(nest(MAX_DEPTH)));
        fits(|| comes_back(chain(MAX_DEPTH / 2)));
        fits(|| {
            let mut rows = Rows(vec![]);
            for _ in 1..MAX_DEPTH / 2 {
                rows = Rows(vec![rows]);
            }
            comes_back(rows);
        });
        fits(|| {
            let mut maps = Maps {
                inner: BTreeMap::new(),
            };
            for _ in 1..MAX_DEPTH / 2 {
                maps = Maps {
                    inner: BTreeMap::from([(0, maps)]),
                };
            }
            comes_back(maps);
        });
    }

    #[derive(Serialize, Deserialize, Debug)]
    struct Flat {
        #[serde(flatten)]
        point: Point,
    }

    #[derive(Serialize, Deserialize, Debug)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
        Text(String),
    }

    #[derive(Serialize, Deserialize, Debug)]
    #[serde(tag = "kind")]
    enum InternallyTagged {
        Point(Point),
        Named { name: String },
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    #[serde(tag = "kind", content = "content")]
    enum AdjacentlyTagged {
        Nothing,
        Number(u8),
        Two(u8, String),
        Point { x: i32 },
    }

    #[test]
    fn what_the_format_cannot_carry_says_what_to_write_instead() {
        let instead = "use an enum with serde's default representation";
        let flat = Flat {
            point: Point::default(),
        };
        refused_by_encode(&flat, "make the flattened struct an ordinary field");
        refused_by_decode::<Flat>(&1u64.to_le_bytes().repeat(3), "");
        refused_by_decode::<Untagged>(&encoded(&Untagged::Number(1)), instead);
        refused_by_decode::<Untagged>(&encoded(&Untagged::Text("t".into())), instead);
        let point = InternallyTagged::Point(Point::default());
        refused_by_decode::<InternallyTagged>(&encoded(&point), instead);
        let named = InternallyTagged::Named { name: "n".into() };
        refused_by_decode::<InternallyTagged>(&encoded(&named), instead);
        for adjacently in [
            AdjacentlyTagged::Nothing,
            AdjacentlyTagged::Number(1),
            AdjacentlyTagged::Two(1, "2".into()),
            AdjacentlyTagged::Point { x: 1 },
        ] {
            refused_by_decode::<AdjacentlyTagged>(&encoded(&adjacently), instead);
        }
        let json = serde_json::json!({"a": [1, "b"]});
        refused_by_decode::<serde_json::Value>(&encoded(&json), instead);
        refused_by_decode::<serde::de::IgnoredAny>(&[0], instead);
        refused_by_encode(&UnknownLength, "collect it into a `Vec`");
    }

    struct UnknownLength;

    impl Serialize for UnknownLength {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_seq(None)?.end()
        }
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Skipping {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        first: Option<u8>,
        second: u8,
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct SkippingTuple(
        u8,
        #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>,
    );

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    enum SkippingVariant {
        Struct {
            first: u8,
            #[serde(skip_serializing_if = "Option::is_none", default)]
            second: Option<u8>,
        },
        Tuple(
            u8,
            #[serde(skip_serializing_if = "Option::is_none", default)] Option<u8>,
        ),
    }

    #[test]
    fn fields_skipped_by_condition_are_an_error_when_skipped() {
        comes_back(Skipping {
            first: Some(1),
            second: 2,
        });
        let skipping = Skipping {
            first: None,
            second: 2,
        };
        refused_by_encode(&skipping, "field `first` of `Skipping`");
        refused_by_encode(
            &vec![skipping],
            "remove `#[serde(skip_serializing_if = …)]`",
        );

        comes_back(SkippingVariant::Struct {
            first: 1,
            second: Some(2),
        });
        let skipping = SkippingVariant::Struct {
            first: 1,
            second: None,
        };
        refused_by_encode(&skipping, "field `second` of `Struct`");

        // serde does not tell the format about these; the reader finds out.
        comes_back(SkippingTuple(1, Some(2)));
        let mut bytes = encoded(&SkippingTuple(1, None));
        bytes.push(0);
        refused_by_decode::<SkippingTuple>(
            &bytes,
            "`SkippingTuple` was written with 1 fields and is read with more",
        );
        comes_back(SkippingVariant::Tuple(1, Some(2)));
        let mut bytes = encoded(&SkippingVariant::Tuple(1, None));
        bytes.push(0);
        refused_by_decode::<SkippingVariant>(
            &bytes,
            "`SkippingVariant` was written with 1 fields and is read with more",
        );
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Attributes {
        #[serde(alias = "name", alias = "title")]
        renamed: u8,
        #[serde(skip)]
        skipped: u8,
        #[serde(rename = "other", default)]
        defaulted: u16,
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq, Default)]
    #[serde(default)]
    struct WriteOnly {
        #[serde(skip_deserializing)]
        first: u8,
        second: u8,
    }

    #[derive(Serialize, Deserialize, Debug, PartialEq, Default)]
    #[serde(default)]
    struct ReadOnly {
        #[serde(skip_serializing)]
        first: u8,
        second: u8,
    }

    #[test]
    fn attributes_that_keep_both_sides_alike_are_fine() {
        comes_back(Attributes {
            renamed: 1,
            skipped: 0,
            defaulted: 2,
        });
    }

    #[test]
    fn attributes_that_make_the_sides_differ_are_an_error() {
        let bytes = encoded(&WriteOnly::default());
        refused_by_decode::<WriteOnly>(&bytes, "2 fields and is read with fewer");
        let mut bytes = encoded(&ReadOnly::default());
        refused_by_decode::<ReadOnly>(&bytes, "1 fields and is read with more");
        bytes.extend([0; 10]);
        refused_by_decode::<ReadOnly>(&bytes, "1 fields and is read with more");
    }

    #[test]
    fn other_counts_of_fields_are_an_error() {
        #[derive(Deserialize, Debug)]
        #[expect(dead_code, reason = "never decoded")]
        struct Line {
            x: i32,
        }
        refused_by_decode::<Line>(
            &encoded(&Point::default()),
            "`Line` was written with 2 fields",
        );
        refused_by_decode::<(i32, Pair)>(&encoded(&(1, Point::default())), "");
        refused_by_decode::<Point>(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0], "written with 9 fields");
        refused_by_decode::<Point>(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "written with 0 fields");
    }

    /// Announces three and writes as many as it holds.
    struct Announcing(u8);

    impl Serialize for Announcing {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut elements = serializer.serialize_seq(Some(3))?;
            for element in 0..self.0 {
                elements.serialize_element(&element)?;
            }
            elements.end()
        }
    }

    struct AnnouncingStruct;

    impl Serialize for AnnouncingStruct {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("AnnouncingStruct", 2)?;
            fields.serialize_field("only", &1u8)?;
            fields.end()
        }
    }

    #[test]
    fn announced_lengths_are_kept() {
        refused_by_encode(&Announcing(2), "announced 3 elements and wrote fewer");
        refused_by_encode(&Announcing(4), "announced 3 elements and wrote more");
        refused_by_encode(&AnnouncingStruct, "announced 2 elements and wrote fewer");
        assert_eq!(
            decoded::<Vec<u8>>(&encoded(&Announcing(3))).unwrap(),
            [0, 1, 2]
        );
    }

    #[test]
    fn encoding_inside_of_encoding_is_independent() {
        struct Envelope(Nest);
        impl Serialize for Envelope {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&encoded(&self.0))
            }
        }
        let mut bytes = Vec::new();
        encode(&[Some(Envelope(nest(MAX_DEPTH)))], &mut bytes).unwrap();
        let inner = decoded::<[Option<Bytes>; 1]>(&bytes).unwrap();
        let inner = inner[0].as_ref().unwrap();
        assert_eq!(decoded::<Nest>(&inner.0).unwrap(), nest(MAX_DEPTH));
    }

    #[test]
    fn errors_of_the_writer_stay_reachable() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = encode(&1u8, &mut Full).unwrap_err();
        assert_eq!(error.to_string(), "cannot write a value of type `u8`");
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn errors_name_the_trouble() {
        refused_by_decode::<bool>(&[2], "2 is no bool");
        refused_by_decode::<char>(&[0xff, 0, 0, 0], "a char is not UTF-8");
        refused_by_decode::<Option<u8>>(&[3, 0], "3 is no variant of `Option");
        refused_by_decode::<Shape>(&[9, 0, 0, 0], "9");
        refused_by_decode::<u32>(&[1], "the bytes end too early, 3 more are needed");
        let not_utf8 = [&1u64.to_le_bytes()[..], &[0xff]].concat();
        refused_by_decode::<String>(&not_utf8, "a string is not UTF-8");
        refused_by_decode::<NonZeroU32>(&[0; 4], "nonzero");
    }

    /// Sebastiano Vigna's splitmix64: as good as any here, and the same in every run.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        }

        fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }
    }

    /// Changes, cuts and extends good encodings, and makes up bad ones. Each is decoded as a `T`: a value or an error.
    fn survives_anything<T: Serialize + DeserializeOwned>(value: &T, random: &mut Random) {
        const ROUNDS: usize = if cfg!(miri) { 10 } else { 3000 };
        const TELLING: [u8; 6] = [0, 1, 2, 0x7f, 0x80, 0xff];
        let good = encoded(value);
        let try_to_decode = |bytes: &[u8]| {
            let mut rest = bytes;
            let result = decode::<T>(&mut rest);
            assert!(bytes.ends_with(rest));
            // What can be read can be written, or is refused for what only the reader is lenient about.
            if let Ok(value) = result {
                let _ = encode(&value, &mut Vec::new());
            }
        };
        for cut in 0..good.len().min(200) {
            try_to_decode(&good[..cut]);
        }
        for _ in 0..ROUNDS {
            let mut bytes = good.clone();
            for _ in 0..=random.below(4) {
                if bytes.is_empty() {
                    break;
                }
                let at = random.below(bytes.len());
                match random.below(5) {
                    0 => bytes[at] = random.next() as u8,
                    1 => bytes[at] = TELLING[random.below(TELLING.len())],
                    2 => bytes[at] ^= 1 << random.below(8),
                    3 => bytes.truncate(at),
                    _ => bytes.insert(at, random.next() as u8),
                }
            }
            try_to_decode(&bytes);

            let noise = (0..random.below(64)).map(|_| match random.below(3) {
                0 => random.next() as u8,
                _ => TELLING[random.below(TELLING.len())],
            });
            try_to_decode(&noise.collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_bytes_panic_abort_or_hang() {
        let mut random = Random(2026);
        let random = &mut random;
        survives_anything(&vec![String::from("a"), "bcd".into()], random);
        survives_anything(&(1u8, 'ß', true, 1.5f64, i128::MAX), random);
        survives_anything(&Bytes(vec![1, 2, 3]), random);
        survives_anything(&vec![vec![(); 10]; 10], random);
        survives_anything(&vec![vec![vec![0u8; 3]; 3]; 3], random);
        survives_anything(&HashMap::from([(1u16, Some("one".to_string()))]), random);
        survives_anything(&nest(10), random);
        survives_anything(&chain(10), random);
        survives_anything(
            &Tree::Node(
                Box::new(Tree::Leaf),
                vec![
                    Tree::Named {
                        name: Some("n".into()),
                        next: None,
                    },
                    Tree::Leaf,
                ],
            ),
            random,
        );
        survives_anything(
            &vec![
                Shape::Nothing,
                Shape::Text {
                    at: Point { x: 1, y: 2 },
                    text: "t".into(),
                },
            ],
            random,
        );
        survives_anything(&Some(AdjacentlyTagged::Two(1, "2".into())), random);
        survives_anything(&Untagged::Text("t".into()), random);
        survives_anything(
            &(
                PathBuf::from("/tmp"),
                Duration::from_secs(1),
                SystemTime::now(),
            ),
            random,
        );
    }
}
