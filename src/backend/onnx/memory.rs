//! Memory that a load or a dropped session would leave behind.

/// Blocks of this size and above are the system's as soon as they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE_BLOCK_BYTES: i32 = 8 << 20;

/// Has large blocks come from the system and go back to it at once. Call it once, before anything is loaded.
///
/// By itself the C library raises its own limit to whatever was freed last, up to 32 MB, and then keeps weights of that
/// size among small blocks: of a 20 MB model that was replaced 30 times up to seven copies stayed.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets a parameter of the allocator, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    }
}

/// Gives freed memory back to the system. Call it after a session was dropped; takes some milliseconds.
///
/// The C library keeps what was freed for later: of a 100 MB model about 300 MB after some loads and unloads.
pub fn release_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim may be called at any time from any thread; it takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
