//! A serde serializer and deserializer that trust neither the bytes nor the types.
//!
//! A format without field names and type tags is fast because both sides are assumed to agree: the sender's `Serialize`
//! writes what the receiver's `Deserialize` will ask for, and the bytes claim no more than they hold. Between processes
//! neither is sure. This file decides how values are laid out and checks all of it on the way; how a number, a string or
//! a run of bytes is written is left to a [`Sink`] and a [`Source`], which `codec` builds from the format's own code.
//!
//! | what can go wrong | what happens here |
//! |-------------------|-------------------|
//! | a length in the bytes reserves memory before the bytes are there | strings and byte buffers are borrowed from the bytes and then copied; hints are no larger than the bytes that are left |
//! | elements that take no bytes, `Vec<()>`, are claimed by the billion | [`MAX_EMPTY_ELEMENTS`], on both sides |
//! | nesting overflows the stack | [`MAX_DEPTH`], on both sides |
//! | a field left out on one side (`skip_serializing_if`, `default`) shifts all that follows | structs and variants carry the number of their fields; a skipped named field is an error when it is written |
//! | a sequence is announced with another length than it has, or read in part | counted, an error on the side that is wrong |
//! | serde attributes ask for a self-describing format | an error that says what to write instead |
//!
//! # Layout
//!
//! | value | is |
//! |-------|----|
//! | number, `char`, string, bytes | whatever the sink makes of it |
//! | `()`, unit struct | nothing |
//! | `None`, `Some(value)` | `u8` 0; `u8` 1 and the value |
//! | newtype struct | its value |
//! | tuple, array | the elements |
//! | sequence, map | `u64` length, and the elements; key, value, key, value |
//! | struct, tuple struct | `u16` number of fields, and the fields |
//! | variant | `u32` index, and what a unit, newtype, tuple struct or struct would be |
//!
//! A value that is written with one of these shapes must be read with the same. serde's derives keep to that; an
//! implementation by hand that writes a struct and reads a tuple does not, and gets an error or another value.

use std::fmt;
use std::io;

use serde::de::value::U32Deserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible, Serialize, Serializer};

/// How deep a value may nest. Sequences, maps, tuples, structs, variants with fields, `Some` and newtypes each count one.
///
/// Measured in a debug build, a level takes 0.6 to 2 KiB of stack to read (5 KiB where each holds half a KiB in fields)
/// and a third of that to write, so this many leave more than half of the 2 MiB that a Rust thread has. A release build
/// takes a fifth.
pub(super) const MAX_DEPTH: u32 = 256;

/// How many elements that take no bytes (`()` and the like) a message may hold. That many are read in a moment, and nobody
/// sends more of them on purpose.
const MAX_EMPTY_ELEMENTS: usize = 1 << 20;

/// Where the parts of a value that have no parts themselves are written.
pub(super) trait Sink {
    fn put_bool(&mut self, value: bool) -> Result<(), Refusal>;
    fn put_i8(&mut self, value: i8) -> Result<(), Refusal>;
    fn put_i16(&mut self, value: i16) -> Result<(), Refusal>;
    fn put_i32(&mut self, value: i32) -> Result<(), Refusal>;
    fn put_i64(&mut self, value: i64) -> Result<(), Refusal>;
    fn put_i128(&mut self, value: i128) -> Result<(), Refusal>;
    fn put_u8(&mut self, value: u8) -> Result<(), Refusal>;
    fn put_u16(&mut self, value: u16) -> Result<(), Refusal>;
    fn put_u32(&mut self, value: u32) -> Result<(), Refusal>;
    fn put_u64(&mut self, value: u64) -> Result<(), Refusal>;
    fn put_u128(&mut self, value: u128) -> Result<(), Refusal>;
    fn put_f32(&mut self, value: f32) -> Result<(), Refusal>;
    fn put_f64(&mut self, value: f64) -> Result<(), Refusal>;
    fn put_char(&mut self, value: char) -> Result<(), Refusal>;
    fn put_str(&mut self, value: &str) -> Result<(), Refusal>;
    fn put_bytes(&mut self, value: &[u8]) -> Result<(), Refusal>;
    /// As many numbers of one byte each, without their count.
    fn put_run(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
    /// How many bytes were written so far.
    fn written(&self) -> usize;
}

/// Where they are read again.
pub(super) trait Source<'de>: Copy {
    fn take_bool(&mut self) -> Result<bool, Refusal>;
    fn take_i8(&mut self) -> Result<i8, Refusal>;
    fn take_i16(&mut self) -> Result<i16, Refusal>;
    fn take_i32(&mut self) -> Result<i32, Refusal>;
    fn take_i64(&mut self) -> Result<i64, Refusal>;
    fn take_i128(&mut self) -> Result<i128, Refusal>;
    fn take_u8(&mut self) -> Result<u8, Refusal>;
    fn take_u16(&mut self) -> Result<u16, Refusal>;
    fn take_u32(&mut self) -> Result<u32, Refusal>;
    fn take_u64(&mut self) -> Result<u64, Refusal>;
    fn take_u128(&mut self) -> Result<u128, Refusal>;
    fn take_f32(&mut self) -> Result<f32, Refusal>;
    fn take_f64(&mut self) -> Result<f64, Refusal>;
    fn take_char(&mut self) -> Result<char, Refusal>;
    fn take_str(&mut self) -> Result<&'de str, Refusal>;
    fn take_bytes(&mut self) -> Result<&'de [u8], Refusal>;
    /// How many bytes are left.
    fn left(&self) -> usize;
}

/// Writes `value` to `sink`.
#[inline(always)]
pub(super) fn write<T, S>(value: &T, sink: S) -> Result<(), Refusal>
where
    T: Serialize + ?Sized,
    S: Sink,
{
    let mut output = Output {
        sink,
        empty_elements: 0,
    };
    value.serialize(Writing {
        output: &mut output,
        levels_left: MAX_DEPTH,
    })
}

/// Reads a value from `source`, and returns it with how many bytes are left.
#[inline(always)]
pub(super) fn read<'de, T, S>(source: S) -> Result<(T, usize), Refusal>
where
    T: Deserialize<'de>,
    S: Source<'de>,
{
    let bytes = source.left();
    let mut input = Input {
        source,
        elements_left: bytes.saturating_add(MAX_EMPTY_ELEMENTS),
    };
    let value = T::deserialize(Reading {
        input: &mut input,
        levels_left: MAX_DEPTH,
    })?;
    Ok((value, input.source.left()))
}

/// Why a value was not written or read.
// Boxed, so that the results on the way are one or two registers.
#[derive(Debug)]
pub(super) struct Refusal(Box<Cause>);

#[derive(Debug)]
pub(super) enum Cause {
    /// The writer failed.
    Io(io::Error),
    /// The value cannot be carried, or the bytes are none of it.
    Text(Box<str>),
}

// All constructors are cold and out of line, so that what surrounds them stays small enough to be inlined.
impl Refusal {
    #[cold]
    #[inline(never)]
    pub(super) fn text(reason: impl fmt::Display) -> Self {
        Self(Box::new(Cause::Text(reason.to_string().into())))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn io(error: io::Error) -> Self {
        Self(Box::new(Cause::Io(error)))
    }

    pub(super) fn into_cause(self) -> Cause {
        *self.0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Cause::Io(error) => fmt::Display::fmt(error, f),
            Cause::Text(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Refusal {}

impl ser::Error for Refusal {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::text(reason)
    }
}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::text(reason)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The reasons

#[cold]
#[inline(never)]
fn too_deep() -> Refusal {
    Refusal::text(format_args!(
        "nested deeper than {MAX_DEPTH} levels: send a flat form of it, such as a `Vec` of nodes with indices"
    ))
}

#[cold]
#[inline(never)]
fn too_many_empty_elements() -> Refusal {
    Refusal::text(format_args!(
        "more than {MAX_EMPTY_ELEMENTS} elements that take no bytes: send their number"
    ))
}

#[cold]
#[inline(never)]
fn too_many_elements(claimed: u64, left: usize) -> Refusal {
    Refusal::text(format_args!(
        "{claimed} elements are claimed by a message with {left} bytes left"
    ))
}

#[cold]
#[inline(never)]
fn wrong_length(announced: usize, left: usize) -> Refusal {
    let than = if left == 0 { "more" } else { "fewer" };
    Refusal::text(format_args!(
        "`Serialize` announced {announced} elements and wrote {than}"
    ))
}

#[cold]
#[inline(never)]
fn skipped_field(of: &'static str, field: &'static str) -> Refusal {
    Refusal::text(format_args!(
        "field `{field}` of `{of}` was skipped, and its reader would take what follows for it: remove \
         `#[serde(skip_serializing_if = …)]` from the field"
    ))
}

#[cold]
#[inline(never)]
fn too_many_fields(of: &'static str) -> Refusal {
    Refusal::text(format_args!("`{of}` has more than {} fields", u16::MAX))
}

#[cold]
#[inline(never)]
fn fields_differ(of: &'static str, written: u16, left: u16) -> Refusal {
    let than = if left == 0 { "more" } else { "fewer" };
    Refusal::text(format_args!(
        "`{of}` was written with {written} fields and is read with {than}: remove serde attributes that leave a field \
         out on one side only (`skip_serializing_if`, `skip_serializing`, `skip_deserializing`); `#[serde(skip)]` is \
         fine"
    ))
}

const SEQUENCE_OF_UNKNOWN_LENGTH: &str =
    "a sequence must know its length before its first element: collect it into a `Vec` first";

const MAP_OF_UNKNOWN_LENGTH: &str = "a map must know its length before its first entry (`#[serde(flatten)]` makes a \
     struct a map that does not): make the flattened struct an ordinary field";

const UNREAD_ELEMENTS: &str = "`Deserialize` left elements unread";

const NOT_SELF_DESCRIBING: &str = "this type needs a self-describing format (`#[serde(untagged)]`, \
     `#[serde(tag = …)]`, `serde_json::Value`): use an enum with serde's default representation, or send it as a string";

const ELEMENTS_DIFFER: &str =
    "the elements of a sequence are written in different ways, which nobody could read";

const NAMES_ARE_NOT_SENT: &str = "this type reads names of fields, which are not sent (`#[serde(flatten)]`, \
     `#[serde(tag = …, content = …)]`): make a flattened struct an ordinary field, use an enum with serde's default \
     representation, or send it as a string";

/// One level further down.
#[inline]
fn inside(levels_left: u32) -> Result<u32, Refusal> {
    levels_left.checked_sub(1).ok_or_else(too_deep)
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

struct Output<S> {
    sink: S,
    empty_elements: usize,
}

/// The serializer of one value.
///
/// The depth goes by value, so that no way out of a value, an error included, has to restore it.
struct Writing<'o, S> {
    output: &'o mut Output<S>,
    levels_left: u32,
}

impl<'o, S: Sink> Writing<'o, S> {
    #[inline]
    fn inside(self) -> Result<Self, Refusal> {
        Ok(Self {
            levels_left: inside(self.levels_left)?,
            output: self.output,
        })
    }

    #[inline]
    fn elements(self, announced: usize) -> Result<Elements<'o, S>, Refusal> {
        Ok(Elements {
            levels_left: inside(self.levels_left)?,
            start: self.output.sink.written(),
            output: self.output,
            announced,
            left: announced,
        })
    }

    #[inline]
    fn fields(self, of: &'static str, announced: usize) -> Result<Fields<'o, S>, Refusal> {
        let levels_left = inside(self.levels_left)?;
        let announced = u16::try_from(announced).map_err(|_| too_many_fields(of))?;
        self.output.sink.put_u16(announced)?;
        Ok(Fields {
            output: self.output,
            levels_left,
            of,
            announced,
            left: announced,
        })
    }
}

macro_rules! put {
    ($($method:ident($type:ty) by $put:ident),* $(,)?) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), Refusal> {
            self.output.sink.$put(value)
        }
    )*};
}

impl<'o, S: Sink> Serializer for Writing<'o, S> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Elements<'o, S>;
    type SerializeTuple = Elements<'o, S>;
    type SerializeTupleStruct = Fields<'o, S>;
    type SerializeTupleVariant = Fields<'o, S>;
    type SerializeMap = Elements<'o, S>;
    type SerializeStruct = Fields<'o, S>;
    type SerializeStructVariant = Fields<'o, S>;

    put! {
        serialize_bool(bool) by put_bool,
        serialize_i8(i8) by put_i8,
        serialize_i16(i16) by put_i16,
        serialize_i32(i32) by put_i32,
        serialize_i64(i64) by put_i64,
        serialize_i128(i128) by put_i128,
        serialize_u8(u8) by put_u8,
        serialize_u16(u16) by put_u16,
        serialize_u32(u32) by put_u32,
        serialize_u64(u64) by put_u64,
        serialize_u128(u128) by put_u128,
        serialize_f32(f32) by put_f32,
        serialize_f64(f64) by put_f64,
        serialize_char(char) by put_char,
        serialize_str(&str) by put_str,
        serialize_bytes(&[u8]) by put_bytes,
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Refusal> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Refusal> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
    ) -> Result<(), Refusal> {
        self.output.sink.put_u32(index)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Refusal> {
        self.output.sink.put_u8(0)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refusal> {
        self.output.sink.put_u8(1)?;
        value.serialize(self.inside()?)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        value.serialize(self.inside()?)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        index: u32,
        _variant: &'static str,
        value: &T,
    ) -> Result<(), Refusal> {
        self.output.sink.put_u32(index)?;
        value.serialize(self.inside()?)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'o, S>, Refusal> {
        let len = len.ok_or_else(|| Refusal::text(SEQUENCE_OF_UNKNOWN_LENGTH))?;
        self.output.sink.put_u64(len as u64)?;
        self.elements(len)
    }

    #[inline]
    fn collect_seq<I>(self, iter: I) -> Result<(), Refusal>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut iter = iter.into_iter();
        let (least, most) = iter.size_hint();
        let mut elements = self.serialize_seq(most.filter(|most| *most == least))?;
        let Some(first) = iter.next() else {
            return elements.all_written();
        };
        elements.count(1)?;
        let mut byte = None;
        first.serialize(First {
            writing: Writing {
                output: elements.output,
                levels_left: elements.levels_left,
            },
            byte: &mut byte,
        })?;
        if let Some(byte) = byte {
            elements.write_bytes(byte, &mut iter)?;
        } else {
            elements.look_at_first()?;
            for element in iter {
                elements.count(1)?;
                elements.write(&element)?;
            }
        }
        elements.all_written()
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Elements<'o, S>, Refusal> {
        self.elements(len)
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Fields<'o, S>, Refusal> {
        self.fields(name, len)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'o, S>, Refusal> {
        self.output.sink.put_u32(index)?;
        self.fields(variant, len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'o, S>, Refusal> {
        let len = len.ok_or_else(|| Refusal::text(MAP_OF_UNKNOWN_LENGTH))?;
        self.output.sink.put_u64(len as u64)?;
        self.elements(len)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Fields<'o, S>, Refusal> {
        self.fields(name, len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Fields<'o, S>, Refusal> {
        self.output.sink.put_u32(index)?;
        self.fields(variant, len)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence or tuple, or the entries of a map, while they are written.
struct Elements<'o, S> {
    output: &'o mut Output<S>,
    levels_left: u32,
    start: usize,
    announced: usize,
    left: usize,
}

impl<S: Sink> Elements<'_, S> {
    #[inline]
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        value.serialize(Writing {
            output: self.output,
            levels_left: self.levels_left,
        })
    }

    #[inline]
    fn count(&mut self, more: usize) -> Result<(), Refusal> {
        match self.left.checked_sub(more) {
            Some(left) => self.left = left,
            None => return Err(wrong_length(self.announced, 0)),
        }
        Ok(())
    }

    #[inline]
    fn count_and_write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.count(1)?;
        self.write(value)
    }

    /// Writes elements that are bytes, as the first of them was.
    // Apart, so that nested sequences of anything do not carry the block on the stack.
    #[inline(never)]
    fn write_bytes<T: Serialize>(
        &mut self,
        first: u8,
        rest: &mut impl Iterator<Item = T>,
    ) -> Result<(), Refusal> {
        let mut block = [0; 256];
        block[0] = first;
        let mut used = 1;
        loop {
            let mut length = used;
            for (byte, element) in block[used..].iter_mut().zip(&mut *rest) {
                element.serialize(OneByte(byte))?;
                length += 1;
            }
            self.count(length - used)?;
            used = 0;
            self.output.sink.put_run(&block[..length])?;
            if length < block.len() {
                return Ok(());
            }
        }
    }

    /// Looks whether the first element of a sequence, or the first key of a map, took bytes, and takes the others to do
    /// the same. Where that is wrong (a `Serialize` by hand that writes nothing now and then), the reader refuses.
    #[inline]
    fn look_at_first(&mut self) -> Result<(), Refusal> {
        if self.left + 1 == self.announced && self.output.sink.written() == self.start {
            self.add_empty_elements()
        } else {
            Ok(())
        }
    }

    #[cold]
    fn add_empty_elements(&mut self) -> Result<(), Refusal> {
        let sum = self.output.empty_elements.saturating_add(self.announced);
        self.output.empty_elements = sum;
        if sum <= MAX_EMPTY_ELEMENTS {
            Ok(())
        } else {
            Err(too_many_empty_elements())
        }
    }

    #[inline]
    fn all_written(&self) -> Result<(), Refusal> {
        match self.left {
            0 => Ok(()),
            left => Err(wrong_length(self.announced, left)),
        }
    }
}

impl<S: Sink> ser::SerializeSeq for Elements<'_, S> {
    type Ok = ();
    type Error = Refusal;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.count_and_write(value)?;
        self.look_at_first()
    }

    #[inline]
    fn end(self) -> Result<(), Refusal> {
        self.all_written()
    }
}

impl<S: Sink> ser::SerializeMap for Elements<'_, S> {
    type Ok = ();
    type Error = Refusal;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refusal> {
        self.count_and_write(key)?;
        self.look_at_first()
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.write(value)
    }

    #[inline]
    fn end(self) -> Result<(), Refusal> {
        self.all_written()
    }
}

// A tuple's length is in the type and no bytes can claim it: empty elements do no harm.
impl<S: Sink> ser::SerializeTuple for Elements<'_, S> {
    type Ok = ();
    type Error = Refusal;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        self.count_and_write(value)
    }

    #[inline]
    fn end(self) -> Result<(), Refusal> {
        self.all_written()
    }
}

macro_rules! left_to_writing {
    ($($method:ident $(<$t:ident>)? ($($argument:ident: $type:ty),*) -> $ok:ty),* $(,)?) => {$(
        #[inline]
        fn $method $(<$t: Serialize + ?Sized>)? (self, $($argument: $type),*) -> Result<$ok, Refusal> {
            self.writing.$method($($argument),*)
        }
    )*};
}

macro_rules! refused {
    ($($method:ident $(<$t:ident>)? ($($argument:ident: $type:ty),*) -> $ok:ty),* $(,)?) => {$(
        fn $method $(<$t: Serialize + ?Sized>)? (self, $($argument: $type),*) -> Result<$ok, Refusal> {
            Err(Refusal::text(ELEMENTS_DIFFER))
        }
    )*};
}

/// The serializer of the first element of a sequence. A number of one byte is only looked at; anything else is left to
/// [`Writing`].
///
/// `Vec<u8>` and its like come from serde element by element, and a write for each takes sixteen times as long as blocks.
struct First<'o, 'b, S> {
    writing: Writing<'o, S>,
    byte: &'b mut Option<u8>,
}

impl<'o, S: Sink> Serializer for First<'o, '_, S> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Elements<'o, S>;
    type SerializeTuple = Elements<'o, S>;
    type SerializeTupleStruct = Fields<'o, S>;
    type SerializeTupleVariant = Fields<'o, S>;
    type SerializeMap = Elements<'o, S>;
    type SerializeStruct = Fields<'o, S>;
    type SerializeStructVariant = Fields<'o, S>;

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Refusal> {
        *self.byte = Some(value);
        Ok(())
    }

    #[inline]
    fn collect_seq<I>(self, iter: I) -> Result<(), Refusal>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        self.writing.collect_seq(iter)
    }

    left_to_writing! {
        serialize_bool(value: bool) -> (),
        serialize_i8(value: i8) -> (),
        serialize_i16(value: i16) -> (),
        serialize_i32(value: i32) -> (),
        serialize_i64(value: i64) -> (),
        serialize_i128(value: i128) -> (),
        serialize_u16(value: u16) -> (),
        serialize_u32(value: u32) -> (),
        serialize_u64(value: u64) -> (),
        serialize_u128(value: u128) -> (),
        serialize_f32(value: f32) -> (),
        serialize_f64(value: f64) -> (),
        serialize_char(value: char) -> (),
        serialize_str(value: &str) -> (),
        serialize_bytes(value: &[u8]) -> (),
        serialize_unit() -> (),
        serialize_unit_struct(name: &'static str) -> (),
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> (),
        serialize_none() -> (),
        serialize_some<T>(value: &T) -> (),
        serialize_newtype_struct<T>(name: &'static str, value: &T) -> (),
        serialize_newtype_variant<T>(
            name: &'static str, index: u32, variant: &'static str, value: &T
        ) -> (),
        serialize_seq(len: Option<usize>) -> Elements<'o, S>,
        serialize_tuple(len: usize) -> Elements<'o, S>,
        serialize_tuple_struct(name: &'static str, len: usize) -> Fields<'o, S>,
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> Fields<'o, S>,
        serialize_map(len: Option<usize>) -> Elements<'o, S>,
        serialize_struct(name: &'static str, len: usize) -> Fields<'o, S>,
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> Fields<'o, S>,
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The serializer of an element of which the first was a number of one byte: so is this one, because a reader that knows only
/// the type could not tell.
struct OneByte<'b>(&'b mut u8);

type Never = Impossible<(), Refusal>;

impl Serializer for OneByte<'_> {
    type Ok = ();
    type Error = Refusal;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Refusal> {
        *self.0 = value;
        Ok(())
    }

    refused! {
        serialize_bool(_value: bool) -> (),
        serialize_i8(_value: i8) -> (),
        serialize_i16(_value: i16) -> (),
        serialize_i32(_value: i32) -> (),
        serialize_i64(_value: i64) -> (),
        serialize_i128(_value: i128) -> (),
        serialize_u16(_value: u16) -> (),
        serialize_u32(_value: u32) -> (),
        serialize_u64(_value: u64) -> (),
        serialize_u128(_value: u128) -> (),
        serialize_f32(_value: f32) -> (),
        serialize_f64(_value: f64) -> (),
        serialize_char(_value: char) -> (),
        serialize_str(_value: &str) -> (),
        serialize_bytes(_value: &[u8]) -> (),
        serialize_unit() -> (),
        serialize_unit_struct(_name: &'static str) -> (),
        serialize_unit_variant(_name: &'static str, _index: u32, _variant: &'static str) -> (),
        serialize_none() -> (),
        serialize_some<T>(_value: &T) -> (),
        serialize_newtype_struct<T>(_name: &'static str, _value: &T) -> (),
        serialize_newtype_variant<T>(
            _name: &'static str, _index: u32, _variant: &'static str, _value: &T
        ) -> (),
        serialize_seq(_len: Option<usize>) -> Never,
        serialize_tuple(_len: usize) -> Never,
        serialize_tuple_struct(_name: &'static str, _len: usize) -> Never,
        serialize_tuple_variant(
            _name: &'static str, _index: u32, _variant: &'static str, _len: usize
        ) -> Never,
        serialize_map(_len: Option<usize>) -> Never,
        serialize_struct(_name: &'static str, _len: usize) -> Never,
        serialize_struct_variant(
            _name: &'static str, _index: u32, _variant: &'static str, _len: usize
        ) -> Never,
    }
}

/// The fields of a struct or variant while they are written, after their number.
struct Fields<'o, S> {
    output: &'o mut Output<S>,
    levels_left: u32,
    of: &'static str,
    announced: u16,
    left: u16,
}

impl<S: Sink> Fields<'_, S> {
    #[inline]
    fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(wrong_length(self.announced.into(), 0)),
        }
        value.serialize(Writing {
            output: self.output,
            levels_left: self.levels_left,
        })
    }

    #[inline]
    fn all_written(&self) -> Result<(), Refusal> {
        match self.left {
            0 => Ok(()),
            left => Err(wrong_length(self.announced.into(), left.into())),
        }
    }
}

macro_rules! fields_without_names {
    ($($trait:ident),*) => {$(
        impl<S: Sink> ser::$trait for Fields<'_, S> {
            type Ok = ();
            type Error = Refusal;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refusal> {
                self.write(value)
            }

            #[inline]
            fn end(self) -> Result<(), Refusal> {
                self.all_written()
            }
        }
    )*};
}

macro_rules! fields_with_names {
    ($($trait:ident),*) => {$(
        impl<S: Sink> ser::$trait for Fields<'_, S> {
            type Ok = ();
            type Error = Refusal;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _name: &'static str,
                value: &T,
            ) -> Result<(), Refusal> {
                self.write(value)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Refusal> {
                Err(skipped_field(self.of, name))
            }

            #[inline]
            fn end(self) -> Result<(), Refusal> {
                self.all_written()
            }
        }
    )*};
}

fields_without_names!(SerializeTupleStruct, SerializeTupleVariant);
fields_with_names!(SerializeStruct, SerializeStructVariant);

// ---------------------------------------------------------------------------------------------------------------------
// Reading

#[derive(Clone, Copy)]
struct Input<S> {
    source: S,
    /// How many more elements all sequences and maps may claim.
    ///
    /// Elements either take a byte at least, or there are no more than [`MAX_EMPTY_ELEMENTS`]; so it starts as the sum
    /// of that and the bytes. One number for the whole message: one for each sequence could be multiplied by nesting.
    elements_left: usize,
}

impl<'de, S: Source<'de>> Input<S> {
    /// Reads the length of a sequence or map, and counts its elements as claimed.
    #[inline]
    fn take_length(&mut self) -> Result<usize, Refusal> {
        let claimed = self.source.take_u64()?;
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        match self.elements_left.checked_sub(length) {
            Some(elements_left) => {
                self.elements_left = elements_left;
                Ok(length)
            }
            None => Err(too_many_elements(claimed, self.source.left())),
        }
    }
}

/// The deserializer of one value.
struct Reading<'i, S> {
    input: &'i mut Input<S>,
    levels_left: u32,
}

impl<'de, S: Source<'de>> Reading<'_, S> {
    #[inline]
    fn inside(self) -> Result<Self, Refusal> {
        Ok(Self {
            levels_left: inside(self.levels_left)?,
            input: self.input,
        })
    }

    #[inline]
    fn fields<V: Visitor<'de>>(self, of: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        let levels_left = inside(self.levels_left)?;
        let written = self.input.source.take_u16()?;
        let mut fields = FieldsAccess {
            input: self.input,
            levels_left,
            of,
            written,
            left: written,
        };
        let value = visitor.visit_seq(&mut fields)?;
        match fields.left {
            0 => Ok(value),
            left => Err(fields_differ(of, written, left)),
        }
    }
}

macro_rules! take {
    ($($method:ident by $take:ident then $visit:ident),* $(,)?) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            visitor.$visit(self.input.source.$take()?)
        }
    )*};
}

impl<'de, S: Source<'de>> Deserializer<'de> for Reading<'_, S> {
    type Error = Refusal;

    take! {
        deserialize_bool by take_bool then visit_bool,
        deserialize_i8 by take_i8 then visit_i8,
        deserialize_i16 by take_i16 then visit_i16,
        deserialize_i32 by take_i32 then visit_i32,
        deserialize_i64 by take_i64 then visit_i64,
        deserialize_i128 by take_i128 then visit_i128,
        deserialize_u8 by take_u8 then visit_u8,
        deserialize_u16 by take_u16 then visit_u16,
        deserialize_u32 by take_u32 then visit_u32,
        deserialize_u64 by take_u64 then visit_u64,
        deserialize_u128 by take_u128 then visit_u128,
        deserialize_f32 by take_f32 then visit_f32,
        deserialize_f64 by take_f64 then visit_f64,
        deserialize_char by take_char then visit_char,
        deserialize_str by take_str then visit_borrowed_str,
        deserialize_string by take_str then visit_borrowed_str,
        deserialize_bytes by take_bytes then visit_borrowed_bytes,
        deserialize_byte_buf by take_bytes then visit_borrowed_bytes,
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::text(NOT_SELF_DESCRIBING))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::text(NOT_SELF_DESCRIBING))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::text(NAMES_ARE_NOT_SENT))
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.input.source.take_u8()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self.inside()?),
            other => Err(Refusal::text(format_args!(
                "{other} is no variant of `Option`"
            ))),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self.inside()?)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let length = self.input.take_length()?;
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let mut elements = ElementsAccess {
            levels_left: inside(self.levels_left)?,
            input: *self.input,
            left: len,
        };
        let value = visitor.visit_seq(&mut elements)?;
        *self.input = elements.all_read()?;
        Ok(value)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.fields(name, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let mut entries = ElementsAccess {
            levels_left: inside(self.levels_left)?,
            left: self.input.take_length()?,
            input: *self.input,
        };
        let value = visitor.visit_map(&mut entries)?;
        *self.input = entries.all_read()?;
        Ok(value)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        // With `#[serde(alias)]` these are more than there are fields; the number in the bytes decides.
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.fields(name, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_enum(VariantAccess { at: self, of: name })
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence or tuple, or the entries of a map, while they are read.
struct ElementsAccess<S> {
    input: Input<S>,
    levels_left: u32,
    left: usize,
}

impl<'de, S: Source<'de>> ElementsAccess<S> {
    #[inline]
    fn read<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(Reading {
            input: &mut self.input,
            levels_left: self.levels_left,
        })
    }

    #[inline]
    fn read_if_left<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.read(seed).map(Some)
            }
            None => Ok(None),
        }
    }

    /// How many elements a visitor may reserve room for, in case it believes in hints: not more than there are bytes.
    #[inline]
    fn reservable(&self) -> Option<usize> {
        Some(self.left.min(self.input.source.left()))
    }

    #[inline]
    fn all_read(self) -> Result<Input<S>, Refusal> {
        match self.left {
            0 => Ok(self.input),
            _ => Err(Refusal::text(UNREAD_ELEMENTS)),
        }
    }
}

impl<'de, S: Source<'de>> de::SeqAccess<'de> for ElementsAccess<S> {
    type Error = Refusal;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        self.read_if_left(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.reservable()
    }
}

impl<'de, S: Source<'de>> de::MapAccess<'de> for ElementsAccess<S> {
    type Error = Refusal;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        self.read_if_left(seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        self.read(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.reservable()
    }
}

/// The fields of a struct or variant while they are read, after their number.
struct FieldsAccess<'i, S> {
    input: &'i mut Input<S>,
    levels_left: u32,
    of: &'static str,
    written: u16,
    left: u16,
}

impl<'de, S: Source<'de>> de::SeqAccess<'de> for FieldsAccess<'_, S> {
    type Error = Refusal;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        // Not `None`: `#[serde(default)]` would fill the field in and nobody would know.
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(fields_differ(self.of, self.written, 0)),
        }
        seed.deserialize(Reading {
            input: self.input,
            levels_left: self.levels_left,
        })
        .map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.into())
    }
}

/// An enum: its variant, and then what the variant holds.
struct VariantAccess<'i, S> {
    at: Reading<'i, S>,
    of: &'static str,
}

impl<'de, S: Source<'de>> de::EnumAccess<'de> for VariantAccess<'_, S> {
    type Error = Refusal;
    type Variant = Self;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Refusal> {
        let index: U32Deserializer<Refusal> = self.at.input.source.take_u32()?.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de, S: Source<'de>> de::VariantAccess<'de> for VariantAccess<'_, S> {
    type Error = Refusal;

    #[inline]
    fn unit_variant(self) -> Result<(), Refusal> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(self.at.inside()?)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.at.fields(self.of, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.at.fields(self.of, visitor)
    }
}
