//! Kernel contexts; a test runs on one stack.

/// Saved kernel context of a task that doesn't run.
#[derive(Debug)]
pub struct Context(());

impl Context {
    /// For the task that runs already.
    pub const fn empty() -> Context {
        Context(())
    }
    /// A context that would call `entry(arg)` on a fresh stack.
    ///
    /// # Safety
    /// None needed here.
    pub unsafe fn new_kernel(_top: usize, _entry: extern "C" fn(usize) -> !, _arg: usize) -> Self {
        Context(())
    }
}

/// Saves the current context in `prev` and continues `next`.
///
/// # Safety
/// None: it refuses.
pub unsafe fn switch(_prev: *mut Context, _next: *const Context) {
    panic!("a test process has one kernel context");
}
