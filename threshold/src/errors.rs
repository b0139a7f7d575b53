//! What can go wrong, as exceptions of Python. Each carries `phase` and `guilty`, the parties that are to blame if that is known.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

create_exception!(isthmus_threshold, ThresholdError, PyException, "Threshold signing failed.");
create_exception!(isthmus_threshold, MessageRefused, ThresholdError, "A message was refused; the ceremony is as it was before.");
create_exception!(isthmus_threshold, CeremonyAborted, ThresholdError, "A ceremony has ended without a result.");
create_exception!(isthmus_threshold, PresignatureSpent, ThresholdError, "A presignature signs once.");

const REASON_CHARS_MAX: usize = 200;

/// A failure on its way to Python.
pub enum Fault {
    Invalid(&'static str),
    Refused(&'static str, Vec<u16>),
    Aborted(String, Vec<u16>),
    Spent,
}

impl Fault {
    pub fn raise(self, py: Python<'_>, phase: &str) -> PyErr {
        let (error, guilty) = match self {
            Fault::Invalid(why) => (ThresholdError::new_err(format!("{phase}: {why}")), vec![]),
            Fault::Refused(why, guilty) => (MessageRefused::new_err(format!("{phase}: {why}")), guilty),
            Fault::Aborted(why, guilty) => (CeremonyAborted::new_err(format!("{phase}: {why}")), guilty),
            Fault::Spent => (PresignatureSpent::new_err(format!("{phase}: this presignature is spent; take another")), vec![]),
        };
        let told = PyTuple::new(py, guilty).and_then(|guilty| {
            error.value(py).setattr("phase", phase)?;
            error.value(py).setattr("guilty", guilty)
        });
        told.err().unwrap_or(error)
    }
}

/// Runs what may panic on malformed input: a panic becomes a fault like any other.
pub fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Fault::Invalid("the engine failed on this input")))
}

/// A protocol's own error as one line, and whom it accuses (indices among the signers of this ceremony).
///
/// The crate keeps its reasons private, so the names are read from their text. Where broadcasts differ, anybody may have lied: nobody is accused.
pub fn explain(error: &(dyn Error + 'static)) -> (String, Vec<u16>) {
    let mut lines = vec![error.to_string()];
    let mut inner = error.source();
    while let Some(cause) = inner {
        lines.push(cause.to_string());
        inner = cause.source();
    }
    let text = format!("{error:?}");
    let reason = lines.join(": ").replace('\n', " ").chars().take(REASON_CHARS_MAX).collect();
    (reason, if text.contains("NotReliable") { vec![] } else { accused(&text) })
}

fn accused(text: &str) -> Vec<u16> {
    let one = text.split("faulty_party: ").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let mut found: Vec<u16> = one.flatten().filter_map(|digits| digits.parse().ok()).collect();
    if let Some((_, rest)) = text.split_once("parties: [") {
        let list = rest.split(']').next().unwrap_or_default();
        found.extend(list.split(',').filter_map(|digits| digits.trim().parse::<u16>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}
