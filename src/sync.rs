//! Locking a mutex without a second panic.
//!
//! A thread that panicked has ended its run with an error already; what it protected is still needed to clean up.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`, also one that a panicking thread held.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the value out of `mutex`, also of one that a panicking thread held.
pub(crate) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
