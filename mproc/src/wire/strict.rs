//! Serde adapters that make a compact binary format safe to use between processes.
//!
//! A format without field names and type tags trusts both sides: the sender's `Serialize` to write what the receiver's
//! `Deserialize` will ask for, and the bytes to claim no more than they hold. This file wraps such a format's
//! serializer and deserializer and takes nothing on trust. It names no format; `codec` applies it to one.
//!
//! | trap | what happens here |
//! |------|-------------------|
//! | a length in the bytes reserves memory before the bytes are there | strings and byte buffers are read as borrowed ones, which exist before anything is copied; other lengths are bounded by [`Allowance`] |
//! | elements that take no bytes, `Vec<()>`, are claimed by the billion | [`Written`] and [`Allowance`] bound them on both sides |
//! | nesting overflows the stack | [`MAX_DEPTH`], on both sides |
//! | fields left out on one side (`skip_serializing_if`, `default`) shift all that follows | structs and variants carry their number of fields; a skipped named field is an error when it is written |
//! | the announced length of a sequence is not what was written, or not all of it is read | counted, an error on the side that is wrong |
//! | serde attributes that need a self-describing format | an error that says what to write instead |
//!
//! Every adapter is a [`Within`]: something serde hands around, and the [`Place`] in the message where it is used.
//! Nothing here is global, so encoding inside of a `Serialize` (a message in a message) starts afresh and disturbs nothing.
//!
//! What an inner format must do: give `SeqAccess::size_hint` and `MapAccess::size_hint` exactly, offer borrowed strings
//! and bytes, and treat a tuple as its elements in a row.

use std::cell::Cell;
use std::fmt;

use serde::de::{self, Deserializer, Error as _};
use serde::ser::{self, Serialize, Serializer};

/// How deep a value may nest. Sequences, maps, tuples, structs, variants with fields, `Some` and newtypes each count one.
///
/// Measured in a debug build, a level takes 1 to 4 KiB of stack to read (7 KiB where each holds half a KiB in fields) and
/// less to write, so this many fit into half of the 2 MiB that a Rust thread has. A release build takes a fifth.
pub(super) const MAX_DEPTH: u32 = 200;

/// How many elements that take no bytes (`()` and the like) a message may hold. That many are read in a moment, and nobody
/// sends more of them on purpose.
const MAX_EMPTY_ELEMENTS: usize = 1 << 20;

/// The elements of all sequences and maps of one message that is being written.
///
/// Bytes are not counted, because a counter that every write reads and writes back takes longer than the write itself.
/// Instead, each sequence looks whether its first element took bytes, and takes the others to do the same. Where that
/// is wrong (a hand-written `Serialize` that writes nothing now and then), it is the reader that refuses.
pub(super) struct Written {
    /// Set by every write, cleared by a sequence before its first element, and set again after its last.
    any: Cell<bool>,
    empty_elements: Cell<usize>,
}

impl Written {
    pub(super) fn nothing() -> Self {
        Self {
            any: Cell::new(false),
            empty_elements: Cell::new(0),
        }
    }

    /// To be called by the writer whenever it is given bytes.
    #[inline(always)]
    pub(super) fn something(&self) {
        self.any.set(true);
    }

    fn add_empty_elements<E: ser::Error>(&self, count: usize) -> Result<(), E> {
        let sum = self.empty_elements.get().saturating_add(count);
        self.empty_elements.set(sum);
        if sum <= MAX_EMPTY_ELEMENTS {
            Ok(())
        } else {
            Err(refuse_to_write(TooManyEmptyElements))
        }
    }
}

/// What the bytes of one message may claim while it is read.
///
/// Elements either take a byte at least, or there are no more than [`MAX_EMPTY_ELEMENTS`] of them; so the claims of all
/// sequences and maps add up to no more than that and the bytes there are. One allowance for the whole message, because
/// one for each sequence would be multiplied by nesting them.
pub(super) struct Allowance {
    bytes: usize,
    elements: Cell<usize>,
}

impl Allowance {
    pub(super) fn for_bytes(bytes: usize) -> Self {
        Self {
            bytes,
            elements: Cell::new(bytes.saturating_add(MAX_EMPTY_ELEMENTS)),
        }
    }

    #[inline]
    fn claim<E: de::Error>(&self, elements: Option<usize>) -> Result<(), E> {
        let elements = elements.unwrap_or(usize::MAX);
        match self.elements.get().checked_sub(elements) {
            Some(left) => {
                self.elements.set(left);
                Ok(())
            }
            None => Err(refuse_to_read(TooManyElements {
                elements,
                bytes: self.bytes,
            })),
        }
    }

    /// How many elements a visitor may reserve room for, in case it believes in hints: not more than there are bytes.
    #[inline]
    fn reservable(&self, elements: Option<usize>) -> Option<usize> {
        elements.map(|elements| elements.min(self.bytes))
    }
}

/// Where in a message a value stands. `M` is [`Written`] or [`Allowance`].
struct Place<'m, M> {
    message: &'m M,
    levels_left: u32,
}

impl<M> Copy for Place<'_, M> {}

impl<M> Clone for Place<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<'m, M> Place<'m, M> {
    fn top(message: &'m M) -> Self {
        Self {
            message,
            levels_left: MAX_DEPTH,
        }
    }

    /// The place of what stands inside the value that stands here, or `None` when that would be too deep.
    #[inline]
    fn inside(self) -> Option<Self> {
        let levels_left = self.levels_left.checked_sub(1)?;
        Some(Self {
            levels_left,
            ..self
        })
    }
}

impl Place<'_, Written> {
    #[inline]
    fn inside_written<E: ser::Error>(self) -> Result<Self, E> {
        self.inside().ok_or_else(|| refuse_to_write(TooDeep))
    }
}

impl Place<'_, Allowance> {
    #[inline]
    fn inside_read<E: de::Error>(self) -> Result<Self, E> {
        self.inside().ok_or_else(|| refuse_to_read(TooDeep))
    }
}

/// Something serde hands around, at its place: a value or serializer in `Writing`, and in `Reading` a deserializer, seed,
/// visitor or access.
pub(super) struct Within<'m, T, M> {
    it: T,
    place: Place<'m, M>,
}

type Writing<'m, T> = Within<'m, T, Written>;
type Reading<'m, T> = Within<'m, T, Allowance>;

/// Wraps a value for encoding. The caller's writer tells `written` of every write.
pub(super) fn checked<'m, T: ?Sized>(value: &'m T, written: &'m Written) -> Writing<'m, &'m T> {
    Within {
        it: value,
        place: Place::top(written),
    }
}

/// Wraps a seed for decoding.
pub(super) fn checked_seed<T>(seed: T, allowance: &Allowance) -> Reading<'_, T> {
    Within {
        it: seed,
        place: Place::top(allowance),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// What can be wrong

// Both are out of line, so that what surrounds them stays small enough to be inlined: that is worth a factor of two.

#[cold]
#[inline(never)]
fn refuse_to_write<E: ser::Error>(reason: impl fmt::Display) -> E {
    E::custom(reason)
}

#[cold]
#[inline(never)]
fn refuse_to_read<E: de::Error>(reason: impl fmt::Display) -> E {
    E::custom(reason)
}

struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nested deeper than {MAX_DEPTH} levels: send a flat form of it, such as a `Vec` of nodes with indices"
        )
    }
}

struct TooManyEmptyElements;

impl fmt::Display for TooManyEmptyElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "more than {MAX_EMPTY_ELEMENTS} elements that take no bytes: send their number"
        )
    }
}

struct TooManyElements {
    elements: usize,
    bytes: usize,
}

impl fmt::Display for TooManyElements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { elements, bytes } = self;
        write!(f, "{elements} elements in a message of {bytes} bytes")
    }
}

struct UnknownLength(&'static str);

impl fmt::Display for UnknownLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const SEQUENCE_OF_UNKNOWN_LENGTH: UnknownLength = UnknownLength(
    "a sequence must know its length before its first element: collect it into a `Vec` first",
);

const MAP_OF_UNKNOWN_LENGTH: UnknownLength = UnknownLength(
    "a map must know its length before its first entry (`#[serde(flatten)]` makes a struct a map that does not): make \
     the flattened struct an ordinary field",
);

struct WrongLength {
    announced: usize,
    excess: bool,
}

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { announced, excess } = self;
        let than = if *excess { "more" } else { "fewer" };
        write!(
            f,
            "`Serialize` announced {announced} elements and wrote {than}"
        )
    }
}

struct SkippedField {
    of: &'static str,
    field: &'static str,
}

impl fmt::Display for SkippedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, field } = self;
        write!(
            f,
            "field `{field}` of `{of}` was skipped, and its reader would take what follows for it: remove \
             `#[serde(skip_serializing_if = …)]` from the field"
        )
    }
}

struct TooManyFields(&'static str);

impl fmt::Display for TooManyFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has more than {} fields", self.0, u16::MAX)
    }
}

struct FieldsDiffer {
    of: &'static str,
    written: u16,
    read_more: bool,
}

impl fmt::Display for FieldsDiffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            of,
            written,
            read_more,
        } = self;
        let than = if *read_more { "more" } else { "fewer" };
        write!(
            f,
            "`{of}` was written with {written} fields and is read with {than}: remove serde attributes that leave a \
             field out on one side only (`skip_serializing_if`, `skip_serializing`, `skip_deserializing`); \
             `#[serde(skip)]` is fine"
        )
    }
}

const UNREAD_ELEMENTS: &str = "`Deserialize` left elements unread";

const NOT_SELF_DESCRIBING: &str = "this type needs a self-describing format (`#[serde(untagged)]`, `#[serde(tag = …)]`, \
     `serde_json::Value`): use an enum with serde's default representation, or send it as a string";

const NAMES_ARE_NOT_SENT: &str = "this type reads names of fields, which are not sent (`#[serde(flatten)]`, `#[serde(tag = …, content = …)]`): make \
     a flattened struct an ordinary field, use an enum with serde's default representation, or send it as a string";

// ---------------------------------------------------------------------------------------------------------------------
// Encoding

impl<T: Serialize + ?Sized> Serialize for Writing<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.it.serialize(Within {
            it: serializer,
            place: self.place,
        })
    }
}

macro_rules! forward_serialize {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.it.$method(value)
        }
    )*};
}

impl<'m, S: Serializer> Serializer for Writing<'m, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Elements<'m, S::SerializeSeq>;
    type SerializeTuple = Elements<'m, S::SerializeTuple>;
    type SerializeTupleStruct = Fields<'m, S::SerializeTuple>;
    type SerializeTupleVariant = Fields<'m, S::SerializeTupleVariant>;
    type SerializeMap = Elements<'m, S::SerializeMap>;
    type SerializeStruct = Fields<'m, S::SerializeTuple>;
    type SerializeStructVariant = Fields<'m, S::SerializeTupleVariant>;

    forward_serialize! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.it.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let place = self.place.inside_written()?;
        self.it.serialize_some(&Within { it: value, place })
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.it.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.it.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let place = self.place.inside_written()?;
        self.it
            .serialize_newtype_struct(name, &Within { it: value, place })
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let place = self.place.inside_written()?;
        self.it
            .serialize_newtype_variant(name, index, variant, &Within { it: value, place })
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let len = len.ok_or_else(|| refuse_to_write(SEQUENCE_OF_UNKNOWN_LENGTH))?;
        let place = self.place.inside_written()?;
        let it = self.it.serialize_seq(Some(len))?;
        place.message.any.set(false);
        Ok(Elements::new(it, len, place))
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        let place = self.place.inside_written()?;
        Ok(Elements::new(self.it.serialize_tuple(len)?, len, place))
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.serialize_struct(name, len)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.serialize_struct_variant(name, index, variant, len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let len = len.ok_or_else(|| refuse_to_write(MAP_OF_UNKNOWN_LENGTH))?;
        let place = self.place.inside_written()?;
        let it = self.it.serialize_map(Some(len))?;
        place.message.any.set(false);
        Ok(Elements::new(it, len, place))
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        let place = self.place.inside_written()?;
        let count = field_count(name, len)?;
        let mut it = self.it.serialize_tuple(len + 1)?;
        ser::SerializeTuple::serialize_element(&mut it, &count)?;
        Ok(Fields::new(it, name, count, place))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let place = self.place.inside_written()?;
        let count = field_count(name, len)?;
        let mut it = self
            .it
            .serialize_tuple_variant(name, index, variant, len + 1)?;
        ser::SerializeTupleVariant::serialize_field(&mut it, &count)?;
        Ok(Fields::new(it, variant, count, place))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.it.is_human_readable()
    }
}

#[inline]
fn field_count<E: ser::Error>(name: &'static str, len: usize) -> Result<u16, E> {
    u16::try_from(len).map_err(|_| refuse_to_write(TooManyFields(name)))
}

/// The elements of a sequence or tuple, or the entries of a map, while they are written.
pub(super) struct Elements<'m, S> {
    it: S,
    announced: usize,
    left: usize,
    place: Place<'m, Written>,
}

impl<'m, S> Elements<'m, S> {
    #[inline]
    fn new(it: S, announced: usize, place: Place<'m, Written>) -> Self {
        Self {
            it,
            announced,
            left: announced,
            place,
        }
    }

    /// Counts an element that is about to be written, and puts it in its place.
    #[inline]
    fn next<'v, T: ?Sized, E: ser::Error>(
        &mut self,
        value: &'v T,
    ) -> Result<Writing<'m, &'v T>, E> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(self.wrong_length()),
        }
        Ok(Within {
            it: value,
            place: self.place,
        })
    }

    /// Looks whether the first element of a sequence, or the first key of a map, took bytes. To be called after each.
    #[inline]
    fn look_at_first<E: ser::Error>(&self) -> Result<(), E> {
        let written = self.place.message;
        if self.left + 1 == self.announced && !written.any.get() {
            written.add_empty_elements(self.announced)
        } else {
            Ok(())
        }
    }

    #[inline]
    fn counted<E: ser::Error>(&self) -> Result<(), E> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(self.wrong_length())
        }
    }

    fn wrong_length<E: ser::Error>(&self) -> E {
        refuse_to_write(WrongLength {
            announced: self.announced,
            excess: self.left == 0,
        })
    }
}

impl<S: ser::SerializeSeq> ser::SerializeSeq for Elements<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let element = self.next(value)?;
        self.it.serialize_element(&element)?;
        self.look_at_first()
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.counted()?;
        // The length of this sequence took bytes, whatever its elements did.
        self.place.message.any.set(true);
        self.it.end()
    }
}

impl<S: ser::SerializeMap> ser::SerializeMap for Elements<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        let key = self.next(key)?;
        self.it.serialize_key(&key)?;
        self.look_at_first()
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.it.serialize_value(&Within {
            it: value,
            place: self.place,
        })
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.counted()?;
        // The length of this map took bytes, whatever its elements did.
        self.place.message.any.set(true);
        self.it.end()
    }
}

// A tuple's length is in the type, and no bytes can claim it: it need not be looked at.
impl<S: ser::SerializeTuple> ser::SerializeTuple for Elements<'_, S> {
    type Ok = S::Ok;
    type Error = S::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        let element = self.next(value)?;
        self.it.serialize_element(&element)
    }

    #[inline]
    fn end(self) -> Result<S::Ok, S::Error> {
        self.counted()?;
        self.it.end()
    }
}

/// The fields of a struct or variant while they are written, after their count.
pub(super) struct Fields<'m, S> {
    it: S,
    of: &'static str,
    announced: u16,
    left: u16,
    place: Place<'m, Written>,
}

impl<'m, S> Fields<'m, S> {
    #[inline]
    fn new(it: S, of: &'static str, announced: u16, place: Place<'m, Written>) -> Self {
        Self {
            it,
            of,
            announced,
            left: announced,
            place,
        }
    }

    /// Counts a field that is about to be written, and puts it in its place.
    #[inline]
    fn next<'v, T: ?Sized, E: ser::Error>(
        &mut self,
        value: &'v T,
    ) -> Result<Writing<'m, &'v T>, E> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(self.wrong_length()),
        }
        Ok(Within {
            it: value,
            place: self.place,
        })
    }

    #[inline]
    fn counted<E: ser::Error>(&self) -> Result<(), E> {
        if self.left == 0 {
            Ok(())
        } else {
            Err(self.wrong_length())
        }
    }

    fn wrong_length<E: ser::Error>(&self) -> E {
        refuse_to_write(WrongLength {
            announced: self.announced.into(),
            excess: self.left == 0,
        })
    }

    fn skipped<E: ser::Error>(&self, field: &'static str) -> E {
        refuse_to_write(SkippedField { of: self.of, field })
    }
}

macro_rules! unnamed_fields {
    ($trait:ident over $inner:ident::$write:ident) => {
        impl<S: ser::$inner> ser::$trait for Fields<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                value: &T,
            ) -> Result<(), S::Error> {
                let field = self.next(value)?;
                self.it.$write(&field)
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.counted()?;
                self.it.end()
            }
        }
    };
}

macro_rules! named_fields {
    ($trait:ident over $inner:ident::$write:ident) => {
        impl<S: ser::$inner> ser::$trait for Fields<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _name: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                let field = self.next(value)?;
                self.it.$write(&field)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), S::Error> {
                Err(self.skipped(name))
            }

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.counted()?;
                self.it.end()
            }
        }
    };
}

unnamed_fields!(SerializeTupleStruct over SerializeTuple::serialize_element);
unnamed_fields!(SerializeTupleVariant over SerializeTupleVariant::serialize_field);
named_fields!(SerializeStruct over SerializeTuple::serialize_element);
named_fields!(SerializeStructVariant over SerializeTupleVariant::serialize_field);

// ---------------------------------------------------------------------------------------------------------------------
// Decoding

impl<'de, T: de::DeserializeSeed<'de>> de::DeserializeSeed<'de> for Reading<'_, T> {
    type Value = T::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.it.deserialize(Within {
            it: deserializer,
            place: self.place,
        })
    }
}

macro_rules! forward_deserialize {
    ($($method:ident to $inner:ident),* $(,)?) => {$(
        #[inline]
        fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.it.$inner(visitor)
        }
    )*};
}

impl<'de, 'm, D: Deserializer<'de>> Deserializer<'de> for Reading<'m, D> {
    type Error = D::Error;

    forward_deserialize! {
        deserialize_bool to deserialize_bool,
        deserialize_i8 to deserialize_i8,
        deserialize_i16 to deserialize_i16,
        deserialize_i32 to deserialize_i32,
        deserialize_i64 to deserialize_i64,
        deserialize_i128 to deserialize_i128,
        deserialize_u8 to deserialize_u8,
        deserialize_u16 to deserialize_u16,
        deserialize_u32 to deserialize_u32,
        deserialize_u64 to deserialize_u64,
        deserialize_u128 to deserialize_u128,
        deserialize_f32 to deserialize_f32,
        deserialize_f64 to deserialize_f64,
        deserialize_char to deserialize_char,
        deserialize_unit to deserialize_unit,
        deserialize_str to deserialize_str,
        deserialize_bytes to deserialize_bytes,
        // The owned forms allocate what the bytes claim and look afterwards whether it is there. The borrowed ones look
        // first, and the visitor makes its copy of what is there.
        deserialize_string to deserialize_str,
        deserialize_byte_buf to deserialize_bytes,
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(refuse_to_read(NOT_SELF_DESCRIBING))
    }

    fn deserialize_ignored_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(refuse_to_read(NOT_SELF_DESCRIBING))
    }

    fn deserialize_identifier<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, D::Error> {
        Err(refuse_to_read(NAMES_ARE_NOT_SENT))
    }

    #[inline]
    fn deserialize_unit_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.it.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.it.deserialize_option(Within {
            it: visitor,
            place: self.place,
        })
    }

    #[inline]
    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.it.deserialize_newtype_struct(
            name,
            Within {
                it: visitor,
                place: self.place,
            },
        )
    }

    #[inline]
    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.it.deserialize_seq(Within {
            it: visitor,
            place: self.place.inside_read()?,
        })
    }

    #[inline]
    fn deserialize_tuple<V: de::Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.it.deserialize_tuple(
            len,
            TupleVisitor {
                it: visitor,
                place: self.place.inside_read()?,
            },
        )
    }

    #[inline]
    fn deserialize_tuple_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.it.deserialize_tuple(
            len.saturating_add(1),
            FieldsVisitor {
                it: visitor,
                of: name,
                place: self.place.inside_read()?,
            },
        )
    }

    #[inline]
    fn deserialize_map<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.it.deserialize_map(Within {
            it: visitor,
            place: self.place.inside_read()?,
        })
    }

    #[inline]
    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        // With `#[serde(alias)]`, `fields` holds more names than there are fields; the count in the bytes decides.
        self.deserialize_tuple_struct(name, fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.it.deserialize_enum(
            name,
            variants,
            EnumVisitor {
                it: visitor,
                name,
                place: self.place,
            },
        )
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.it.is_human_readable()
    }
}

/// The visitor of options, newtypes, sequences and maps.
impl<'de, V: de::Visitor<'de>> de::Visitor<'de> for Reading<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.expecting(f)
    }

    #[inline]
    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.it.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.it.visit_some(Within {
            it: deserializer,
            place: self.place.inside_read()?,
        })
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.it.visit_newtype_struct(Within {
            it: deserializer,
            place: self.place.inside_read()?,
        })
    }

    #[inline]
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        self.place.message.claim(access.size_hint())?;
        let value = self.it.visit_seq(Within {
            it: &mut access,
            place: self.place,
        })?;
        all_were_read(access.size_hint())?;
        Ok(value)
    }

    #[inline]
    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        self.place.message.claim(access.size_hint())?;
        let value = self.it.visit_map(Within {
            it: &mut access,
            place: self.place,
        })?;
        all_were_read(access.size_hint())?;
        Ok(value)
    }
}

#[inline]
fn all_were_read<E: de::Error>(left: Option<usize>) -> Result<(), E> {
    if left == Some(0) {
        Ok(())
    } else {
        Err(refuse_to_read(UNREAD_ELEMENTS))
    }
}

/// The visitor of tuples and arrays, whose length is in the type and not in the bytes.
struct TupleVisitor<'m, V> {
    it: V,
    place: Place<'m, Allowance>,
}

impl<'de, V: de::Visitor<'de>> de::Visitor<'de> for TupleVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.expecting(f)
    }

    #[inline]
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        let value = self.it.visit_seq(Within {
            it: &mut access,
            place: self.place,
        })?;
        all_were_read(access.size_hint())?;
        Ok(value)
    }
}

impl<'de, A: de::SeqAccess<'de>> de::SeqAccess<'de> for Reading<'_, &mut A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.it.next_element_seed(Within {
            it: seed,
            place: self.place,
        })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.place.message.reservable(self.it.size_hint())
    }
}

impl<'de, A: de::MapAccess<'de>> de::MapAccess<'de> for Reading<'_, &mut A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.it.next_key_seed(Within {
            it: seed,
            place: self.place,
        })
    }

    #[inline]
    fn next_value_seed<V: de::DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, A::Error> {
        self.it.next_value_seed(Within {
            it: seed,
            place: self.place,
        })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.place.message.reservable(self.it.size_hint())
    }
}

/// The visitor of structs and of variants with fields.
struct FieldsVisitor<'m, V> {
    it: V,
    of: &'static str,
    place: Place<'m, Allowance>,
}

impl<'de, V: de::Visitor<'de>> de::Visitor<'de> for FieldsVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.expecting(f)
    }

    #[inline]
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        let Some(written) = access.next_element::<u16>()? else {
            return Err(A::Error::invalid_length(0, &self));
        };
        let mut left = written;
        let value = self.it.visit_seq(FieldsAccess {
            it: &mut access,
            of: self.of,
            written,
            left: &mut left,
            place: self.place,
        })?;
        if left == 0 {
            Ok(value)
        } else {
            Err(refuse_to_read(FieldsDiffer {
                of: self.of,
                written,
                read_more: false,
            }))
        }
    }
}

struct FieldsAccess<'a, 'm, A> {
    it: &'a mut A,
    of: &'static str,
    written: u16,
    left: &'a mut u16,
    place: Place<'m, Allowance>,
}

impl<'de, A: de::SeqAccess<'de>> de::SeqAccess<'de> for FieldsAccess<'_, '_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        // Not `None`: `#[serde(default)]` would fill the field in and nobody would know.
        let Some(left) = self.left.checked_sub(1) else {
            return Err(refuse_to_read(FieldsDiffer {
                of: self.of,
                written: self.written,
                read_more: true,
            }));
        };
        *self.left = left;
        self.it.next_element_seed(Within {
            it: seed,
            place: self.place,
        })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some((*self.left).into())
    }
}

struct EnumVisitor<'m, V> {
    it: V,
    name: &'static str,
    place: Place<'m, Allowance>,
}

impl<'de, V: de::Visitor<'de>> de::Visitor<'de> for EnumVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.it.expecting(f)
    }

    #[inline]
    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.it.visit_enum(EnumAccess {
            it: access,
            name: self.name,
            place: self.place,
        })
    }
}

/// An enum before its variant is known, and then its variant.
struct EnumAccess<'m, A> {
    it: A,
    name: &'static str,
    place: Place<'m, Allowance>,
}

impl<'de, 'm, A: de::EnumAccess<'de>> de::EnumAccess<'de> for EnumAccess<'m, A> {
    type Error = A::Error;
    type Variant = EnumAccess<'m, A::Variant>;

    #[inline]
    fn variant_seed<T: de::DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        // The seed reads the variant's index from a deserializer that holds nothing else: there is nothing to check.
        let (variant, it) = self.it.variant_seed(seed)?;
        Ok((
            variant,
            EnumAccess {
                it,
                name: self.name,
                place: self.place,
            },
        ))
    }
}

impl<'de, A: de::VariantAccess<'de>> de::VariantAccess<'de> for EnumAccess<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.it.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, A::Error> {
        self.it.newtype_variant_seed(Within {
            it: seed,
            place: self.place.inside_read()?,
        })
    }

    #[inline]
    fn tuple_variant<V: de::Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.it.tuple_variant(
            len.saturating_add(1),
            FieldsVisitor {
                it: visitor,
                of: self.name,
                place: self.place.inside_read()?,
            },
        )
    }

    #[inline]
    fn struct_variant<V: de::Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.tuple_variant(fields.len(), visitor)
    }
}
