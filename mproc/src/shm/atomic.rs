//! The atomics of everything that is shared between processes. A model checker (`--cfg mproc_model`) puts its own in their place.

#[cfg(not(mproc_model))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Orders a store before the loads that follow it: a SeqCst fence.
///
/// Between a store and a look for sleepers, where a SeqCst *store* would do as well, but on x86-64 be an exchange, which does not begin to
/// fetch its own cache line before all stores in front of it have theirs. In front of a fence they are fetched at the same time (round trip
/// between two cores: 0.45 against 0.67 µs).
#[cfg(not(mproc_model))]
#[inline(always)]
pub(crate) fn full_fence() {
    // As a fence, compilers emit `mfence`, which costs twice a locked instruction and does no more for ordinary memory. Not on the top of the
    // stack, as usual: what is popped next lies there, and would have to wait until all stores in front of the fence have their lines, which
    // nothing else has to (short messages: 15 ns against 28). Linux does the same (arch/x86/include/asm/barrier.h).
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the word lies below the top of the stack, as what is pushed does, which without `nostack` this may be; and it keeps its value.
    unsafe {
        std::arch::asm!("lock or dword ptr [rsp - 64], 0");
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
}

/// The word as the kernel knows it.
#[cfg(not(mproc_model))]
pub(crate) fn word(word: &AtomicU32) -> &AtomicU32 {
    word
}

#[cfg(mproc_model)]
pub(crate) use model::{AtomicU32, AtomicU64, Ordering, Word, full_fence, word};

/// Loom's atomics, with two things added: a process may die before whatever it changes, and SeqCst means what it says.
#[cfg(mproc_model)]
mod model {
    pub(crate) use loom::sync::atomic::Ordering;
    use loom::sync::atomic::fence;

    use crate::sys::may_die;

    macro_rules! atomic {
        ($name:ident, $number:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $number {
                    self.0.load(order)
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $number, order: Ordering) {
                    changing(order, || self.0.store(value, order));
                }

                #[track_caller]
                pub(crate) fn swap(&self, value: $number, order: Ordering) -> $number {
                    changing(order, || self.0.swap(value, order))
                }

                #[track_caller]
                pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    changing(order, || self.0.fetch_add(value, order))
                }

                #[track_caller]
                pub(crate) fn fetch_sub(&self, value: $number, order: Ordering) -> $number {
                    changing(order, || self.0.fetch_sub(value, order))
                }

                #[track_caller]
                pub(crate) fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                    changing(order, || self.0.fetch_and(value, order))
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    changing(success, || {
                        self.0.compare_exchange(current, new, success, failure)
                    })
                }

                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    update: impl FnMut($number) -> Option<$number>,
                ) -> Result<$number, $number> {
                    changing(success, || self.0.fetch_update(success, failure, update))
                }
            }
        };
    }

    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    /// Loom takes SeqCst for AcqRel, but knows fences. One behind each change orders it before the loads that follow.
    #[track_caller]
    fn changing<T>(order: Ordering, act: impl FnOnce() -> T) -> T {
        may_die();
        let result = act();
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
        result
    }

    pub(crate) fn full_fence() {
        fence(Ordering::SeqCst);
    }

    /// What a thread sleeps on.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum Word<'w> {
        Whole(&'w AtomicU32),
        Upper(&'w AtomicU64),
    }

    pub(crate) fn word(word: &AtomicU32) -> Word<'_> {
        Word::Whole(word)
    }

    impl Word<'_> {
        /// By this the kernel knows it.
        pub(crate) fn address(self) -> usize {
            match self {
                Self::Whole(word) => std::ptr::from_ref(word).addr(),
                Self::Upper(word) => std::ptr::from_ref(word).addr(),
            }
        }

        /// As the kernel, under its own locks and behind its barriers, sees it. Not by an exchange: loom does not know that
        /// one comes right behind what it has read.
        pub(crate) fn value(self) -> u32 {
            fence(Ordering::SeqCst);
            match self {
                Self::Whole(word) => word.0.load(Ordering::SeqCst),
                Self::Upper(word) => (word.0.load(Ordering::SeqCst) >> 32) as u32,
            }
        }

        /// What the kernel does to the word of a dead owner.
        pub(crate) fn set(self, value: u32) {
            match self {
                Self::Whole(word) => word.0.store(value, Ordering::SeqCst),
                Self::Upper(_) => unreachable!("a bell has no owner"),
            }
            fence(Ordering::SeqCst);
        }
    }
}
