//! Threshold ECDSA for Isthmus: t of n parties hold one Ethereum key, and nobody ever holds all of it.
//!
//! The cryptography is the crate `cggmp24` (CGGMP24, secp256k1, 128-bit security). This crate adds none: it turns each
//! of the protocols into a machine of bytes in and bytes out, bounds and checks the bytes, and hands the machine to Python.

#![forbid(unsafe_code)]

mod ceremony;
mod errors;
mod share;
mod signing;
mod wire;

type Curve = cggmp24::supported_curves::Secp256k1;
type Level = cggmp24::security_level::SecurityLevel128;

/// The machines, shares and signatures of one party.
#[pyo3::pymodule]
mod isthmus_threshold {
    #[pymodule_export]
    use super::ceremony::{Ceremony, Message, aux, keygen, presign};
    #[pymodule_export]
    use super::errors::{CeremonyAborted, MessageRefused, PresignatureSpent, ThresholdError};
    #[pymodule_export]
    use super::share::{Aux, Core, KeyShare, Primes};
    #[pymodule_export]
    use super::signing::{Presignature, Signing};
    #[pymodule_export]
    const MESSAGE_BYTES_MAX: usize = super::wire::MESSAGE_BYTES_MAX;
    #[pymodule_export]
    const PARTIES_MAX: u16 = super::wire::PARTIES_MAX;
}
