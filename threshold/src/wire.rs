//! The bytes between parties: a header that says whose message this is and of which ceremony, and a body in CBOR.
//!
//! ```text
//! version 1 | phase 1 | sender 2 | recipient 2 (65535: all) | execution id 32 | body
//! ```
//!
//! One meaning has one encoding: a body that encodes differently once decoded is refused. Numbers are big endian.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::errors::Fault;

/// The most bytes of one message, or of one serialised share.
pub const MESSAGE_BYTES_MAX: usize = 384 * 1024;
pub const PARTIES_MAX: u16 = 16;

pub const ALL: u16 = u16::MAX;
const VERSION: u8 = 1;
const HEADER: usize = 38;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Keygen = 1,
    Aux = 2,
    Presign = 3,
    Sign = 4,
}

impl Phase {
    pub fn name(self) -> &'static str {
        ["keygen", "aux", "presign", "sign"][self as usize - 1]
    }

    /// Twice what an honest message needs: a number that is too long costs its reader time before it is found to be wrong.
    fn bytes_max(self) -> usize {
        match self {
            Phase::Keygen => 16 * 1024,
            Phase::Aux => MESSAGE_BYTES_MAX,
            Phase::Presign => 64 * 1024,
            Phase::Sign => 1024,
        }
    }
}

/// Who takes part in what: one party's view of one ceremony. Parties are named by their index at key generation.
#[derive(Clone)]
pub struct Seat {
    pub phase: Phase,
    pub party: u16,
    pub parties: Vec<u16>,
    pub execution_id: [u8; 32],
}

impl Seat {
    pub fn new(phase: Phase, party: u16, parties: Vec<u16>, execution_id: &[u8]) -> Result<Self, Fault> {
        let execution_id = execution_id.try_into().map_err(|_| Fault::Invalid("an execution id has 32 bytes"))?;
        if !(2..=usize::from(PARTIES_MAX)).contains(&parties.len()) {
            return Err(Fault::Invalid("2 to 16 parties take part"));
        }
        if !parties.is_sorted_by(|one, next| one < next) {
            return Err(Fault::Invalid("parties are named once each, in ascending order"));
        }
        if !parties.contains(&party) {
            return Err(Fault::Invalid("this party does not take part"));
        }
        Ok(Seat { phase, party, parties, execution_id })
    }

    /// A party's place among those who take part: what the protocol calls its index.
    pub fn place(&self, party: u16) -> Option<u16> {
        self.parties.iter().position(|&one| one == party).and_then(|place| place.try_into().ok())
    }

    /// What the protocol binds every proof to: the caller's id, and all that the parties must agree on beforehand.
    pub fn context(&self, threshold: u16, key: &[u8]) -> Vec<u8> {
        let mut text = b"isthmus threshold 1".to_vec();
        text.push(self.phase as u8);
        text.extend(threshold.to_be_bytes());
        text.extend((self.parties.len() as u16).to_be_bytes());
        text.extend(self.parties.iter().flat_map(|party| party.to_be_bytes()));
        text.extend(self.execution_id);
        text.extend(key);
        text
    }

    pub fn seal(&self, recipient: u16, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER + body.len());
        frame.extend([VERSION, self.phase as u8]);
        frame.extend(self.party.to_be_bytes());
        frame.extend(recipient.to_be_bytes());
        frame.extend(self.execution_id);
        frame.extend(body);
        frame
    }

    /// The body of a frame that `sender` (as the transport knows it) sent to us, and whether it went to all.
    pub fn open<'f>(&self, sender: u16, frame: &'f [u8]) -> Result<(bool, &'f [u8]), Fault> {
        let refuse = |why| Err(Fault::Refused(why, vec![]));
        if sender == self.party || !self.parties.contains(&sender) {
            return refuse("the sender takes no part in this ceremony");
        }
        if frame.len() > self.phase.bytes_max() {
            return Err(Fault::Refused("the message is too long", vec![sender]));
        }
        let Some((head, body)) = frame.split_at_checked(HEADER) else {
            return Err(Fault::Refused("the message is cut short", vec![sender]));
        };
        if head[..2] != [VERSION, self.phase as u8] {
            return refuse("the message belongs to another phase or version");
        }
        if head[6..] != self.execution_id {
            return refuse("the message belongs to another execution");
        }
        if head[2..4] != sender.to_be_bytes() {
            return Err(Fault::Refused("the message names another sender than its transport does", vec![sender]));
        }
        match u16::from_be_bytes([head[4], head[5]]) {
            ALL => Ok((true, body)),
            recipient if recipient == self.party => Ok((false, body)),
            _ => refuse("the message is for another party"),
        }
    }
}

pub fn encode(value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Fault> {
    // Room for everything that we write, so that no secret is left behind in a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MESSAGE_BYTES_MAX / 8));
    ciborium::into_writer(value, &mut *bytes).map_err(|_| Fault::Invalid("a value could not be encoded"))?;
    Ok(bytes)
}

/// None for whatever `encode` would not have written.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let value = ciborium::from_reader(bytes).ok()?;
    (**encode(&value).ok()? == *bytes).then_some(value)
}
