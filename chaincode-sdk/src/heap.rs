//! The heap of a chaincode: the memory that it is born with, and only then more.
//!
//! Exists only in the build for WebAssembly. The standard library's allocator asks for memory with its first allocation; each
//! such growth makes the peer change the protection of memory twice per invocation, which every thread of the peer waits for. What
//! `consort chaincode build` links in as the initial heap serves nearly all invocations without.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, UnsafeCell};

use dlmalloc::{Allocator, Dlmalloc};

/// Bytes of a page of linear memory.
const PAGE_BYTES: usize = 64 << 10;
/// Alignment of the heap's beginning; dlmalloc's own.
const ALIGNMENT: usize = 16;

unsafe extern "C" {
    /// Defined by the linker: what lies behind it is not used by the module itself.
    static __heap_base: u8;
}

/// Gives the rest of the initial memory first, and grows the memory afterwards.
struct Pages {
    initial_given: Cell<bool>,
}

// SAFETY: what it gives lies behind everything that the linker placed, is given once, and is never taken back.
unsafe impl Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if !self.initial_given.replace(true) {
            let begin = (&raw const __heap_base).addr().next_multiple_of(ALIGNMENT);
            let room = (core::arch::wasm32::memory_size::<0>() * PAGE_BYTES).saturating_sub(begin);
            if room >= size {
                return (std::ptr::with_exposed_provenance_mut(begin), room, 0);
            }
        }
        let pages = size.div_ceil(PAGE_BYTES);
        let before = core::arch::wasm32::memory_grow::<0>(pages);
        if before == usize::MAX {
            return (std::ptr::null_mut(), 0, 0);
        }
        (std::ptr::with_exposed_provenance_mut(before * PAGE_BYTES), pages * PAGE_BYTES, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        std::ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE_BYTES
    }
}

struct Heap(UnsafeCell<Dlmalloc<Pages>>);

// SAFETY: a chaincode has one thread; the sandbox offers no other.
unsafe impl Sync for Heap {}

impl Heap {
    #[expect(clippy::mut_from_ref, reason = "one thread, and no allocation happens within another")]
    fn inner(&self) -> &mut Dlmalloc<Pages> {
        // SAFETY: one thread; dlmalloc calls nothing that allocates.
        unsafe { &mut *self.0.get() }
    }
}

// SAFETY: passes on to dlmalloc, which keeps the contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.inner().malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.inner().free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.inner().calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe { self.inner().realloc(pointer, layout.size(), layout.align(), size) }
    }
}

#[global_allocator]
static HEAP: Heap =
    Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Pages { initial_given: Cell::new(false) })));
