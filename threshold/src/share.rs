//! What a party keeps: its part of the key (from `keygen`), its Paillier keys (from `aux`), and both together as a key share.

use std::sync::{Arc, Mutex, PoisonError};

use cggmp24::PregeneratedPrimes;
use cggmp24::key_share::{AnyKeyShare, Validate};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use rand_core::OsRng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest;
use zeroize::Zeroizing;

use crate::errors::{Fault, guarded};
use crate::wire::{MESSAGE_BYTES_MAX, PARTIES_MAX, decode, encode};
use crate::{Curve, Level};

const WHERE: &str = "share";
const SHARE_TAG: &[u8] = b"isthmus threshold share 1\n";
const PRIMES_TAG: &[u8] = b"isthmus threshold primes 1\n";

/// A party's part of a key, without the keys that signing needs as well.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Core(pub cggmp24::IncompleteKeyShare<Curve>);

/// A party's Paillier keys. A fixed group of parties may use them for several keys.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Aux(pub cggmp24::key_share::AuxInfo<Level>);

/// Four safe primes of 1536 bits: the seconds to minutes of `aux` that need nobody else. They serve one `aux` only.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct Primes(Mutex<Option<PregeneratedPrimes<Level>>>);

#[pymethods]
impl Primes {
    #[staticmethod]
    fn generate(py: Python<'_>) -> Self {
        Primes(Mutex::new(Some(py.detach(|| PregeneratedPrimes::generate(&mut OsRng)))))
    }

    /// Secret bytes: encrypt them before they leave the process, then overwrite them.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = held.as_ref().ok_or(Fault::Invalid(USED)).and_then(|primes| store(PRIMES_TAG, primes));
        bytes.map(|bytes| PyByteArray::new(py, &bytes)).map_err(|fault| fault.raise(py, WHERE))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let primes = secret_bytes(data)?;
        let primes = guarded(|| {
            let held: PregeneratedPrimes<Level> = load(PRIMES_TAG, &primes)?;
            PregeneratedPrimes::try_from(held.into_primes()).map_err(|_| Fault::Invalid("the primes are too small"))
        });
        primes.map(|primes| Primes(Mutex::new(Some(primes)))).map_err(|fault| fault.raise(py, WHERE))
    }

    fn __repr__(&self) -> &'static str {
        "Primes(****)"
    }
}

const USED: &str = "these primes were used already; generate others";

impl Primes {
    pub fn take(&self) -> Result<PregeneratedPrimes<Level>, Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(Fault::Invalid(USED))
    }
}

/// All that one party needs to take part in signing.
#[pyclass(frozen, module = "isthmus_threshold")]
pub struct KeyShare(Arc<cggmp24::KeyShare<Curve, Level>>);

#[pymethods]
impl KeyShare {
    /// Both halves of one party, of the same group.
    #[staticmethod]
    fn assemble(py: Python<'_>, core: &Core, aux: &Aux) -> PyResult<Self> {
        let share = guarded(|| {
            cggmp24::KeyShare::from_parts((core.0.clone(), aux.0.clone()))
                .map_err(|_| Fault::Invalid("the two halves do not fit together"))
        });
        share.map(|share| KeyShare(Arc::new(share))).map_err(|fault| fault.raise(py, WHERE))
    }

    /// This party's index.
    #[getter]
    pub fn party(&self) -> u16 {
        self.0.core.i
    }

    #[getter]
    pub fn parties(&self) -> u16 {
        self.0.n()
    }

    #[getter]
    pub fn threshold(&self) -> u16 {
        self.0.min_signers()
    }

    /// The shared public key: x and y, 64 bytes.
    #[getter]
    fn public_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.shared_public_key().to_bytes(false)[1..])
    }

    /// The Ethereum address of the shared key, 20 bytes.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &sha3::Keccak256::digest(&self.0.shared_public_key().to_bytes(false)[1..])[12..])
    }

    /// SHA-256 of all that is public about the key and its parties. All parties compare it before they accept a new key.
    #[getter]
    fn fingerprint<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (core, aux) = (&self.0.core.key_info, &self.0.aux);
        let rings: Vec<_> = aux.pedersen_params.iter().map(|ring| (&ring.hat_N, &ring.s, &ring.t)).collect();
        let text = encode(&(core, &aux.N, rings)).map_err(|fault| fault.raise(py, WHERE))?;
        Ok(PyBytes::new(py, &sha2::Sha256::digest(&*text)))
    }

    /// This party's Paillier keys, for another key of the same group.
    #[getter]
    fn aux(&self, py: Python<'_>) -> PyResult<Aux> {
        let aux = self.0.aux.clone().validate().map_err(|_| Fault::Invalid("the share's Paillier keys are not valid"));
        aux.map(Aux).map_err(|fault| fault.raise(py, WHERE))
    }

    /// Secret bytes: encrypt them before they leave the process, then overwrite them.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyByteArray>> {
        store(SHARE_TAG, &*self.0).map(|bytes| PyByteArray::new(py, &bytes)).map_err(|fault| fault.raise(py, WHERE))
    }

    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let data = secret_bytes(data)?;
        let share = guarded(|| {
            let share: cggmp24::KeyShare<Curve, Level> = load(SHARE_TAG, &data)?;
            if share.n() > PARTIES_MAX || share.core.i >= share.n() {
                return Err(Fault::Invalid("the share is of too many parties"));
            }
            Ok(KeyShare(Arc::new(share)))
        });
        share.map_err(|fault| fault.raise(py, WHERE))
    }

    fn __repr__(&self) -> String {
        format!("KeyShare(party {} of {}, {} sign, secret=****)", self.party(), self.parties(), self.threshold())
    }
}

impl KeyShare {
    pub fn keep(&self) -> Arc<cggmp24::KeyShare<Curve, Level>> {
        Arc::clone(&self.0)
    }

    pub fn point(&self) -> Vec<u8> {
        self.0.shared_public_key().to_bytes(true).to_vec()
    }
}

fn store(tag: &[u8], value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let body = encode(value)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(tag.len() + body.len()));
    bytes.extend(tag);
    bytes.extend(&*body);
    Ok(bytes)
}

fn load<T: Serialize + DeserializeOwned>(tag: &[u8], data: &[u8]) -> Result<T, Fault> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(Fault::Invalid("the bytes are too many"));
    }
    data.strip_prefix(tag).and_then(decode).ok_or(Fault::Invalid("the bytes are not what they should be; take another backup"))
}

fn secret_bytes(data: &Bound<'_, PyAny>) -> PyResult<Zeroizing<Vec<u8>>> {
    match data.cast::<PyByteArray>() {
        Ok(array) => Ok(Zeroizing::new(array.to_vec())),
        Err(_) => Ok(Zeroizing::new(data.extract::<&[u8]>()?.to_vec())),
    }
}
