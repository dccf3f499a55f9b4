//! Bugs on purpose: a test that finds none of them would not find one that got in by itself.
//!
//! Each mutant is one wrong line, behind the name that the macro `mutant!` is given where it stands. They exist only in
//! a build with `--cfg raftkv_mutants`, where one of them at a time can be chosen, by `choose` or by the environment
//! variable `RAFTKV_MUTANT`. Without the flag the macro is `false`, and nothing of them is left in the program.
//!
//! Every mutant can be reached by what a cluster goes through (crashes, cuts, pauses, disks that are slow, torn, broken
//! or lost), does harm that a client or an invariant can see, and is known to have happened to somebody, or is what a
//! rule of the design guards against.

/// Whether this mutant is chosen.
#[cfg(not(raftkv_mutants))]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is_chosen($name)
    };
}

/// Whether this mutant is chosen. A name that is not in the table does not compile.
#[cfg(raftkv_mutants)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is_chosen(const { $crate::mutants::position($name) })
    };
}

#[cfg(not(raftkv_mutants))]
#[inline(always)]
pub(crate) const fn is_chosen(_name: &str) -> bool {
    false
}

#[cfg(raftkv_mutants)]
mod chosen;
#[cfg(raftkv_mutants)]
mod table;

#[cfg(raftkv_mutants)]
pub use chosen::{Mutant, choose};
#[cfg(raftkv_mutants)]
pub(crate) use chosen::{is_chosen, position};
#[cfg(raftkv_mutants)]
pub use table::ALL;
