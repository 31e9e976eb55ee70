//! Values and arrays that processes share without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32,
    AtomicU64, AtomicUsize, Ordering,
};

use bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::data::Data;
use super::tear;
use crate::error::{Error, Result};

/// What elements of a [`RawArray`] can be: whatever is [`Pod`](bytemuck::Pod), and `bool`.
pub trait Element: CheckedBitPattern + NoUninit + Zeroable {}

impl<T: CheckedBitPattern + NoUninit + Zeroable> Element for T {}

/// Elements that are loaded and stored as a whole: integers, `f32` and `f64`, `bool`.
#[expect(private_bounds, reason = "it is sealed")]
pub trait Scalar: Element + Sealed {}

impl<T: Element + Sealed> Scalar for T {}

/// How an element is stored.
trait Sealed: Copy + 'static {
    /// An integer of its size.
    type Stored: Pod;
    /// The atomic of that.
    type Atomic;
    fn to_stored(self) -> Self::Stored;
    fn from_stored(stored: Self::Stored) -> Self;
    fn load(atomic: &Self::Atomic) -> Self::Stored;
    fn store(atomic: &Self::Atomic, stored: Self::Stored);
}

macro_rules! scalar {
    ($($type:ty, $stored:ty, $atomic:ty, $to:expr, $from:expr;)*) => {$(
        impl Sealed for $type {
            type Stored = $stored;
            type Atomic = $atomic;
            fn to_stored(self) -> $stored {
                ($to)(self)
            }
            fn from_stored(stored: $stored) -> Self {
                ($from)(stored)
            }
            fn load(atomic: &$atomic) -> $stored {
                atomic.load(Ordering::SeqCst).into()
            }
            fn store(atomic: &$atomic, stored: $stored) {
                atomic.store(stored.into(), Ordering::SeqCst);
            }
        }
    )*};
}

scalar! {
    i8, i8, AtomicI8, |it| it, |it| it;
    i16, i16, AtomicI16, |it| it, |it| it;
    i32, i32, AtomicI32, |it| it, |it| it;
    i64, i64, AtomicI64, |it| it, |it| it;
    isize, isize, AtomicIsize, |it| it, |it| it;
    u8, u8, AtomicU8, |it| it, |it| it;
    u16, u16, AtomicU16, |it| it, |it| it;
    u32, u32, AtomicU32, |it| it, |it| it;
    u64, u64, AtomicU64, |it| it, |it| it;
    usize, usize, AtomicUsize, |it| it, |it| it;
    f32, u32, AtomicU32, f32::to_bits, f32::from_bits;
    f64, u64, AtomicU64, f64::to_bits, f64::from_bits;
    // As a byte, of which another process may make anything.
    bool, u8, AtomicU8, u8::from, |it| it != 0;
}

/// A fixed number of plain values that processes and threads share without a lock.
///
/// A *shared* handle, as [`Array`](crate::Array) is. Numbers and `bool` are loaded and stored as a whole, by [`get`](Self::get) and
/// [`set`](Self::set) (atomics, sequentially consistent); nothing is said about several of them, nor about a load and a store that belong together: for
/// these there is [`Array`](crate::Array). Structs are copied by [`read`](Self::read) and [`write`](Self::write), and *may tear*: who reads
/// one while another writes it may get some fields of the old one and some of the new one.
///
/// # If a peer dies
///
/// What it had stored is there; of a struct that it was writing, a part.
///
/// # Examples
///
/// ```
/// use mproc::RawArray;
///
/// #[mproc::entry]
/// fn fill(squares: &RawArray<u64>) {
///     for index in 0..squares.len() {
///         squares.set(index, (index * index) as u64);
///     }
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let squares = RawArray::<u64>::new(4)?;
/// fill::spawn(&squares)?.join()?;
/// assert_eq!(squares.to_vec(), [0, 1, 4, 9]);
/// # Ok(())
/// # }
/// ```
pub struct RawArray<T: Element> {
    data: Arc<Data<T>>,
}

impl<T: Element> RawArray<T> {
    /// So many zeroes (`false` for `bool`).
    ///
    /// # Errors
    ///
    /// If there is no memory, no room for a descriptor, or a limit of file sizes (`RLIMIT_FSIZE`) is in the way.
    pub fn new(length: usize) -> Result<Self> {
        let data =
            Data::new(length).map_err(|error| Error::io("an array could not be made", error))?;
        Ok(Self {
            data: Arc::new(data),
        })
    }

    /// An array of these elements.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn from_slice(elements: &[T]) -> Result<Self> {
        let array = Self::new(elements.len())?;
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        // SAFETY: the array has room for as many elements, and is apart from them.
        unsafe {
            tear::store(
                bytes.as_ptr(),
                array.data.first().as_ptr().cast(),
                bytes.len(),
            )
        };
        Ok(array)
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn check(&self, index: usize) {
        assert!(
            index < self.len(),
            "index {index} of an array of {}",
            self.len()
        );
    }
}

impl<T: Element + Pod> RawArray<T> {
    /// A copy of the element at this index. If another process or thread writes it meanwhile, the copy may be torn: each aligned
    /// eight bytes of it are of one instant, and no more.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytemuck::{Pod, Zeroable};
    /// use mproc::RawArray;
    ///
    /// #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    /// #[repr(C)]
    /// struct Point { x: f64, y: f64 }
    ///
    /// #[mproc::entry]
    /// fn mirror(points: &RawArray<Point>) {
    ///     let Point { x, y } = points.read(0);
    ///     points.write(1, Point { x: -x, y: -y });
    /// }
    ///
    /// # fn main() -> mproc::Result<()> {
    /// let points = RawArray::from_slice(&[Point { x: 1.0, y: 2.0 }, Point::zeroed()])?;
    /// mirror::spawn(&points)?.join()?;
    /// assert_eq!(points.read(1), Point { x: -1.0, y: -2.0 });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn read(&self, index: usize) -> T {
        self.check(index);
        let mut element = T::zeroed();
        // SAFETY: inside, as just compared, and apart from the local variable; any bytes are a `T`.
        unsafe {
            let shared = self.data.first().as_ptr().add(index).cast_const();
            tear::load(shared.cast(), (&raw mut element).cast(), size_of::<T>());
        }
        element
    }

    /// Replaces the element at this index. Who reads it meanwhile may get a part of it.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn write(&self, index: usize, element: T) {
        self.check(index);
        // SAFETY: as in `read`.
        unsafe {
            let shared = self.data.first().as_ptr().add(index);
            tear::store((&raw const element).cast(), shared.cast(), size_of::<T>());
        }
    }
}

impl<T: Scalar> RawArray<T> {
    fn atomic(&self, index: usize) -> &T::Atomic {
        const { assert!(size_of::<T::Atomic>() == size_of::<T::Stored>()) };
        const { assert!(size_of::<T>() == size_of::<T::Stored>()) };
        self.check(index);
        // SAFETY:
        // - mapped: `data` is borrowed as long.
        // - inside: just compared; invariants 1 and 2 of `Data`, and an atomic is no larger; those of eight bytes are aligned
        //   to eight on the platforms there are, as their integers are.
        // - bytes:  any are a valid atomic integer.
        // - others: all of mproc's ways to these elements are atomics.
        unsafe { self.data.first().cast::<T::Atomic>().add(index).as_ref() }
    }

    /// The element at this index.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn get(&self, index: usize) -> T {
        T::from_stored(T::load(self.atomic(index)))
    }

    /// Replaces the element at this index.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn set(&self, index: usize, element: T) {
        T::store(self.atomic(index), element.to_stored());
    }

    /// A copy of each element, one after the other.
    pub fn to_vec(&self) -> Vec<T> {
        (0..self.len()).map(|index| self.get(index)).collect()
    }
}

impl<T: Element> Clone for RawArray<T> {
    fn clone(&self) -> Self {
        Self {
            data: Arc::clone(&self.data),
        }
    }
}

impl<T: Scalar + fmt::Debug> fmt::Debug for RawArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawArray").field(&self.to_vec()).finish()
    }
}

impl<T: Element> Serialize for RawArray<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.data.as_ref().serialize(serializer)
    }
}

impl<'de, T: Element> Deserialize<'de> for RawArray<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let data = Data::deserialize(deserializer)?;
        Ok(Self {
            data: Arc::new(data),
        })
    }
}

/// A plain value that processes and threads share without a lock: a [`RawArray`] of one, of which all is said.
///
/// # Examples
///
/// ```
/// use mproc::RawValue;
///
/// #[mproc::entry]
/// fn square(number: &RawValue<f64>) {
///     number.set(number.get() * number.get());
/// }
///
/// # fn main() -> mproc::Result<()> {
/// let number = RawValue::new(1.5)?;
/// square::spawn(&number)?.join()?;
/// assert_eq!(number.get(), 2.25);
/// # Ok(())
/// # }
/// ```
pub struct RawValue<T: Element>(RawArray<T>);

impl<T: Element> RawValue<T> {
    /// A value.
    ///
    /// # Errors
    ///
    /// As [`RawArray::new`].
    pub fn new(value: T) -> Result<Self> {
        RawArray::from_slice(&[value]).map(Self)
    }
}

impl<T: Element + Pod> RawValue<T> {
    /// A copy of it, which may be torn, see [`RawArray::read`].
    pub fn read(&self) -> T {
        self.0.read(0)
    }

    /// Replaces it, see [`RawArray::write`].
    pub fn write(&self, value: T) {
        self.0.write(0, value);
    }
}

impl<T: Scalar> RawValue<T> {
    /// The number.
    pub fn get(&self) -> T {
        self.0.get(0)
    }

    /// Replaces it.
    pub fn set(&self, value: T) {
        self.0.set(0, value);
    }
}

impl<T: Element> Clone for RawValue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Scalar + fmt::Debug> fmt::Debug for RawValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RawValue").field(&self.get()).finish()
    }
}

impl<T: Element> Serialize for RawValue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Element> Deserialize<'de> for RawValue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let array = RawArray::deserialize(deserializer)?;
        if array.len() != 1 {
            return Err(serde::de::Error::custom(
                "an array where a value was expected",
            ));
        }
        Ok(Self(array))
    }
}
