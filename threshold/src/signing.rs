//! The last step, the only one that needs to know what is signed: each signer answers once, and any of them puts the answers together.
//!
//! What is signed is passed as it is, never as a hash. Whoever may choose a bare hash after seeing a presignature can forge
//! (Groth and Shoup, eprint 2021/1330, section 1.1.2; CVE-2025-66017): the hash is taken here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cggmp24::generic_ec::Point;
use cggmp24::signing::{DataToSign, PartialSignature, PresignaturePublicData};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sha3::{Digest, Keccak256};

use crate::Curve;
use crate::errors::{Fault, guarded};
use crate::wire::{ALL, Phase, Seat, decode, encode};

type Secret = cggmp24::signing::Presignature<Curve>;
type Public = PresignaturePublicData<Curve>;

const WHERE: &str = "sign";

/// One signature, prepared. It signs once, in the process that made it, and cannot be copied or stored.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Presignature {
    seat: Seat,
    key: Point<Curve>,
    halves: Mutex<Option<(Secret, Public)>>,
    process: u32,
}

#[pymethods]
impl Presignature {
    #[getter]
    fn execution_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.seat.execution_id)
    }

    #[getter]
    fn signers(&self) -> Vec<u16> {
        self.seat.parties.clone()
    }

    #[getter]
    fn is_spent(&self) -> bool {
        self.process != std::process::id() || self.halves.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Sign Keccak-256 of `message`. The presignature is spent from the first instruction on, whatever happens next.
    fn sign(&self, py: Python<'_>, message: &[u8]) -> PyResult<Signing> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner).take();
        let signing = guarded(|| match halves {
            Some((secret, public)) if self.process == std::process::id() => {
                let digest: [u8; 32] = Keccak256::digest(message).into();
                let data = DataToSign::digest::<Keccak256>(message);
                let own = secret.issue_partial_signature(data);
                let body = [digest.as_slice(), &encode(&own)?].concat();
                let frame = self.seat.seal(ALL, &body);
                Ok(Signing { seat: self.seat.clone(), key: self.key, public, data, digest, own, frame })
            }
            _ => Err(Fault::Spent),
        });
        signing.map_err(|fault| fault.raise(py, WHERE))
    }

    fn __repr__(&self) -> String {
        format!("Presignature(party {} of {:?}, secret=****)", self.seat.party, self.seat.parties)
    }
}

impl Presignature {
    pub fn new(seat: Seat, key: Point<Curve>, secret: Secret, public: Public) -> Self {
        let seat = Seat { phase: Phase::Sign, ..seat };
        Presignature { seat, key, halves: Mutex::new(Some((secret, public))), process: std::process::id() }
    }
}

/// One signer's answer, and what it takes to make a signature of it and of the others' answers. Nothing here is secret.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Signing {
    seat: Seat,
    key: Point<Curve>,
    public: Public,
    data: DataToSign<Curve>,
    digest: [u8; 32],
    own: PartialSignature<Curve>,
    frame: Vec<u8>,
}

#[pymethods]
impl Signing {
    /// This signer's answer, for whoever puts them together.
    #[getter]
    fn partial<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.frame)
    }

    #[getter]
    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.digest)
    }

    /// The signature from the other signers' answers: r, s (low) and the recovery id (0 or 1), 65 bytes. It was verified.
    fn combine<'py>(&self, py: Python<'py>, partials: HashMap<u16, Vec<u8>>) -> PyResult<Bound<'py, PyBytes>> {
        let signature = guarded(|| self.put_together(&partials));
        signature.map(|bytes| PyBytes::new(py, &bytes)).map_err(|fault| fault.raise(py, WHERE))
    }
}

impl Signing {
    fn put_together(&self, partials: &HashMap<u16, Vec<u8>>) -> Result<[u8; 65], Fault> {
        let others = self.seat.parties.iter().filter(|&&party| party != self.seat.party);
        if partials.len() != self.seat.parties.len() - 1 || !others.clone().all(|party| partials.contains_key(party)) {
            return Err(Fault::Refused("the answers of all other signers are needed, and no more", vec![]));
        }
        let mut found = vec![self.own; self.seat.parties.len()];
        for &party in others {
            let (_, body) = self.seat.open(party, &partials[&party])?;
            let place = usize::from(self.seat.place(party).unwrap_or_default());
            found[place] = self.check(place, body).ok_or(Fault::Refused("the answer does not sign this message", vec![party]))?;
        }
        let unfit = || Fault::Invalid("the answers make no signature of this key");
        let signature = PartialSignature::combine(&found, &self.public, self.data).ok_or_else(unfit)?;
        signature.verify(&self.key, &self.data).map_err(|_| unfit())?;
        let mut bytes = [0; 65];
        signature.write_to_slice(&mut bytes[..64]);
        bytes[64] = self.recovery_id(&bytes[..64]).ok_or_else(unfit)?;
        Ok(bytes)
    }

    /// One signer's answer, held by itself against what that signer committed to when the presignature was made.
    fn check(&self, place: usize, body: &[u8]) -> Option<PartialSignature<Curve>> {
        let partial = decode(body.strip_prefix(&self.digest)?)?;
        let commitments = vec![self.public.commitments.get(place)?.clone()];
        let alone = Public { Gamma: self.public.Gamma, commitments };
        PartialSignature::combine(&[partial], &alone, self.data).map(|_| partial)
    }

    fn recovery_id(&self, signature: &[u8]) -> Option<u8> {
        let key = VerifyingKey::from_sec1_bytes(&self.key.to_bytes(false)).ok()?;
        let signature = Signature::from_slice(signature).ok()?;
        RecoveryId::trial_recovery_from_prehash(&key, &self.digest, &signature).ok().map(RecoveryId::to_byte)
    }
}
